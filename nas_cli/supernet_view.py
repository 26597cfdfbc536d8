"""The supernet of a one-shot study as a JSON document and as a section of the study's page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nas_cli import heat, render
from nas_cli.view import LAST, architecture_page, traceback_page
from nas_core.architecture import Architecture
from nas_core.choice import Value
from nas_core.errors import NotFoundError
from nas_core.records import SUPERNET, Epoch, SupernetRun
from reports.texts import settings_text
from studies.address import Address
from studies.analysis.operations import Operations, operations_of
from studies.documents import View
from studies.store import supernets
from studies.store.store import Store

COLLAPSE = {"parameter_free": "without parameters", "skips": "skips"}  # shares of the derived operations


def show(view: View, store: Store, as_json: bool) -> None:
    """The page of `STUDY/supernet`. Raises NotFoundError for a study without one."""
    found = Trained.of(view, store)
    if found is None:
        raise NotFoundError(f"study '{view.study.name}' has no supernet: its strategy is '{view.study.spec.strategy}'")
    if as_json:
        render.document({"address": str(Address(view.study.name, kind=SUPERNET)), **found.document()})
    else:
        found.page()


@dataclass(frozen=True, slots=True)
class Trained:
    """A one-shot study with what is known of its supernet: `run` is None before its training has begun."""

    view: View
    run: SupernetRun | None
    epochs: list[Epoch]
    options: Operations

    @classmethod
    def of(cls, view: View, store: Store) -> Trained | None:
        """None for a study without a supernet."""
        study = view.study
        if study.spec.supernet is None:
            return None
        epochs = supernets.epochs(store, study)
        return cls(view, supernets.find(store, study), epochs, operations_of(view, epochs))

    @property
    def derived(self) -> Architecture | None:
        """The best of what was derived, or what the last epoch would have."""
        if self.run is not None and self.run.result is not None:
            return self.run.result[0] if self.run.result else None
        return self.epochs[-1].arch if self.epochs else None

    @property
    def total(self) -> int | None:
        """Epochs that the training takes unless the strategy ends it before."""
        found = self.view.study.spec.strategy_config.get("epochs")
        return found if isinstance(found, int) else None

    # -- the document -----------------------------------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        """Everything stored: `state` is None before the training has begun, `result` before it has ended."""
        run, settings = self.run, self.view.study.spec.supernet
        return {
            "state": None if run is None else str(run.state),
            "reason": None if run is None else run.reason,
            "traceback": None if run is None else run.traceback,
            "attempt": None if run is None else run.attempt,
            "settings": None if settings is None else settings.model_dump(mode="json"),
            "of": self.total,
            "candidates": self.options,
            "epochs": [
                {
                    "epoch": epoch.number,
                    "metrics": dict(epoch.metrics),
                    "scores": epoch.strengths,
                    "architecture": None if epoch.arch is None else dict(epoch.arch.values),
                    "key": None if epoch.arch is None else epoch.arch.key,
                    "seconds": epoch.seconds,
                }
                for epoch in self.epochs
            ],
            "result": None if run is None or run.result is None else [self._derived(arch) for arch in run.result],
            "weights": None if run is None or run.weights is None else str(run.weights),
            "sha256": None if run is None else run.sha256,
            "seconds": self.epochs[-1].seconds if self.epochs else None,
        }

    def _derived(self, arch: Architecture) -> dict[str, Any]:
        return {"architecture": dict(arch.values), "key": arch.key, "notation": self.view.notation(arch)}

    # -- the page ---------------------------------------------------------------------------------------------

    def page(self) -> None:
        """Where the training stands, its last epochs, the derived architecture, and the weights of the candidates."""
        run, last = self.run, self.epochs[-1] if self.epochs else None
        supernet = self.view.study.spec.supernet
        settings = {} if supernet is None else supernet.model_dump(mode="json")
        done = last.number if last else 0
        render.emit("", "supernet")
        render.pairs(
            {
                "state": "not begun" if run is None else str(run.state),
                "reason": None if run is None else run.reason,
                "traceback": None if run is None else run.traceback,
                "epochs": f"{done:,}" if self.total is None else f"{done:,}/{self.total:,}",
                "trained on": settings.get("data"),
                "architecture learned on": settings.get("learns_on"),
                "with": settings_text({key: settings.get(key) for key in ("device", "precision", "threads")}),
                "seconds": render.number(last.seconds) if last else None,
                "attempts": render.number(run.attempt) if run is not None and run.attempt > 1 else None,
                "result": self._result(),
                "weights": None if run is None or run.weights is None else str(run.weights),
                "collapse": _collapse(last.metrics) if last else None,
            },
            "  ",
        )
        traceback_page(None if run is None else run.traceback)
        self._curve()
        if self.derived is not None:
            render.emit("", self._since())
            architecture_page(self.view, self.derived)
        if last is not None and last.strengths:
            self._weights(last)

    def _result(self) -> str | None:
        if self.run is None or self.run.result is None:
            return None
        count = len(self.run.result)
        return f"{count:,} architecture{'s' * (count != 1)} derived" if count else "the supernet itself"

    def _curve(self) -> None:
        shown = self.epochs[-LAST:]
        if not shown:
            return
        names = list(dict.fromkeys(name for epoch in shown for name in epoch.metrics))
        rows = [[epoch.number, *(epoch.metrics.get(name) for name in names)] for epoch in shown]
        render.emit("", f"metrics of the supernet (the last {len(shown)} of {len(self.epochs):,} epochs)")
        render.table(["epoch", *names], rows, right=["epoch", *names])

    def _since(self) -> str:
        changed = heat.changes(self.epochs)
        kept = f"the same since epoch {changed[-1]:,}" if changed else "the same since the first epoch"
        ended = self.run is not None and self.run.result is not None
        if ended and self.epochs and self.epochs[-1].arch != self.derived:
            return "derived at the end (not what the last epoch would have)"
        return f"derived ({kept})" if ended else f"would be derived now ({kept})"

    def _weights(self, last: Epoch) -> None:
        render.emit("", f"weights of the candidates at epoch {last.number:,}, the largest, and what is derived")
        lines = heat.heat_map(last.strengths, self.options, _taken(self.view, last.arch))
        if len(self.epochs) > 1:
            count = len(heat.sample(self.epochs))
            which = "every epoch" if count == len(self.epochs) else f"{count} of {len(self.epochs):,} epochs"
            lines += [
                "",
                f"the strongest candidate, {which} from {self.epochs[0].number:,} to {last.number:,} (changed: *)",
                *heat.path(self.epochs, self.options),
            ]
        render.emit(*_indented(lines), "", "candidates", *_indented(heat.legend(self.options)))


def _taken(view: View, arch: Architecture | None) -> Mapping[str, Value | None] | None:
    """The candidate of every group that an architecture takes; None where nobody can say."""
    if arch is None or view.space is None:
        return None
    try:
        return view.space.assignment(arch)
    except Exception:  # a user's space may have changed since, and raise anything
        return None


def _collapse(metrics: Mapping[str, float]) -> str | None:
    """`33% without parameters, 17% skips`: shares of the derived architecture's operations."""
    found = [f"{metrics[name]:.0%} {what}" for name, what in COLLAPSE.items() if name in metrics]
    return f"{', '.join(found)} of the derived operations" if found else None


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {render.clean(line)}".rstrip() for line in lines]
