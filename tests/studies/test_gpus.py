"""Several candidates on a GPU: how many, on which device, and what does not fit. The devices are made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nas_core.errors import MachineError, NasError, Notice, UsageError
from studies.executors import gpus, processes
from studies.executors.choose import Elsewhere
from studies.executors.pool import Pool
from studies.executors.where import Where
from studies.executors.worker import Candidates


class Started:
    """Stands for a worker process: on which device it would be."""

    def __init__(self, work: str, device: str | None, trial_seconds: float | None) -> None:
        self.device = device


def placed(where: Where, device: str, monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The devices of all workers that may be started."""
    monkeypatch.setattr(processes, "Process", Started)
    monkeypatch.setattr(processes.protocol, "packed", lambda work: "")
    remote: Any = Candidates.__new__(Candidates)
    pool: Pool[Any] = processes.made(Elsewhere(remote=remote, folder=Path(), device=device), where)
    return [pool._launcher.start(place).device for place in range(pool.slots)]


@pytest.fixture(autouse=True)
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    memory = {"cuda:0": 24.0, "cuda:1": 17.9}
    monkeypatch.setattr(gpus, "memory_of", lambda devices: [memory[device] for device in devices])


@pytest.mark.parametrize(
    ("where", "device", "expected"),
    [
        (Where(3), "cuda", ["cuda:0", "cuda:1", "cuda:0"]),
        (Where(4, per_gpu=2), "cuda", ["cuda:0", "cuda:1"] * 2),
        (Where(3, per_gpu=2), "cuda", ["cuda:0", "cuda:1", "cuda:0"]),
        (Where(2, gpu_memory=9.0), "cuda", ["cuda:0", "cuda:1"]),
        (Where(3, per_gpu=3), "cuda:1", ["cuda:1"] * 3),
    ],
)
def test_devices_are_given_out_in_turn(
    monkeypatch: pytest.MonkeyPatch, where: Where, device: str, expected: list[str]
) -> None:
    assert placed(where, device, monkeypatch) == expected


@pytest.mark.parametrize(
    ("where", "count"), [(Where(9, per_gpu=2), 4), (Where(9, gpu_memory=8.0), 4), (Where(9, gpu_memory=17.9), 2)]
)
def test_no_more_are_started_than_fit(monkeypatch: pytest.MonkeyPatch, where: Where, count: int) -> None:
    with pytest.warns(Notice, match=f"at a time on each of 2 GPUs: {count} workers"):
        assert len(placed(where, "cuda", monkeypatch)) == count


@pytest.mark.parametrize(
    ("where", "device", "kind", "words"),
    [
        (Where(2, per_gpu=2), "cpu", UsageError, "--per-gpu is for work on a GPU, and this is on cpu"),
        (Where(2, gpu_memory=1.0), "cpu", UsageError, "--gpu-memory is for work on a GPU"),
        (Where(2, gpu_memory=18.0), "cuda", MachineError, "--gpu-memory 18: a GPU has 17.9 GiB; say less"),
        (Where(1, per_gpu=2), "cuda", UsageError, "say how many by --workers"),
    ],
)
def test_what_does_not_fit_is_refused(
    monkeypatch: pytest.MonkeyPatch, where: Where, device: str, kind: type[NasError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        placed(where, device, monkeypatch)


@pytest.mark.parametrize(
    "asked",
    [
        {"per_gpu": 2, "gpu_memory": 1.0},
        {"per_gpu": 0},
        {"gpu_memory": float("inf")},
        {"executor": "inline", "per_gpu": 2},
    ],
)
def test_what_does_not_go_together_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Where(**asked)
