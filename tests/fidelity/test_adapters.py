"""Structured pruning adapters: what is trained, what stays, and what is left of them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nas_core.errors import UsageError
from tests.small_data import Images
from training.adapter import Adapted, places, share
from training.fit import fit
from training.recipe import Recipe
from training.regimes.adapters import Adapters, LowRankAdapters

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


DATA = Images(side=6)


class Net(nn.Module):
    """Convolutions of several kinds, attention, an embedding and a recurrent layer."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.depthwise, self.even = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 12, 2)
        self.attention, self.scale = nn.MultiheadAttention(12, 2, batch_first=True), nn.LayerNorm((25, 12))
        self.place, self.steps = nn.Embedding(25, 12), nn.GRU(12, 6, batch_first=True)
        self.drop, self.head = nn.Dropout(0.2), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.even(self.depthwise(torch.relu(self.norm(self.first(x)))))
        x = x.flatten(2).transpose(1, 2) + self.place.weight
        x = self.scale(x + self.attention(x, x, x)[0])
        return self.head(self.drop(self.steps(x)[0][:, -1]))


WEIGHTS = ["first.weight", "depthwise.weight", "even.weight", "attention.in_proj_weight", "attention.out_proj.weight"]
WEIGHTS += ["head.weight"]


def recipe(**changes: Any) -> Recipe:
    given = {"epochs": 2, "lr": 0.1, "batch_size": 16, "schedule": "constant", "precision": "float32"}
    return Recipe.model_validate(given | {"adapters": {"rank": 4}} | changes)


def trained(model: nn.Module, folder: Path | None = None, stop: int | None = None, **changes: Any) -> nn.Module:
    reports = fit(model, DATA, recipe(**changes), device=CPU, seed=1, folder=folder, checkpoint_seconds=0, test=True)
    for report in reports:
        if report.step == stop:
            reports.close()
    return model


def test_weights_stay_bit_for_bit_while_their_adapters_are_trained() -> None:
    model, base = Net(), Net()
    regime = LowRankAdapters(4)
    done = fit(model, DATA, recipe(adapters=None), device=CPU, seed=1, regimes=[regime])
    next(done)
    before, after = base.state_dict(), model.state_dict()
    frozen = [name for name in WEIGHTS if torch.equal(before[name], after[_original(name)])]
    assert frozen == WEIGHTS
    moved = {name for name, value in before.items() if name not in WEIGHTS and not torch.equal(value, after[name])}
    assert moved == {
        *(name for name in before if name.endswith(("bias", "running_mean", "running_var", "num_batches_tracked"))),
        *("norm.weight", "scale.weight", "steps.bias_ih_l0", "steps.bias_hh_l0"),
    } - {"first.bias"}
    adapters = {name for name in after if name.endswith((".C", ".R"))}
    assert len(adapters) == 2 * len(WEIGHTS)
    assert all(after[name].abs().sum() > 0 for name in adapters)
    list(done)
    assert [type(one) for one in model.modules()] == [type(one) for one in base.modules()]
    assert model.state_dict().keys() == before.keys()
    assert all(one.requires_grad for one in model.parameters())
    changed = {name for name in WEIGHTS if not torch.equal(before[name], model.state_dict()[name])}
    assert changed == set(WEIGHTS)


def _original(name: str) -> str:
    path, _, last = name.rpartition(".")
    return f"{path}.parametrizations.{last}.original"


LAYERS = [
    (nn.Linear(20, 12), (5, 20)),
    (nn.Conv2d(6, 10, 3, padding=1, stride=2), (2, 6, 7, 7)),
    (nn.Conv2d(6, 9, (3, 5), dilation=2, groups=3, bias=False), (2, 6, 12, 12)),
    (nn.Conv1d(5, 7, 3, padding="same"), (2, 5, 9)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=["linear", "conv2d", "groups", "conv1d"])
def test_a_merged_layer_is_the_layer_beside_its_adapter(layer: Any, shape: tuple[int, ...]) -> None:
    plain, network = copy.deepcopy(layer), nn.Sequential(layer)
    adapted, x = Adapted(network, 3, seed=1), torch.randn(shape)
    with torch.no_grad():
        torch.testing.assert_close(network(x), plain(x), rtol=0, atol=0)  # C is 0
        (adapter,) = layer.parametrizations.weight
        adapter.C.normal_()
        rank = min(3, *plain.weight.shape[:2])
        assert adapter.C.shape == (plain.weight.shape[0], rank)
        assert adapter.R.shape == (rank, plain.weight.shape[1])
        if isinstance(layer, nn.Linear):
            wanted = plain(x) + x @ adapter.R.T @ adapter.C.T
        else:
            # What the middle of the kernel reads, times C R, beside the convolution.
            beside = copy.deepcopy(plain)
            beside.weight.zero_()
            middle = (..., *(size // 2 for size in plain.kernel_size))
            beside.weight[middle] = adapter.C @ adapter.R
            beside.bias = None
            wanted = plain(x) + beside(x)
        torch.testing.assert_close(network(x), wanted, rtol=0, atol=1e-5)
        adapted.merge()
        torch.testing.assert_close(network(x), wanted, rtol=0, atol=1e-5)
        assert not parametrize.is_parametrized(layer)
        assert type(layer) is type(plain)


def test_the_share_of_what_is_trained() -> None:
    model = Net()
    counts = {name: one.numel() for name, one in model.named_parameters()}
    # first: 3 x 8, depthwise: 1 x 8, even: 8 x 12, attention: 12 x 36 and 12 x 12, head: 6 x 2
    adapters = 3 * (3 + 8) + 1 * (1 + 8) + 4 * (8 + 12) + 4 * (12 + 36) + 4 * (12 + 12) + 2 * (6 + 2)
    vectors = sum(one.numel() for name, one in model.named_parameters() if one.dim() == 1) + 2 * 25 * 12
    assert share(model, 4) == (adapters + vectors) / sum(counts.values())
    Adapted(model, 4, 0)
    held = sum(one.numel() for one in model.parameters() if one.requires_grad)
    assert held == adapters + vectors


def test_a_pruned_layer_has_the_rows_and_columns_that_are_left() -> None:
    whole, less = nn.Sequential(nn.Linear(10, 8)), nn.Sequential(nn.Linear(6, 5))
    for model in (whole, less):
        Adapted(model, 2, 0)
    shapes = [tuple(one.shape) for one in less[0].parametrizations.weight[0].parameters()]  # type: ignore[union-attr]
    assert shapes == [(5, 2), (2, 6)]


@pytest.mark.parametrize("plan", [{"momentum": 0.9}, {"optimizer": "adam", "keep": "best"}, {"ema": 0.5}])
def test_a_killed_training_continues_bit_for_bit(tmp_path: Path, plan: dict[str, Any]) -> None:
    straight = trained(Net(), epochs=3, **plan)
    trained(Net(), tmp_path, stop=1, epochs=3, **plan)
    resumed = trained(Net(), tmp_path, epochs=3, **plan)
    for name, tensor in straight.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_what_has_no_adapter_is_said_or_stays() -> None:
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    tied[1].weight = tied[0].weight
    tied[2].weight.requires_grad_(False)
    assert not list(places(tied))
    with pytest.raises(UsageError, match="no linear map and no convolution that could have one"):
        Adapted(nn.Sequential(nn.Embedding(3, 4), nn.BatchNorm1d(4)), 4, 0)
    tied[2].weight.requires_grad_(True)
    adapted = Adapted(tied, 2, 0)
    assert [name for name, one in tied.named_parameters() if not one.requires_grad] == [
        "0.weight",
        "2.parametrizations.weight.original",
    ]
    adapted.merge()
    assert tied[1].weight is tied[0].weight


def test_a_recipe_without_adapters_is_stored_as_before() -> None:
    assert "adapters" not in recipe(adapters=None).model_dump(mode="json")
    stored = recipe(adapters={}).model_dump(mode="json")
    assert Recipe.model_validate(stored).adapters == Adapters(rank=16)
