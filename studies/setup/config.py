"""What a search can be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from nas_core.config import Config
from nas_core.names import study_name
from studies.setup.scores import DEFAULT_BATCH
from studies.setup.supernets import SupernetConfig
from training.data.split import Split
from training.latency import LatencyConfig


class SearchConfig(Config):
    """What `nas search` can be asked for: the keys of a configuration file."""

    earlier_keys: ClassVar[Mapping[str, str]] = {"pruner": "early_stop", "pruner_config": "early_stop_config"}

    then: dict[str, Any] = Field(default_factory=dict, description="settings of the strategy of --then")
    study: Annotated[str, AfterValidator(study_name)] | None = Field(
        default=None, description="its name; by default made up"
    )
    space: str = Field(default="nasbench201", description="a name, or FILE.py:OBJECT (nas spaces list)")
    size: str | dict[str, Any] = Field(
        default="search", description="of the networks that are searched: a preset, or fields (nas spaces show)"
    )
    final_size: str | dict[str, Any] | None = Field(
        default=None,
        description="of the network that the result is trained as, whose costs count; "
        "by default the search size, of one-shot strategies full",
    )
    strategy: str = Field(
        default="regularized-evolution", description="a name, or FILE.py:CLASS, with its settings (nas strategies show)"
    )
    strategy_config: dict[str, Any] = Field(default_factory=dict)
    data: str = Field(
        default="digits", description="what candidates are trained on (nas data list); of a table: its part"
    )
    split: Split = Field(default=Split(), description="how the data are divided")
    evaluator: str = Field(
        default="train", description="train, table, supernet:STUDY, or FILE.py:CLASS with its settings"
    )
    evaluator_config: dict[str, Any] = Field(default_factory=dict)
    table: str | None = Field(default=None, description="csv file in which results are looked up")
    mapping: str | None = Field(default=None, description="what the columns of the table are; by default beside it")
    costs: str | None = Field(default=None, description="table with more cost metrics")
    recipe: str = Field(default="quick", description="of a training: a name, with changes to its settings")
    recipe_config: dict[str, Any] = Field(default_factory=dict)
    epochs: int | None = Field(default=None, ge=1, description="per trial; of a table: the level")
    objectives: tuple[str, ...] | None = Field(default=None, min_length=1, description="by default accuracy")
    constraints: tuple[str, ...] = Field(default=(), description="such as params<=5e5")
    metrics: tuple[str, ...] = Field(default=(), description="of trainings, beside accuracy and loss")
    trials: int | None = Field(default=None, ge=1, description="evaluations after which it stops")
    time: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="seconds after which it stops")
    trial_time: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="seconds of one trial")
    spend: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="stops when budgets come to so many full evaluations"
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="of everything random")
    workers: int = Field(default=1, ge=1, le=1024, description="candidates evaluated at a time, each in a process")
    lag: int | None = Field(default=None, ge=1, description="by default 1, with several workers 4 for each")
    early_stop: str | None = Field(default=None, description="what stops single trainings early")
    early_stop_config: dict[str, Any] = Field(default_factory=dict)
    order: Literal["strict", "free"] = Field(
        default="strict", description="strict: timing changes nothing; free: outcomes are told as they come"
    )
    warm_up: str | None = Field(default=None, description="predictor:number of sampled architectures to score")
    scores: str | None = Field(default=None, description="table of recorded scores of predictors")
    scores_mapping: str | None = Field(default=None, description="what the columns of that table are")
    score_on: str | None = Field(default=None, description="data for scoring untrained networks")
    supernet: SupernetConfig = Field(
        default=SupernetConfig(), description="what a one-shot strategy trains its supernet on"
    )
    guard: Literal["hessian"] | None = Field(default=None, description="stop a one-shot search before it collapses")
    score_batch: int = Field(default=DEFAULT_BATCH, ge=2, description="samples that a network is scored with")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")
    threads: int | None = Field(default=None, ge=1, description="of the CPU, in one training")
    deterministic: bool = Field(default=False, description="bitwise repeatable on a GPU")
    latency: LatencyConfig = Field(default=LatencyConfig(), description="how latencies are measured")
    checkpoint_seconds: float = Field(default=10.0, ge=0, description="between checkpoints of one training")
