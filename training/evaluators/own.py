"""An evaluator of the user's own: `FILE.py:CLASS`, `PACKAGE.MODULE:CLASS`, or the entry point of a package.

The class is an evaluator (`nas_core.evaluation.Evaluator`) that also has `task`, the `nas_core.task.Task` that its
networks are for, and

    class Settings(nas_core.config.Config): ...     # what -s evaluator.KEY=VALUE may say
    @classmethod
    def open(cls, settings, problem): ...           # the evaluator, and the hash of what it reads, or ""
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from nas_core import refs
from nas_core.config import validate
from nas_core.errors import NasError, UsageError
from nas_core.frozen import JsonObject
from training.data.split import Split
from training.evaluators import BUILTIN, GROUP
from training.evaluators.settings import EvaluatorOptions, EvaluatorSettings, Facts, Opened, Problem, Request, Settled

NEEDED = ("task", "metrics", "fidelity", "deterministic", "in_process", "identity", "costs", "evaluate")


class OwnSettings(EvaluatorSettings):
    """`kind` is the reference, `file_hash` that of the user's file, `settings` are for the class's own `Settings`."""

    later: ClassVar[frozenset[str]] = frozenset({"trial_seconds"})

    file_hash: str | None = None
    settings: JsonObject = Field(default_factory=dict)

    @property
    def facts(self) -> Facts:
        """Those that fields of their names say: `data`, `split`, `device`, `threads`."""
        said = self.settings
        data, device, threads = said.get("data"), said.get("device"), said.get("threads")
        split = said.get("split")
        return Facts(
            data=data if isinstance(data, str) else None,
            split=Split.model_validate(split) if isinstance(split, dict) else Split(),
            device=device if isinstance(device, str) else None,
            threads=threads if isinstance(threads, int) else None,
            trial_seconds=self.trial_seconds,
        )

    def at(self, place: str) -> EvaluatorSettings:
        if "data" not in self.settings:
            raise UsageError(f"evaluator '{self.kind}' has no setting 'data'; leave out --data")
        return self.model_copy(update={"settings": {**self.settings, "data": place}})

    def on(self, device: str) -> EvaluatorSettings:
        if "device" not in self.settings:
            return self
        return self.model_copy(update={"settings": {**self.settings, "device": device}})


class OwnOptions(EvaluatorOptions):
    """What the configuration says below `evaluator`, whatever it is."""

    settings: JsonObject = Field(default_factory=dict)

    def settle(self, request: Request) -> Settled:
        found = _load(self.kind)
        given = {key: value for key, value in self.settings.items() if key != "trial_seconds"}
        chosen = validate(found.Settings, given, f"evaluator '{self.kind}'")
        limit = validate(
            OwnOptions, {"kind": self.kind, "trial_seconds": self.settings.get("trial_seconds")}, "evaluator"
        )
        settings = OwnSettings(
            kind=self.kind,
            file_hash=found.file_hash,
            settings=chosen.model_dump(mode="json"),
            trial_seconds=limit.trial_seconds,
        )
        return Settled(settings, *open_own(settings, request.problem))


@dataclass(frozen=True, slots=True)
class _Own:
    """The class of a user's evaluator, checked."""

    Settings: type[BaseModel]
    open: Any
    file_hash: str | None


def keys_of_own(reference: str) -> set[str]:
    """What may be asked of an evaluator that is not listed. Raises as `refs.locate`."""
    return {*_load(reference).Settings.model_fields, "trial_seconds"}


def open_own(settings: EvaluatorSettings, problem: Problem) -> Opened:
    """Raises UsageError where the file has changed, or the class gives no evaluator; NotFoundError and MachineError as
    `refs.find`."""
    assert isinstance(settings, OwnSettings)
    found, name = _load(settings.kind), f"evaluator '{settings.kind}'"
    if found.file_hash != settings.file_hash:
        raise UsageError(
            f"the file of {name} has changed since the study was made "
            f"(then {settings.file_hash}, now {found.file_hash}); restore it, or start another --study"
        )
    chosen = validate(found.Settings, settings.settings, name)
    try:
        answer = found.open(chosen, problem)
    except NasError:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's class raises
        raise UsageError(f"{name}: open: {type(error).__name__}: {error}") from error
    if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], str)):
        raise UsageError(
            f"{name}: open returned {_type(answer)}; wanted the evaluator, and a hash of what it reads or ''"
        )
    missing = [need for need in NEEDED if not hasattr(answer[0], need)]
    if missing:
        raise UsageError(f"{name}: open returned {_type(answer[0])} without {', '.join(missing)}")
    return Opened(*answer)


def _load(reference: str) -> _Own:
    """Raises UsageError for a class without `Settings` or `open`, or for an unknown name."""
    loaded = refs.locate(reference, BUILTIN, GROUP, "evaluator")
    settings, opening = getattr(loaded.object, "Settings", None), getattr(loaded.object, "open", None)
    if not (isinstance(settings, type) and issubclass(settings, BaseModel)):
        raise UsageError(f"evaluator '{reference}' has no class Settings (a subclass of nas_core.config.Config) in it")
    if not callable(opening):
        raise UsageError(f"evaluator '{reference}' has no open(settings, problem); make it a classmethod")
    return _Own(settings, opening, loaded.file_hash)


def _type(value: object) -> str:
    return f"a {type(value).__name__}"
