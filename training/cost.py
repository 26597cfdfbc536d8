"""What a network costs: parameters, multiply-accumulates, latency (measured in `training.latency`).

Active parameters are those that a sample passes; a space says whether they are worth reporting (`counted`). MACs are
those that `search_spaces.counter` counts: of one sample, or of a whole graph.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import nn

from nas_core.architecture import Architecture
from nas_core.config import SizeConfig
from nas_core.errors import unknown
from nas_core.evaluation import Metric
from nas_core.space import HasCosts, SearchSpace
from nas_core.task import Task
from search_spaces.counter import active_count, active_params, counts, macs, params
from training import latency
from training.fit import trial_failures
from training.latency import ONE_PASS, LatencyConfig
from training.tasks import sample_inputs

COUNTS = ("params", "active_params", "macs")
COSTS = (*COUNTS, latency.METRIC, latency.SPREAD)


class NetworkCosts:
    """The cost metrics of the networks of a space for a task at one size. `counts`: those that need no measuring."""

    def __init__(
        self,
        space: SearchSpace,
        task: Task,
        size: SizeConfig,
        device: torch.device,
        threads: int | None = None,
        measured: LatencyConfig = ONE_PASS,
    ) -> None:
        self.space, self.task, self.size = space, task, size
        self._device, self._threads, self._measured = device, threads, measured
        self.counts = space.counted
        self.metrics = (
            *(Metric(name, "min", cost=True) for name in self.counts),
            Metric(latency.METRIC, "min", "ms", cost=True, measured=True),
            Metric(latency.SPREAD, "min", "ms", cost=True, measured=True, spread_of=latency.METRIC),
        )

    def of(self, arch: Architecture, names: Collection[str]) -> dict[str, float]:
        """Those of `names` that are among the metrics. Raises TrialError when the network cannot be built."""
        asked = [metric.name for metric in self.metrics if metric.name in names]
        threads = self._threads or torch.get_num_threads()
        return costs(self.space, arch, self.task, self.size, asked, self._device, threads, self._measured)

    def latency_of(self, model: nn.Module) -> latency.Latency:
        """That of a network, measured now under the same conditions."""
        return _measure(model, self.task, self._device, self._threads or torch.get_num_threads(), self._measured)

    def latency(self, arch: Architecture) -> latency.Latency:
        """Measured now. Raises TrialError when the network cannot be built or run."""
        with trial_failures(), torch.random.fork_rng(devices=[]):
            return self.latency_of(self.space.build(arch, self.task, self.size))


def costs(
    space: SearchSpace,
    arch: Architecture,
    task: Task,
    size: SizeConfig,
    names: Collection[str],
    device: torch.device | None = None,
    threads: int = 1,
    measured: LatencyConfig = ONE_PASS,
) -> dict[str, float]:
    """The costs `names` of an architecture.

    Parameters and MACs (of one sample, or of the whole graph) are the space's own where it counts them (`HasCosts`),
    else they are counted on the meta device, or on the CPU where the network cannot be built or run there. For a
    latency the network is built once, and measured on `device`. Raises UsageError for an unknown name, or for a graph
    whose size the task does not say; TrialError when the network cannot be built.
    """
    for name in names:
        if name not in COSTS:
            raise unknown("cost", name, COSTS)
    found: dict[str, float] = {}
    if isinstance(space, HasCosts) and set(COUNTS) & set(names):
        with trial_failures():
            found = {name: float(value) for name, value in space.costs(arch, task, size).items()}
    missing = [name for name in names if name not in found]
    if latency.METRIC in missing or latency.SPREAD in missing:
        with trial_failures(), torch.random.fork_rng(devices=[]):
            model = space.build(arch, task, size)
            taken = _measure(model, task, device or torch.device("cpu"), threads, measured)
            found |= {latency.METRIC: taken.ms, latency.SPREAD: taken.spread_ms}
            counted = {"params": params(model), "active_params": active_params(model)}
            counted["macs"] = macs(model, sample_inputs(task)) if "macs" in missing else 0
            found = counted | found
    elif missing:
        with trial_failures():
            found |= _counted(lambda: space.build(arch, task, size), task, missing)
    return {name: float(found[name]) for name in names}


def _counted(build: Callable[[], nn.Module], task: Task, names: Collection[str]) -> dict[str, float]:
    """Those of COUNTS that are among the names, perhaps others."""
    found: dict[str, float] = {"active_params": active_count(build)} if "active_params" in names else {}
    if {"params", "macs"} & set(names):
        inputs = sample_inputs(task) if "macs" in names else None
        found |= zip(("params", "macs"), counts(build, inputs), strict=True)
    return found


def _measure(
    model: nn.Module, task: Task, device: torch.device, threads: int, measured: LatencyConfig
) -> latency.Latency:
    return latency.measure(model, sample_inputs(task, measured.batch), task, device, measured, threads)
