"""Truncated decompositions: the best factors, also on data; exact costs; what can and cannot be cut."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressors.compressor import Subject
from compressors.factors import factors, inputs_of, matrices, put, rank_within, split
from compressors.svd import Decomposed, Settings, Svd, patches
from compressors.target import parse_target
from nas_core.batch import Batch
from nas_core.errors import UsageError
from nas_core.task import Task
from search_spaces.counter import counted
from training.changes import changes_of, rebuilt

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


IMAGES = Task(kind="image-classification", input_shape=(3, 8, 8), outputs=10)


class Correlated:
    """Images whose pixels move together around others than 0: 2 batches of 64."""

    task = IMAGES

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        drawn = torch.Generator().manual_seed(0)
        mixing = torch.randn(12, 192, generator=drawn)
        for _ in range(2):
            images = 3 + torch.randn(64, 12, generator=drawn) @ mixing + 0.1 * torch.randn(64, 192, generator=drawn)
            yield Batch((images.reshape(64, 3, 8, 8),), torch.arange(64) % 10)


def subject(**given: Any) -> Subject:
    return Subject(IMAGES, Correlated(), CPU, 0, **given)  # type: ignore[arg-type]


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Conv2d(3, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 16, 3, padding="same", bias=False)),
        *(nn.ReLU(), nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10)),
    ).eval()


def cut(made: nn.Module, of: Subject | None = None, **settings: Any) -> dict[str, Any]:
    """What is said of a network after its compression."""
    change = Svd(of or subject(), Settings(**settings)).compress(made, 0)
    assert change.recalibrate  # what batch normalisations see has changed
    return dict(change.report)


def product(layers: Any) -> Tensor:
    """The weight that two layers stand for."""
    first, last = layers
    out: Tensor = last.weight.detach().flatten(1) @ first.weight.detach().flatten(1)
    return out


def test_no_factors_of_a_rank_are_nearer() -> None:
    made, plain = network(), network()
    weight = plain[6].weight.detach()
    report = cut(made, energy=0.6)
    rank = report["6"]["rank"]
    values = torch.linalg.svdvals(weight.double())
    error = float((product(made[6]) - weight).norm())
    assert error == pytest.approx(float(values[rank:].norm()), rel=1e-4)  # Eckart and Young
    assert float(values[:rank].square().sum()) >= 0.6 * float(values.square().sum())
    assert float(values[: rank - 1].square().sum()) < 0.6 * float(values.square().sum())
    assert report["6"]["energy"] == pytest.approx(1 - error**2 / float(weight.norm()) ** 2, rel=1e-4)
    assert report["6"]["weights"] == made[6][0].weight.numel() + made[6][1].weight.numel()
    assert isinstance(made[8], nn.Linear)  # the classifier


LAYERS = [
    (nn.Linear(20, 9), (5, 20)),
    (nn.Linear(20, 9, bias=False), (5, 3, 20)),
    (nn.Conv2d(3, 8, 3, stride=2, padding=1), (2, 3, 9, 9)),
    (nn.Conv2d(3, 8, (3, 5), padding="same", dilation=2, bias=False), (2, 3, 9, 9)),
    (nn.Conv1d(4, 6, 3, padding=2, dilation=2), (2, 4, 11)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda one: "" if isinstance(one, tuple) else str(one))
def test_at_full_rank_two_layers_are_the_layer(layer: Any, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    rows, values, columns = torch.linalg.svd(layer.weight.detach().flatten(1).double(), full_matrices=False)
    two = factors(layer, *split(values, rows, columns, len(values)))
    torch.testing.assert_close(two(x), layer(x), rtol=0, atol=1e-5)
    assert two[1].bias is layer.bias
    if len(shape) != 3 or isinstance(layer, nn.Conv1d):
        outputs = patches(layer, x) @ layer.weight.flatten(1).T + (0 if layer.bias is None else layer.bias)
        torch.testing.assert_close(outputs, layer(x).movedim(1, -1).reshape(outputs.shape), rtol=0, atol=1e-5)


def test_on_data_outputs_are_nearest() -> None:
    """The error of the outputs is the tail of their own singular values, below that of the plain factors."""
    plain, aware, whole = network(), network(), network()
    ranks = {name: one["rank"] for name, one in cut(plain, share=0.25).items()}
    assert {name: one["rank"] for name, one in cut(aware, share=0.25, data_aware=True, batches=2).items()} == ranks
    x = torch.cat([batch.inputs[0] for batch in Correlated().batches("train", 0, 0)])
    read = {"0": patches(whole[0], x), "3": patches(whole[3], whole[:3](x)), "6": whole[:6](x)}
    for name, rank in ranks.items():
        layer: Any = whole[int(name)]
        weight, inputs = layer.weight.detach().flatten(1), read[name].detach()
        outputs = weight @ inputs.T
        best = product(aware[int(name)]) @ inputs.T - outputs
        usual = product(plain[int(name)]) @ inputs.T - outputs
        if layer.bias is not None:  # which takes the mean
            best += (aware[int(name)][1].bias - layer.bias).detach()[:, None]
            assert float(best.mean(1).abs().max()) < 1e-4 * float(best.abs().max())
            outputs = outputs - outputs.mean(1, keepdim=True)
        tail = float(torch.linalg.svdvals(outputs.double())[rank:].norm())
        assert float(best.norm()) == pytest.approx(tail, rel=0.03)  # the rest is what is added to C
        assert float(best.norm()) < float(usual.norm())


@pytest.mark.parametrize("target", ["params<=0.3x", "macs<=0.5x", "macs<=9000"])
def test_a_target_is_met_by_one_tolerance_for_all(target: str) -> None:
    made, of = network(), subject(targets=(parse_target(target),))
    base = counted(made, inputs_of(made, of))
    plan = Svd(of, Settings()).plan(made)
    report = cut(made, of)
    costs = counted(made, inputs_of(made, of))
    assert costs == plan.costs  # by formula, as counted
    assert costs[of.targets[0].metric] <= of.targets[0].limit(base)
    ranks = {name: one["rank"] for name, one in report.items()}
    truncation = Decomposed(network(), of, Settings()).truncation
    tolerance = max(1 - one["energy"] for one in report.values()) ** 0.5
    assert truncation.ranks(tolerance * (1 + 1e-6)) == ranks
    assert truncation.costs(truncation.ranks(tolerance * (1 - 1e-6)))[of.targets[0].metric] > of.targets[0].limit(base)
    assert plan.reachable["params"][0] < plan.reachable["params"][1] < plan.reachable["params"][2] == base["params"]


def test_what_is_made_is_rebuilt() -> None:
    made, plain = network(), network()
    cut(made, energy=0.7)
    found = rebuilt(plain, changes_of(plain, made))
    found.load_state_dict(made.state_dict())
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(found.eval()(x), made(x))


def test_ranks_are_multiples_where_that_saves() -> None:
    report = cut(network(), subject(round_to=4), energy=0.6)
    assert [one["rank"] % 4 for one in report.values()] == [0, 0, 0]


def test_tolerances_and_ranks() -> None:
    values = torch.tensor([3.0, 2.0, 1.0, 0.0])
    assert [rank_within(values, one) for one in (0.0, 0.26, 0.27, 0.6, 0.99, 1.0)] == [3, 3, 2, 1, 1, 0]
    assert rank_within(torch.zeros(3), 0.1) == 0


class Odd(nn.Module):
    """Layers that cannot be cut, each for a reason of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(3, 9, 3, groups=3)
        self.reflecting = nn.Conv2d(9, 9, 3, padding=1, padding_mode="reflect")
        self.up = nn.ConvTranspose2d(9, 9, 2)
        self.held = nn.Linear(9, 32)
        self.tied, self.twin = nn.Linear(32, 32), nn.Linear(32, 32)
        self.twin.weight = self.tied.weight
        self.attention = nn.MultiheadAttention(32, 2)
        self.kept, self.small, self.head = nn.Linear(32, 32), nn.Linear(32, 1), nn.Linear(1, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.reflecting(self.grouped(x))).mean((2, 3))
        x = self.tied(self.held(x)) @ self.twin.weight.T
        return self.head(self.small(self.kept(self.attention(x, x, x)[0])))


def test_what_cannot_be_cut_is_said() -> None:
    made = Odd().eval()
    made.held.register_forward_hook(lambda module, inputs, output: output)
    with pytest.raises(UsageError, match="no layer of the network can be of low rank \\('grouped': it has 3 groups"):
        cut(made, subject(ignored=("kept",)))
    found, fixed = matrices(made, subject())
    assert [one.name for one in found] == ["kept"]
    reasons = {one.name: one.reason for one in fixed}
    assert reasons == {
        "grouped": "it has 3 groups",
        "reflecting": "it pads by reflect",
        "up": "it is a ConvTranspose2d",
        "held": "it has hooks",
        "tied": "its weight is another layer's too",
        "twin": "its weight is another layer's too",
        "attention.out_proj": "it is a NonDynamicallyQuantizableLinear",
        "small": "1 x 32 are too few for factors of rank 1",
        "head": "it is the classifier",
    }


class Words(nn.Module):
    """Rows of an image as a sequence, through a transformer of PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(24, 2, 64, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x.permute(0, 2, 1, 3).flatten(2)).mean(1))


def test_linear_maps_of_transformers_are_cut() -> None:
    torch.manual_seed(0)
    made = Words().eval()
    plain, x = copy.deepcopy(made), torch.randn(4, 3, 8, 8)
    report = cut(made, share=0.4)
    assert set(report) == {"encoder.layers.0.linear1", "encoder.layers.0.linear2"}
    with torch.no_grad():
        answer = made(x)  # the fused path would look for weights
    layer = made.encoder.layers[0]
    for name in ("linear1", "linear2"):
        whole = nn.Linear(*reversed(product(getattr(layer, name)).shape))
        whole.weight, whole.bias = nn.Parameter(product(getattr(layer, name))), getattr(layer, name)[1].bias
        put(plain, f"encoder.layers.0.{name}", whole)
    torch.testing.assert_close(plain(x), answer, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "targets", "message"),
    [
        ({}, ("params<=0.001x",), "cannot be met: with rank 1 in every layer .* params is 849"),
        ({}, ("params<=1x",), "is met already: params is"),
        ({}, ("density<=0.5",), "low ranks change params and macs alone"),
        ({"energy": 0.5}, ("params<=0.5x",), "a target says how much is kept"),
        ({"share": 1.0}, (), "share 1 leaves every layer a rank whose factors are no smaller"),
        ({"energy": 0.9999999}, (), "leaves every layer a rank"),
    ],
)
def test_what_cannot_be_is_said(settings: dict[str, Any], targets: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        cut(network(), subject(targets=tuple(map(parse_target, targets))), **settings)
