"""What a network costs: parameters, multiply-accumulates, latency.

MACs are those of convolutions and matrix products for one sample, half of what `torch.utils.flop_counter` counts.
It sees no message passing: graph spaces count their own (`HasCosts`).
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from nas_core.architecture import Architecture
from nas_core.config import SizeConfig
from nas_core.errors import NasError, UsageError, unknown
from nas_core.space import HasCosts, SearchSpace
from nas_core.task import IMAGE_CLASSIFICATION, NODE_CLASSIFICATION, Task
from training.fit import trial_failures

COSTS = ("params", "macs", "latency_ms")


@dataclass(frozen=True, slots=True)
class Latency:
    """Median duration of one forward pass in milliseconds, and the conditions it was measured under."""

    ms: float
    device: str
    threads: int
    batch: int


def params(model: nn.Module) -> int:
    """The number of parameters, shared ones once. A second head that only training uses, the submodule `auxiliary` of a
    network with `auxiliary_weight`, does not count."""
    heads = ("auxiliary.",) if hasattr(model, "auxiliary_weight") else ()
    return sum(parameter.numel() for name, parameter in model.named_parameters() if not name.startswith(heads))


def macs(model: nn.Module, inputs: Sequence[Tensor]) -> int:
    """Multiply-accumulates of `model(*inputs)` in evaluation mode; the model's mode is left as it was."""
    with FlopCounterMode(display=False) as counter:
        _forward(model, inputs)
    return counter.get_total_flops() // 2


def latency(
    model: nn.Module, inputs: Sequence[Tensor], device: torch.device, threads: int = 1, seconds: float = 0.5
) -> Latency:
    """Latency of a copy of `model` in float32 and evaluation mode, measured for about `seconds`."""
    model = copy.deepcopy(model).to(device).eval()
    inputs = [value.to(device) for value in inputs]
    with torch.inference_mode():
        model(*inputs)
        timer = Timer("model(*inputs)", globals={"model": model, "inputs": inputs}, num_threads=threads)
        measured = timer.blocked_autorange(min_run_time=seconds)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    return Latency(measured.median * 1e3, name, threads, len(inputs[0]))


def known(space: SearchSpace, task: Task) -> tuple[str, ...]:
    """The costs that `costs` can give: message passing is counted only by the space itself."""
    if isinstance(space, HasCosts) or task.kind == IMAGE_CLASSIFICATION:
        return COSTS
    return tuple(name for name in COSTS if name != "macs")


def costs(
    space: SearchSpace,
    arch: Architecture,
    task: Task,
    size: SizeConfig,
    names: Collection[str],
    device: torch.device | None = None,
    threads: int = 1,
) -> dict[str, float]:
    """The costs `names` of an architecture: by the space itself where it can (`HasCosts`), else by building it.

    Parameters are counted on the meta device where the network can be built there, MACs on the CPU with one sample,
    latency on `device` with one sample (or the whole graph). Raises UsageError for an unknown name, or for MACs of
    a graph network whose space does not count them; TrialError when the network cannot be built.
    """
    for name in names:
        if name not in COSTS:
            raise unknown("cost", name, COSTS)
    found: dict[str, float] = {}
    if isinstance(space, HasCosts) and {"params", "macs"} & set(names):
        with trial_failures():
            found = {name: float(value) for name, value in space.costs(arch, task, size).items()}
    missing = [name for name in names if name not in found]
    if missing == ["params"]:
        found["params"] = float(params(_skeleton(space, arch, task, size)))
    elif missing:
        if "macs" in missing and task.kind != IMAGE_CLASSIFICATION:
            raise UsageError(f"space '{space.name}' does not count the MACs of its networks; give it a method `costs`")
        with trial_failures(), torch.random.fork_rng(devices=[]):
            model, inputs = space.build(arch, task, size), sample_inputs(task)
            found["params"] = float(params(model))
            if "macs" in missing:
                found["macs"] = float(macs(model, inputs))
            if "latency_ms" in missing:
                found["latency_ms"] = latency(model, inputs, device or torch.device("cpu"), threads).ms
    return {name: found[name] for name in names}


def sample_inputs(task: Task, batch: int = 1) -> tuple[Tensor, ...]:
    """Random inputs of a network for `task`, always the same: images [batch, c, h, w], or nodes [n, f] and edges
    [2, e] of a graph of the task's size. Raises UsageError for another kind of task."""
    generator = torch.Generator().manual_seed(0)
    if task.kind == IMAGE_CLASSIFICATION:
        return (torch.randn(batch, *task.input_shape, generator=generator),)
    if task.kind != NODE_CLASSIFICATION:
        raise unknown("kind of task with sample inputs", task.kind, (IMAGE_CLASSIFICATION, NODE_CLASSIFICATION))
    if task.nodes is None or task.edges is None:
        raise UsageError("costs of a graph network need the graph's size: set nodes and edges of the task")
    nodes = torch.rand(task.nodes, *task.input_shape, generator=generator)
    return nodes, torch.randint(task.nodes, (2, task.edges), generator=generator)


def _skeleton(space: SearchSpace, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
    """The network on the meta device, without memory for its weights; on the CPU where it cannot be built there."""
    try:
        with torch.device("meta"):
            return space.build(arch, task, size)
    except NasError:
        raise
    except Exception:
        # Some graph layers compute while they are built; a real defect shows itself again on the CPU.
        with trial_failures(), torch.random.fork_rng(devices=[]):
            return space.build(arch, task, size)


def _forward(model: nn.Module, inputs: Sequence[Tensor]) -> None:
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for module, mode in training.items():
            module.training = mode
