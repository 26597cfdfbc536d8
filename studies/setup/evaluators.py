"""What a configuration asks of an evaluator; what that comes to is the evaluator's own matter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nas_core.errors import UsageError
from training.evaluators import kinds
from training.evaluators.settings import EvaluatorOptions
from training.latency import ONE_PASS

if TYPE_CHECKING:
    from studies.setup.config import SearchConfig

# Keys of a configuration that are settings of the evaluator.
KEYS = (
    "data",
    "split",
    "table",
    "mapping",
    "recipe",
    "epochs",
    "metrics",
    "device",
    "threads",
    "deterministic",
    "latency",
    "checkpoint_seconds",
    "trial_time",
)


def asked(config: SearchConfig) -> EvaluatorOptions:
    """Raises UsageError for unknown keys and bad values, and for what only other evaluators can do."""
    kind, study = "table" if config.table else config.evaluator, ""
    if kind.startswith("supernet:"):
        kind, _, study = kind.partition(":")
    known = kinds.known_options(kind)
    if known is None:
        given = {key: getattr(config, key) for key in KEYS if key in config.model_fields_set}
    else:
        given = {key: getattr(config, key) for key in KEYS if key in {*known.model_fields, *known.earlier_keys}}
        if config.metrics and "metrics" not in given:
            raise UsageError(
                f"--metric {config.metrics[0]} is for candidates that are trained; evaluator '{kind}' has what it "
                "recorded"
            )
        if config.latency != ONE_PASS and "latency" not in given:
            raise UsageError(f"latency settings are for measuring; evaluator '{kind}' has its latencies recorded")
    if "recipe" in given:
        given["recipe"] = {"name": config.recipe, **config.recipe_config}
    if study:
        given["study"] = study
    inner: dict[str, Any] = {"kind": kind, **given, **config.evaluator_config}
    if config.costs is not None:
        return kinds.options({"kind": "cost-table", "inner": inner, "costs": config.costs})
    return kinds.options(inner)
