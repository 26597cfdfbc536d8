"""From the `kind` of an evaluator to its settings and options, and from settings to the live evaluator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas_core import refs
from nas_core.config import restore, validate
from training.evaluators import BUILTIN, GROUP, WRAPPERS
from training.evaluators.earlier import as_now
from training.evaluators.own import OwnOptions, OwnSettings, open_own
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


def known_options(kind: str) -> type[EvaluatorOptions] | None:
    """What may be asked of a listed evaluator; None: of another one only its class can say."""
    known = _known(kind)
    return None if known is None else known.Options


def opened(settings: EvaluatorSettings, problem: Problem) -> Opened:
    """The live evaluator, and the hash of what it reads. Raises UsageError, NotFoundError, VerificationError or
    MachineError where that is not what it was, or not there."""
    known = _known(settings.kind)
    return open_own(settings, problem) if known is None else known.open(settings, problem)


def _known(kind: str) -> Any:
    """The class of an evaluator that is listed here; None: a user's own, or a package's."""
    listed = BUILTIN | WRAPPERS
    return refs.find(kind, listed, GROUP, "evaluator") if kind in listed else None
