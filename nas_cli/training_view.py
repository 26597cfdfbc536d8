"""One training of a trial (`nas show STUDY:N/train-K`), as text or JSON."""

from __future__ import annotations

from nas_cli import experts_view, render
from nas_cli.view import curve_page, metrics_page
from nas_core.records import Run
from reports.texts import settings_text
from studies.address import Address, address_of
from studies.analysis.trained import named_run, parent_of
from studies.documents import View, training_document
from studies.jobs.run import NAMES
from studies.jobs.stored import IMPORTED, INPUTS, parts_of, seed_of
from studies.store.store import Store


def show(view: View, store: Store, address: Address, as_json: bool) -> None:
    """Raises NotFoundError where there is no such run."""
    study, trial, training = named_run(store, address)
    document = training_document(view, store, trial, training)
    document["seed"] = seed_of(study, trial, training.kind, training.repeat)
    if as_json:
        render.document({**document, "curve": [{"step": one.step, **one.metrics} for one in store.curve(training)]})
        return
    settings = training.recipe or {}
    inputs = settings.get(INPUTS)
    render.pairs(
        {
            NAMES[training.kind]: str(address),
            "trial": view.address(trial),
            "of": address_of(study, trial, parent_of(store, trial, training)) if training.parent != trial.id else None,
            "weights of": settings["weights"]["from"] if IMPORTED in settings else None,
            "method": settings.get("method"),
            "method settings": settings_text(settings["config"]) if "config" in settings else None,
            "targets": ", ".join(settings.get("targets", ())) or None,
            "ignored": ", ".join(settings.get("ignore", ())) or None,
            "state": str(training.state),
            "reason": training.verdict.reason,
            "recipe": None if IMPORTED in settings else settings.get("recipe_name"),
            "settings": None if IMPORTED in settings else settings_text(settings.get("recipe", {})),
            "size": settings_text(settings.get("size", {})),
            "data": settings.get("data"),
            "split hash": settings.get("split_hash"),
            "inputs": None if inputs is None else settings_text(inputs),
            "seed": str(document["seed"]),
            "device": settings.get("device"),
            "started": render.moment(training.started),
            "ended": render.moment(training.ended),
            "seconds": render.number(training.verdict.seconds),
        }
    )
    metrics_page(view, training)
    experts_view.page(training.metrics, document["loads"])
    _parts_page(store, training)
    curve_page(store, training)
    if document["files"]:
        render.emit("", "files")
        render.pairs({file["path"]: file["kind"] for file in document["files"]}, "  ")


def _parts_page(store: Store, run: Run) -> None:
    """What a compression has done to each part of the network, round by round."""
    for number, done in enumerate(parts_of(store, run)):
        parts = done["report"]
        columns = list(dict.fromkeys(key for part in parts.values() for key, one in part.items() if _plain(one)))
        if columns:
            render.emit("", f"parts, round {number}")
            render.table(["part", *columns], [[name, *map(part.get, columns)] for name, part in parts.items()])
        if done["notes"]:
            render.emit("", *done["notes"])


def _plain(value: object) -> bool:
    return isinstance(value, int | float | str)
