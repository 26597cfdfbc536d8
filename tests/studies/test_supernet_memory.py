"""What a supernet's training needs of memory: counted before it starts, refused where it is not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import search_spaces
from nas_core import refs
from nas_core.batch import Batch, Data
from nas_core.errors import MachineError
from nas_core.evaluation import Objective
from nas_core.one_shot import Compute
from nas_core.relax import Mix
from nas_core.space import SearchSpace
from nas_core.strategy import Setting
from search_spaces.supernet.supernet import Supernet
from strategies.one_shot import memory
from strategies.one_shot.drnas import DrNas
from strategies.one_shot.gdas import Gdas
from strategies.one_shot.spos import Spos
from training.data import load
from training.data.loading import Loading
from training.data.split import Split

SMALL: dict[str, tuple[dict[str, Any], str]] = {
    "nasbench201": ({"channels": 8, "cells": 1}, "digits"),
    "darts": ({"channels": 4, "layers": 3}, "digits"),
    "nasbench_graph": ({"hidden": 64}, "karate"),
}


def prepared(name: str, **size: Any) -> tuple[SearchSpace, Data, Callable[[], Supernet]]:
    given, reference = SMALL[name]
    space: SearchSpace = refs.load(name, search_spaces.BUILTIN, search_spaces.GROUP, "space").object
    data = load(reference, Split(limit=100 if reference == "digits" else None)).bind("cpu", Loading(batch_size=32))
    sized = space.Size.preset("search", **{**given, **size})

    def make() -> Supernet:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Supernet(space, data.task, sized)

    return space, data, make


def really_saved(strategy: Any, epochs: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """The most bytes that autograd keeps in a step of the strategy, told apart by their addresses."""
    own = {tensor.data_ptr() for tensor in (*strategy.supernet.parameters(), *strategy.supernet.buffers())}
    steps: list[int] = []
    original = strategy.weights.loss

    def loss(batch: Batch, mix: Mix) -> Tensor:
        kept: dict[int, int] = {}
        held: list[Any] = []

        def keep(tensor: Tensor) -> Tensor:
            for part in (tensor,) if tensor.layout == torch.strided else (tensor._indices(), tensor._values()):
                storage = part.untyped_storage()
                held.append(storage)
                if storage.data_ptr() not in own:
                    kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            found = original(batch, mix)
        steps.append(sum(kept.values()))
        return found

    monkeypatch.setattr(strategy.weights, "loss", loss)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for epoch in range(epochs):
            strategy.step(epoch)
    return max(steps)


CASES = [
    ("nasbench201", "float32", 2),
    ("nasbench201", "bf16", 2),
    ("darts", "float32", 1),
    ("nasbench_graph", "float32", 20),  # of one batch: enough of them to meet a large path
]
SUM = [*((*case, DrNas) for case in CASES), (*CASES[0], Gdas), (*CASES[0], Spos), (*CASES[-1], Spos)]


@pytest.mark.parametrize(
    ("name", "precision", "epochs", "kind"),
    [
        pytest.param(*case, kind, marks=() if (*case, kind) in SUM else pytest.mark.matrix)
        for case in CASES
        for kind in (DrNas, Gdas, Spos)
    ],
)
def test_the_estimate_is_within_a_factor_of_two(
    name: str, precision: Any, epochs: int, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, data, make = prepared(name)
    compute = Compute("cpu", precision)
    strategy = kind(Setting(space, 1, (Objective("accuracy", "max"),)), kind.Config(epochs=epochs))
    strategy.start(make, data, compute)
    batch = next(iter(data.batches("train", 0, 0)))
    need = memory.estimate(make, batch, getattr(kind, "one_path", False), compute)
    really = really_saved(strategy, epochs, monkeypatch)
    assert really / 2 < need.activations < 2 * really
    parameters, buffers = (
        sum(tensor.nbytes for tensor in tensors)
        for tensors in (strategy.supernet.parameters(), strategy.supernet.buffers())
    )
    assert need.weights == 3 * parameters + buffers
    assert need.total == need.weights + need.activations


def test_activations_grow_with_the_batch_and_weights_do_not() -> None:
    _, data, make = prepared("nasbench201")
    batch = next(iter(data.batches("train", 0, 0)))
    half = Batch((batch.inputs[0][:16],), batch.target[:16])
    one, other = memory.estimate(make, batch, False), memory.estimate(make, half, False)
    assert one.weights == other.weights
    assert one.activations == pytest.approx(2 * other.activations, rel=0.02)
    assert memory.estimate(make, batch, True).activations < one.activations


def test_a_storage_counts_once_and_known_ones_do_not_count() -> None:
    x = torch.ones(1000, requires_grad=True)
    own = x.untyped_storage().data_ptr()

    def run() -> Tensor:
        y = x.exp()  # keeps its result, 4,000 bytes
        return (y[:500] * y[500:]).sum() + (x * x).sum()  # views of it, and x

    found = memory.saved_bytes(run, lambda tensor: tensor.untyped_storage().data_ptr() == own)
    assert found == 4000


def test_a_supernet_that_is_too_large_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights alone take many gigabytes; counting them takes none of it."""
    monkeypatch.setattr(memory, "available", lambda device: 3 * 2**30 + 2**28)
    _, data, make = prepared("nasbench201", channels=1024, cells=5)
    with pytest.raises(MachineError) as refused:
        memory.require(make, data, False, 32, Compute())
    first, second = str(refused.value).splitlines()
    assert first.startswith("training this supernet needs about 7")
    assert first.endswith(", and cpu has 3.2 GiB free")
    assert second == (
        "take a smaller batch_size (now 32) or a smaller --size, or gdas or spos, which run one path at a time"
    )
    with pytest.raises(MachineError) as refused:
        memory.require(make, data, True, 32, Compute())
    assert str(refused.value).endswith("take a smaller batch_size (now 32) or a smaller --size")


def test_what_fits_is_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    _, data, make = prepared("nasbench201")
    need = memory.require(make, data, False, 32, Compute())
    monkeypatch.setattr(memory, "available", lambda device: need.total)
    assert memory.require(make, data, False, 32, Compute()) == need
    monkeypatch.setattr(memory, "available", lambda device: need.total - 1)
    with pytest.raises(MachineError):
        memory.require(make, data, False, 32, Compute())
    monkeypatch.setattr(memory, "available", lambda device: None)  # a machine that does not say
    memory.require(make, data, False, 32, Compute())


def test_free_memory_is_that_of_the_machine() -> None:
    free = memory.available("cpu")
    assert free is None or 2**26 < free < 2**46
    assert memory.available("meta") is None
