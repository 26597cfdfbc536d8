"""What a search can be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny, model_validator

from nas_core.config import Config
from nas_core.errors import UsageError
from nas_core.frozen import JsonObject
from nas_core.names import study_name
from studies.executors.where import AUTO, Where
from studies.setup import options
from training.data.split import Split
from training.evaluators import kinds
from training.evaluators.settings import EvaluatorOptions

SPLIT = {"strategy": "strategy_config", "early_stop": "early_stop_config"}
"""Keys that may be a name, or a mapping with a `name` and settings, which are kept apart."""


DEFAULT_BATCH = 64


def _names(given: Any) -> Any:
    """`["a,b", "c"]` as `["a", "b", "c"]`."""
    listed = [given] if isinstance(given, str) else given
    if not isinstance(listed, list | tuple) or not all(isinstance(one, str) for one in listed):
        return given
    return [name.strip() for one in listed for name in one.split(",") if name.strip()]


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
"""Names of architectures, with commas between them or one by one."""


class ScoringConfig(Config):
    """Where the scores of predictors come from: a table of recorded ones, or untrained networks."""

    table: str | None = Field(default=None, description="table of recorded scores")
    mapping: str | None = Field(default=None, description="what the columns of that table are; by default beside it")
    data: str | None = Field(
        default=None, description="on which untrained networks are scored; by default what candidates are trained on"
    )
    batch: int = Field(default=DEFAULT_BATCH, ge=2, description="samples that a network is scored with")


class SupernetConfig(Config):
    """What a supernet is trained on; nothing here is used by strategies that ask and are told."""

    shared: ClassVar[tuple[str, ...]] = ("device", "threads", "deterministic")
    """What is the evaluator's, where that computes anything."""

    data: str | None = Field(default=None, description="where it is not the data that candidates are evaluated on")
    split: Split | None = Field(default=None, description="of that data")
    precision: Literal["auto", "float32", "bf16"] = Field(default="auto", description="number format of its training")
    device: str | None = Field(default=None, description="where it is not that of the evaluator")
    threads: int | None = Field(default=None, ge=1, description="where they are not those of the evaluator")
    deterministic: bool | None = Field(default=None, description="where it is not as for the evaluator")


class SearchConfig(Config):
    """What `nas search` can be asked for: the keys of a configuration file. Other names of what lies deeper are in
    `studies.setup.options`."""

    keys: ClassVar[tuple[str, ...]]

    then: JsonObject = Field(default_factory=dict, description="settings of the strategy of --then")
    study: Annotated[str, AfterValidator(study_name)] | None = None
    space: str = "nasbench201"
    size: str | JsonObject = Field(
        default="search", description="of the networks that are searched: a preset, or fields (nas spaces show)"
    )
    final_size: str | JsonObject | None = None
    strategy: str = Field(
        default="regularized-evolution", description="a name, or FILE.py:CLASS, with its settings (nas strategies show)"
    )
    strategy_config: JsonObject = Field(default_factory=dict)
    evaluator: Annotated[SerializeAsAny[EvaluatorOptions], BeforeValidator(kinds.options)] = Field(
        default_factory=lambda: kinds.options({}),
        description="what evaluates candidates: train, table, supernet:STUDY or FILE.py:CLASS, with its settings",
    )
    objectives: tuple[str, ...] | None = Field(default=None, min_length=1)
    constraints: tuple[str, ...] = ()
    trials: int | None = Field(default=None, ge=1)
    time: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    spend: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    seed: int = Field(default=0, ge=0, lt=2**63)
    workers: int = Field(default=1, ge=1, le=1024)
    executor: str = AUTO
    per_gpu: int | None = Field(default=None, ge=1)
    gpu_memory: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    lag: int | None = Field(default=None, ge=1)
    early_stop: str | None = Field(default=None, description="what stops single trainings early, with its settings")
    early_stop_config: JsonObject = Field(default_factory=dict)
    order: Literal["strict", "free"] = "strict"
    warm_up: str | None = Field(default=None, description="predictor:number of sampled architectures to score")
    enqueue: Names = ()
    baselines: Names = ()
    scoring: ScoringConfig = Field(default=ScoringConfig(), description="where the scores of predictors come from")
    supernet: SupernetConfig = Field(
        default=SupernetConfig(), description="what a one-shot strategy trains its supernet on"
    )
    guard: Literal["hessian"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _nested(cls, given: Any) -> Any:
        return settled(options.nested(given, cls.keys)) if isinstance(given, Mapping) else given

    @model_validator(mode="after")
    def _placed(self) -> Self:
        assert self.where  # what does not fit is refused
        return self

    @property
    def where(self) -> Where:
        return Where(self.workers, self.executor, self.per_gpu, self.gpu_memory)


SearchConfig.keys = tuple(SearchConfig.model_fields)


def settled(asked: Mapping[str, Any]) -> dict[str, Any]:
    """A nested configuration as the fields of `SearchConfig`: names apart from settings, what is around an evaluator
    around it, and what only a supernet can use there."""
    found = dict(asked)
    for key, settings in SPLIT.items():
        if isinstance(found.get(key), Mapping):
            named = dict(found.pop(key))
            if "name" in named:
                found[key] = named.pop("name")
            found[settings] = options.merged(found.get(settings, {}), named)
    evaluator = found.get("evaluator", {})
    if not isinstance(evaluator, Mapping):
        return found
    known = kinds.known_keys(str(evaluator.get("kind", "train")))
    if evaluator.get("metrics") and "metrics" not in known:
        raise UsageError(
            f"--metric {evaluator['metrics'][0]} is for candidates that are trained; evaluator "
            f"'{evaluator['kind']}' has what it recorded"
        )
    others = {key: value for key, value in evaluator.items() if key not in known}
    elsewhere = {key: value for key, value in others.items() if key in SupernetConfig.shared}
    if elsewhere:
        found["supernet"] = {**elsewhere, **found.get("supernet", {})}
    # Files that say every key, as those of before do, say defaults of what another evaluator has.
    idle = {key for key, value in others.items() if kinds.is_default(key, value)}
    kept = {key: value for key, value in evaluator.items() if key not in elsewhere and key not in idle}
    found["evaluator"] = kinds.wrapped(kept)
    return found
