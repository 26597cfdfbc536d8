"""How long a network takes for one pass: measured, with its spread, under conditions that are settings."""

from __future__ import annotations

import copy
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from nas_core.config import Config
from nas_core.errors import MachineError, Notice, UsageError
from nas_core.task import Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

METRIC, SPREAD = "latency_ms", "latency_iqr_ms"
"""The median, and the interquartile range of the passes, in milliseconds."""

BUSY = 0.2
"""Share of this process' processors that others use, from which on a machine counts as busy."""

SECONDS = 0.5  # of measuring


class LatencyConfig(Config):
    """What is measured, in evaluation mode, on the study's device."""

    batch: int = Field(default=1, ge=1, le=65_536, description="images of one pass; a graph is always whole")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(default="float32", description="of weights and inputs")
    threads: int | None = Field(default=None, ge=1, le=4096, description="of the CPU; by default the study's")
    runtime: Literal["torch", "onnxruntime"] = Field(default="torch", description="what runs the network")

    def check(self, task: Task, device: str) -> None:
        """Raises UsageError for what cannot be measured of this task, MachineError for what is not installed."""
        from training.tasks import kind_of

        if self.batch > 1 and not kind_of(task).apart:
            raise UsageError(f"latency.batch={self.batch}: a graph is always one batch; leave it out")
        if self.runtime == "onnxruntime":
            from training.export.formats import check_formats

            check_formats(["onnx"], task)
            if self.dtype != "float32":
                raise UsageError(f"latency.dtype={self.dtype}: with latency.runtime=onnxruntime it is float32")
            _provider(device)


ONE_PASS = LatencyConfig()
"""The conditions where nobody names any: one image in float32, by torch."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Median and interquartile range of the durations of one pass in milliseconds, and what they were measured under.

    `busy`: the share of the processors of this process that others used meanwhile, 0 to 1.
    """

    ms: float
    spread_ms: float
    device: str
    threads: int
    batch: int
    dtype: str = "float32"
    runtime: str = "torch"
    busy: float = 0.0


def measure(
    model: nn.Module,
    inputs: Sequence[Tensor],
    task: Task,
    device: torch.device,
    config: LatencyConfig = ONE_PASS,
    threads: int = 1,
    seconds: float | None = None,
) -> Latency:
    """Latency of a copy of `model` on `inputs`, measured for about `seconds` (by default `SECONDS`); `threads` where
    the configuration names none. Warns (`Notice`) where other programs kept the processors busy meanwhile.

    Raises UsageError where onnxruntime cannot run the network, MachineError where it has not the device.
    """
    import torch
    from torch.utils.benchmark import Timer

    threads = config.threads or threads
    prepare = _torch if config.runtime == "torch" else _onnxruntime
    run = prepare(model, inputs, task, device, config, threads)
    with torch.inference_mode():
        run()
        timer = Timer("run()", globals={"run": run}, num_threads=threads)
        load = Load()
        measured = timer.blocked_autorange(min_run_time=SECONDS if seconds is None else seconds)
        busy = load.of_others()
    if busy > BUSY:
        warnings.warn(
            "other processes keep the processors busy: measured latencies are too high and spread (stop them, or "
            "search with one worker)",
            Notice,
            stacklevel=2,
        )
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    spread = measured.iqr * 1e3
    return Latency(
        measured.median * 1e3, spread, name, threads, task.rows(inputs), config.dtype, config.runtime, round(busy, 2)
    )


class Load:
    """What others compute on the processors of this process, from now on."""

    def __init__(self) -> None:
        self._begun = self._now()

    def of_others(self) -> float:
        """Their share of the processors' time since then, 0 to 1."""
        now, everyone, own = self._now()
        begun, everyone_then, own_then = self._begun
        used = (everyone - everyone_then) - (own - own_then)
        return min(1.0, max(0.0, used / ((now - begun) * len(self._processors()) or 1.0)))

    def _now(self) -> tuple[float, float, float]:
        """The time, and what all processes and what this one have used of the processors, in seconds."""
        import psutil

        every, own = psutil.cpu_times(percpu=True), psutil.Process().cpu_times()
        used = [
            sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
            for times in (every[index] for index in self._processors())
        ]
        return time.monotonic(), sum(used), own.user + own.system

    def _processors(self) -> Sequence[int]:
        import psutil

        count = psutil.cpu_count() or 1
        allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(count)
        return [index for index in allowed if index < count]


def _torch(
    model: nn.Module, inputs: Sequence[Tensor], task: Task, device: torch.device, config: LatencyConfig, threads: int
) -> Callable[[], Any]:
    import torch

    dtype = getattr(torch, config.dtype)
    network = copy.deepcopy(model).to(device, dtype).eval()
    given = [value.to(device, dtype if value.is_floating_point() else None) for value in inputs]
    return lambda: network(*given)


def _onnxruntime(
    model: nn.Module, inputs: Sequence[Tensor], task: Task, device: torch.device, config: LatencyConfig, threads: int
) -> Callable[[], Any]:
    import onnxruntime

    from training.export.formats import signature_of
    from training.export.write import onnx_bytes, trace

    signature = signature_of(task)
    network = copy.deepcopy(model).cpu().float().eval()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    content = onnx_bytes(trace(network, tuple(inputs), signature), signature, {})
    session = onnxruntime.InferenceSession(content, options, providers=[_provider(device.type)])
    given = {name: value.numpy() for name, value in zip(signature.inputs, inputs, strict=True)}
    return lambda: session.run(None, given)


def _provider(device: str) -> str:
    """What onnxruntime runs a device with. Raises MachineError where it is not installed."""
    import onnxruntime

    wanted = "CUDAExecutionProvider" if device.startswith("cuda") else "CPUExecutionProvider"
    if wanted not in onnxruntime.get_available_providers():
        raise MachineError(f"onnxruntime has no {wanted} here; install onnxruntime-gpu, or use --device cpu")
    return wanted
