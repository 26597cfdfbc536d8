"""Latencies: what is run, under which conditions, and whether others disturb it."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any, ClassVar

import onnxruntime
import psutil
import pytest
import torch
from torch import Tensor, nn

from nas_core.errors import Notice, UsageError
from nas_core.task import Task
from training import latency
from training.latency import LatencyConfig, Load, measure
from training.tasks import sample_inputs

IMAGES = Task(kind="image-classification", input_shape=(3, 9, 9), outputs=5)
GRAPH = Task(kind="node-classification", input_shape=(16,), outputs=3, nodes=20, edges=60)
CPU = torch.device("cpu")


class Watched(nn.Module):
    """Knows what it was run with."""

    seen: ClassVar[set[tuple[Any, ...]]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 81, 5)

    def forward(self, images: Tensor) -> Tensor:
        Watched.seen.add(
            (images.shape[0], images.dtype, torch.get_num_threads(), self.training, self.layer.weight.dtype)
        )
        answer: Tensor = self.layer(images.flatten(1))
        return answer


def taken(**settings: Any) -> latency.Latency:
    Watched.seen.clear()
    config = LatencyConfig(**settings)
    return measure(Watched(), sample_inputs(IMAGES, config.batch), IMAGES, CPU, config, threads=2, seconds=0.02)


def test_the_settings_are_what_is_measured_and_recorded() -> None:
    before = torch.get_num_threads()
    found = taken(batch=3, dtype="bfloat16", threads=1)
    measured = (3, torch.bfloat16, 1, False, torch.bfloat16)
    assert measured in Watched.seen
    assert {one[:2] for one in Watched.seen} == {measured[:2]}
    assert (found.batch, found.dtype, found.threads, found.runtime, found.device) == (3, "bfloat16", 1, "torch", "cpu")
    assert 0 <= found.spread_ms < 1000
    assert 0 < found.ms < 1000
    found = taken()
    assert (1, torch.float32, 2, False, torch.float32) in Watched.seen  # two threads: the caller's
    assert (found.batch, found.dtype, found.threads) == (1, "float32", 2)
    assert torch.get_num_threads() == before


def test_onnxruntime_runs_the_network_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    run, batches = onnxruntime.InferenceSession.run, []

    def watched(session: Any, outputs: Any, given: Any) -> Any:
        batches.append(given["image"].shape[0])
        assert session.get_session_options().intra_op_num_threads == 2
        return run(session, outputs, given)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", watched)
    config = LatencyConfig(batch=2, runtime="onnxruntime")
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 81, 5))
    found = measure(model, sample_inputs(IMAGES, 2), IMAGES, CPU, config, threads=2, seconds=0.02)
    assert (found.runtime, found.batch, found.threads, found.ms > 0) == ("onnxruntime", 2, 2, True)
    assert len(batches) > 10
    assert set(batches) == {2}


@pytest.mark.parametrize(
    ("settings", "task", "message"),
    [
        ({"batch": 2}, GRAPH, "a graph is always one batch"),
        ({"runtime": "onnxruntime", "dtype": "bfloat16"}, IMAGES, "with latency.runtime=onnxruntime it is float32"),
    ],
)
def test_what_cannot_be_measured(settings: dict[str, Any], task: Task, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LatencyConfig(**settings).check(task, "cpu")


def test_others_that_compute_are_noticed() -> None:
    code = "while True: pass"
    spinning = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(psutil.cpu_count() or 1)]
    try:
        with pytest.warns(Notice, match="other processes keep the processors busy"):
            assert taken(threads=1).busy > latency.BUSY
    finally:
        for one in spinning:
            one.kill()
            one.wait()


def test_the_share_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([(10.0, 100.0, 40.0), (12.0, 103.0, 42.0)])  # the time, all processes' seconds, this one's
    monkeypatch.setattr(Load, "_now", lambda _: next(moments))
    monkeypatch.setattr(Load, "_processors", lambda _: range(4))
    assert Load().of_others() == (3 - 2) / (2 * 4)


def test_no_notice_where_nobody_disturbs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Load, "of_others", lambda _: latency.BUSY)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Notice)
        assert taken().busy == latency.BUSY
