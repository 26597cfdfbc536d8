"""From the `kind` of an evaluator to its settings and options, and from settings to the live evaluator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from nas_core import refs
from nas_core.config import restore, validate
from training.evaluators import BUILTIN, GROUP, WRAPPERS
from training.evaluators.earlier import as_now
from training.evaluators.own import OwnOptions, OwnSettings, keys_of_own, open_own
from training.evaluators.settings import EvaluatorOptions, EvaluatorSettings, Opened, Problem


def stored(values: EvaluatorSettings | Mapping[str, Any]) -> EvaluatorSettings:
    """Settings as a study stores them; nothing of a user's is loaded. Raises UsageError for damaged ones."""
    if isinstance(values, EvaluatorSettings):
        return values
    values = as_now(values)
    known = _known(str(values.get("kind")))
    return restore(OwnSettings if known is None else known.Settings, values, "evaluator")


def options(asked: EvaluatorOptions | Mapping[str, Any]) -> EvaluatorOptions:
    """What a configuration asks for: `{"kind": "train", "epochs": 5}`. Raises UsageError for unknown keys (with the
    nearest) and bad values."""
    if isinstance(asked, EvaluatorOptions):
        return asked
    kind = str(asked.get("kind", "train"))
    known = _known(kind)
    if known is not None:
        return validate(known.Options, asked, "evaluator")
    return validate(
        OwnOptions, {"kind": kind, "settings": {k: v for k, v in asked.items() if k != "kind"}}, "evaluator"
    )


def asking_for(settings: EvaluatorSettings) -> EvaluatorOptions:
    """What a configuration asks of an evaluator to get these settings, all of them said. Raises UsageError where none
    can."""
    stored = settings.model_dump(mode="json")
    known = _known(settings.kind)
    if known is None:
        own = {**stored["settings"], "trial_seconds": settings.trial_seconds}
        return options({"kind": settings.kind, **{key: value for key, value in own.items() if value is not None}})
    kept = {key: value for key, value in stored.items() if key in known.Options.model_fields and value is not None}
    inner = getattr(settings, "inner", None)
    return options(kept if inner is None else {**kept, "inner": asking_for(inner)})


def known_keys(kind: str) -> set[str]:
    """What may be asked of an evaluator, and of what can be around it. Raises as `refs.find` for one that is not listed
    and not there."""
    known = _known(kind)
    own = keys_of_own(kind) if known is None else {*known.Options.model_fields, *known.Options.earlier_keys}
    return {*own, *(key for wrapper in WRAPPERS for key in _around(wrapper))}


def wrapped(asked: Mapping[str, Any]) -> dict[str, Any]:
    """`{"kind": "train", "costs": "costs.csv"}` as `{"kind": "cost-table", "costs": "costs.csv", "inner": {"kind":
    "train"}}`: a wrapper is told by its keys. Several are put around in the order of their listing."""
    found = dict(asked)
    keys = {wrapper: {key: found.pop(key) for key in _around(wrapper) if key in found} for wrapper in WRAPPERS}
    for wrapper, around in keys.items():
        if around:
            found = {"kind": wrapper, **around, "inner": found}
    return found


def on_supernet(asked: Any, study: str) -> EvaluatorOptions:
    """The same on the trained supernet of a study: where, how latencies are measured, and what is around it."""
    if hasattr(asked, "inner"):
        around: EvaluatorOptions = asked.model_copy(update={"inner": on_supernet(asked.inner, study)})
        return around
    known = _known("supernet").Options.model_fields.keys() - {"kind", "study"}
    kept = {key: value for key, value in asked.model_dump(mode="json").items() if key in known}
    return options({**kept, "kind": "supernet", "study": study})


def all_options() -> list[type[EvaluatorOptions]]:
    """What may be asked of the listed evaluators."""
    return [_known(kind).Options for kind in (*BUILTIN, *WRAPPERS)]


def is_default(key: str, value: Any) -> bool:
    """Whether a listed evaluator has that key, and means this by it where nobody says anything."""
    fields = [known.model_fields[key] for known in all_options() if key in known.model_fields]
    for field in fields:
        default = field.get_default(call_default_factory=True)
        plain = default.model_dump(mode="json") if isinstance(default, BaseModel) else default
        said = {**plain, **value} if isinstance(plain, Mapping) and isinstance(value, Mapping) else value
        if said == plain or (isinstance(plain, tuple) and [*plain] == said):
            return True
    return False


def _around(wrapper: str) -> list[str]:
    """The keys of a wrapper's own."""
    return [key for key in _known(wrapper).Options.model_fields if key not in ("kind", "inner", "trial_seconds")]


def opened(settings: EvaluatorSettings, problem: Problem) -> Opened:
    """The live evaluator, and the hash of what it reads. Raises UsageError, NotFoundError, VerificationError or
    MachineError where that is not what it was, or not there."""
    known = _known(settings.kind)
    return open_own(settings, problem) if known is None else known.open(settings, problem)


def _known(kind: str) -> Any:
    """The class of an evaluator that is listed here; None: a user's own, or a package's."""
    listed = BUILTIN | WRAPPERS
    return refs.find(kind, listed, GROUP, "evaluator") if kind in listed else None
