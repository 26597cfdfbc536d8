"""Costs of the networks of a study outside of its search: against its limits, at its search size, and measured now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas_core.architecture import Architecture
from nas_core.config import SizeConfig
from nas_core.errors import UsageError
from nas_core.evaluation import Constraint, read_constraint
from nas_core.records import Run
from nas_core.space import HasCosts, SearchSpace
from nas_core.task import Task
from studies.records import Study, StudySpec, final_size_of
from studies.setup.spaces import load_space, size_of

if TYPE_CHECKING:
    from training.cost import NetworkCosts
    from training.evaluators.train import Train
    from training.latency import Latency

COUNTS = ("params", "active_params", "macs")
MEASURED = ("latency_ms", "latency_iqr_ms")
LEARNED = ("val_", "train_", "test_", "supernet_")  # how metrics begin that are no costs

Costs = Callable[[Sequence[str]], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Limit:
    """A constraint of a study on what a network costs, and what it does cost; None: not known at its size."""

    constraint: Constraint
    value: float | None

    @property
    def kept(self) -> bool | None:
        return None if self.value is None else self.constraint.violation(self.value) <= 0

    def __str__(self) -> str:
        name = self.constraint.metric
        if self.value is None:
            return f"{name} is not known, and the study's limit is {self.constraint}"
        return f"{name} is {self.value:,.6g}, {'within' if self.kept else 'beyond'} the study's {self.constraint}"


def bounds_of(spec: StudySpec) -> list[Constraint]:
    """The constraints on costs."""
    found = [read_constraint(text) for text in spec.constraints]
    return [one for one in found if not one.metric.startswith(LEARNED)]


def limits(study: Study, trial: Run, task: Task, size: SizeConfig, costs: Costs) -> list[Limit]:
    """The limits of a study, for the network of a trial's architecture for `task` at `size`, whose costs `costs` gives.

    What was recorded in a table, or measured in the search, holds at the final size alone, and is not measured again.
    """
    spec, bounds = study.spec, bounds_of(study.spec)
    final = is_final(spec, size) and (task == spec.task or spec.evaluator.facts.looks_up)
    recorded = trial.metrics if final else {}
    wanted = [one.metric for one in bounds if one.metric in COUNTS]
    if not spec.evaluator.facts.looks_up:
        wanted += [one.metric for one in bounds if one.metric in MEASURED and one.metric not in recorded]
    values = {**recorded, **(costs(wanted) if wanted else {})}
    return [Limit(one, values.get(one.metric)) for one in bounds]


def is_final(spec: StudySpec, size: SizeConfig) -> bool:
    """Whether a size is the study's final one."""
    return size.model_dump(mode="json") == final_size_of(spec)


def search_costs(spec: StudySpec, space: SearchSpace, arch: Architecture) -> dict[str, float]:
    """Parameters and MACs at the search size, where that is another one than the final size; else, and for a table,
    nothing. Raises UsageError and TrialError where they cannot be counted."""
    if spec.size == final_size_of(spec) or spec.evaluator.facts.looks_up:
        return {}
    size = size_of(space, spec.size)
    if isinstance(space, HasCosts):
        return {name: float(value) for name, value in space.costs(arch, spec.task, size).items()}
    from training import cost

    return cost.costs(space, arch, spec.task, size, space.counted)


def network_costs(spec: StudySpec, space: SearchSpace, task: Task, size: SizeConfig, device: str) -> NetworkCosts:
    """The costs of networks at a size, measured under the study's conditions."""
    from training.cost import NetworkCosts
    from training.devices import find_device

    facts = spec.evaluator.facts
    return NetworkCosts(space, task, size, find_device(device), facts.threads, facts.latency)


def final_latency(study: Study, arch: Architecture) -> Latency:
    """The latency of an architecture's network at the final size, measured now, under the study's conditions.

    Raises UsageError for a study on a table, whose networks nobody has built; TrialError where the network cannot be
    built; MachineError where the study's device is not there.
    """
    spec = study.spec
    if spec.evaluator.facts.looks_up:
        raise UsageError(
            f"study '{study.name}' looked its results up in a table; its latencies are those recorded there"
        )
    space, _ = load_space(spec.space)
    size = size_of(space, final_size_of(spec))
    return network_costs(spec, space, spec.task, size, spec.evaluator.facts.device or "auto").latency(arch)


def remarks(study: Study, trial: Run, evaluator: Train, chosen: bool) -> tuple[list[Limit], list[str]]:
    """The study's limits for a network that is about to be trained, and what its user has to know of its size, in
    lines. `chosen`: the user has named the size."""
    arch, size = trial.arch, evaluator.size

    def costs(size: SizeConfig) -> Costs:
        counted = network_costs(study.spec, evaluator.space, evaluator.task, size, str(evaluator.device))
        return lambda names: counted.of(arch, names)

    found = limits(study, trial, evaluator.task, size, costs(size))
    lines = []
    if study.spec.final_size is None and not chosen:
        full = evaluator.space.Size.preset("full")
        told = [str(one) for one in limits(study, trial, evaluator.task, full, costs(full))]
        told = told or [f"{name} is {value:,.6g}" for name, value in costs(full)(COUNTS).items()]
        lines.append(
            f"study '{study.name}' is older than final sizes, so this trains its search size {size}; "
            f"with --size full {'; '.join(told)}"
        )
    broken = [str(one) for one in found if not one.kept]
    if broken:
        lines.append(f"at size {size} {'; '.join(broken)}")
    return found, lines
