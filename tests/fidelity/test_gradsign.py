"""GradSign: the card's closed forms and invariances, three ways that give the same, memory, and rank correlation."""

from __future__ import annotations

import copy
import csv
import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from nas_core import moves
from nas_core.batch import Batch
from nas_core.seeds import generator
from nas_core.task import IMAGE_CLASSIFICATION, NODE_CLASSIFICATION, Task
from predictors.forward_pass import ForwardPass, weights
from predictors.proxy import Unscorable
from predictors.zero_cost import gradsign
from predictors.zero_cost.gradsign import GradSign
from search_spaces.ae_cnn.space import AeCnn
from search_spaces.layers.row_norm import RowNorm
from search_spaces.nasbench201.space import CONV1, CONV3, NONE, POOL, SKIP, NasBench201
from search_spaces.nasbench_graph.space import NasBenchGraph
from search_spaces.nasnet.space import NASNet
from search_spaces.regnet.space import RegNet
from training.data import load
from training.data.loading import Loading
from training.data.scored import Scored
from training.data.split import Split
from training.tasks.image_classification import KIND

IMAGE_DATA = Scored(KIND.example)
mean_loss = IMAGE_DATA.loss

SPACE = NasBench201()
SMALL = SPACE.Size(channels=4, cells=1)
IMAGES = Task(kind=IMAGE_CLASSIFICATION, input_shape=(3, 8, 8), outputs=5)
ALL_3X3 = f"|{CONV3}~0|+|{CONV3}~0|{CONV3}~1|+|{CONV3}~0|{CONV3}~1|{CONV3}~2|"
MIXED = f"|{CONV1}~0|+|{POOL}~0|{CONV3}~1|+|{SKIP}~0|{NONE}~1|{CONV1}~2|"
CELLS = (ALL_3X3, MIXED, f"|{POOL}~0|+|{SKIP}~0|{NONE}~1|+|{CONV1}~0|{POOL}~1|{SKIP}~2|")
WAYS = ("_in_one_pass", "_mapped", "_one_by_one")

Build = Callable[[], nn.Module]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks: on a busy machine several threads wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made_up(count: int, task: Task = IMAGES, seed: int = 0) -> Batch:
    source = torch.Generator().manual_seed(seed)
    x = torch.randn((count, *task.input_shape), generator=source)
    return Batch((x,), torch.randint(task.outputs, (count,), generator=source))


def cell(text: str, task: Task = IMAGES) -> Build:
    return lambda: SPACE.build(SPACE.from_text(text), task, SMALL)


def score(forward: ForwardPass, **settings: Any) -> float:
    return GradSign(GradSign.Config(**settings)).score(forward)["gradsign"]


def by_loop(forward: ForwardPass, bn: str = "instance") -> float:
    """Algorithm 1, one backward pass per sample."""
    model = forward.copy()
    if bn == "calibrated":
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.reset_running_stats()
                module.momentum = None
        forward.run(model)
        model.eval()
    named = weights(model)
    totals = {name: torch.zeros_like(weight) for name, weight in named.items()}
    for sample in range(forward.samples):
        part = forward.part(sample, sample + 1)
        model.zero_grad()
        forward.loss(forward.run(model, part), part).backward()
        for name, weight in named.items():
            if weight.grad is not None:
                totals[name] += weight.grad.sign()
    return sum(float(total.abs().sum()) for total in totals.values())


def only(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ways before this one refuse."""

    def refuse(*arguments: object) -> None:
        raise gradsign.Coupled

    for other in WAYS[: WAYS.index(way)]:
        monkeypatch.setattr(gradsign, other, refuse)


def taken(forward: ForwardPass, monkeypatch: pytest.MonkeyPatch) -> str:
    """The way whose signs counted."""
    seen: list[str] = []

    def spied(way: str, real: Any) -> Callable[..., None]:
        def spy(*arguments: Any) -> None:
            seen.append(way)
            real(*arguments)

        return spy

    for way in WAYS:
        monkeypatch.setattr(gradsign, way, spied(way, vars(gradsign)[way]))
    score(forward)
    monkeypatch.undo()
    return seen[-1]


# --- closed forms -----------------------------------------------------------------------------------------------------


def linear(weight: float, targets: list[float], inputs: list[float] | None = None) -> ForwardPass:
    """f = w x with a squared loss."""

    def build() -> nn.Module:
        layer = nn.Linear(1, 1, bias=False)
        nn.init.constant_(layer.weight, weight)
        return layer

    x = torch.tensor(inputs or [1.0] * len(targets))[:, None]
    task = Task(kind=IMAGE_CLASSIFICATION, input_shape=(1,), outputs=1)

    def loss(output: Tensor, batch: Batch) -> Tensor:
        return (output[:, 0] - batch.target).square().mean()

    return ForwardPass(build, Batch((x,), torch.tensor(targets)), loss, task)


@pytest.mark.parametrize("way", WAYS)
def test_closed_forms_of_one_weight(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    only(way, monkeypatch)
    assert score(linear(0.0, [1.0, 2.0, -1.0])) == 1
    assert score(linear(0.0, [1.0, 2.0, 3.0])) == 3
    assert score(linear(1.0, [1.0, 2.0, 3.0])) == 2  # the first sample is at its optimum: sign(0) = 0
    assert score(linear(1.5, [1.0, 2.0, 3.0, 2.0], [1.0, -1.0, 1.0, 1.0])) == 0  # two of each sign
    assert score(linear(0.0, [1.0, 2.0, -1.0]), reduction="mean") == 1


@pytest.mark.parametrize("bn", ["instance", "calibrated"])
def test_identical_samples_agree_in_every_weight_that_has_a_gradient(bn: str) -> None:
    batch = made_up(1)
    batch.inputs[0][:, 0] = 0  # the weights of this channel have no gradient
    same = Batch((batch.inputs[0].repeat(6, 1, 1, 1),), batch.target.repeat(6))
    single = by_loop(ForwardPass(Shared, batch, mean_loss, IMAGES))  # weights with a gradient
    everything = sum(weight.numel() for weight in weights(Shared()).values())
    assert single == everything - 6 * 9
    assert score(ForwardPass(Shared, same, mean_loss, IMAGES), bn=bn) == pytest.approx(6 * single, rel=1e-3)


def test_a_cell_without_a_path_scores_exactly_zero() -> None:
    dead = f"|{NONE}~0|+|{NONE}~0|{NONE}~1|+|{NONE}~0|{NONE}~1|{NONE}~2|"
    for bn in ("instance", "calibrated"):
        assert score(ForwardPass(cell(dead), made_up(8), mean_loss, IMAGES), bn=bn) == 0
    assert score(ForwardPass(cell(MIXED), made_up(8), mean_loss, IMAGES)) > 0


# --- invariances ------------------------------------------------------------------------------------------------------


def test_positive_factors_of_losses_change_nothing() -> None:
    """Also those of single samples; the gradient norm and the sign of the mean gradient do change."""
    batch = made_up(12)
    factors = torch.tensor([0.01, 1.0, 30.0, 4.0, 0.2])

    def weighted(output: Tensor, part: Batch) -> Tensor:
        each = functional.cross_entropy(output, part.target, reduction="none")
        return (factors[part.target] * each).mean()

    plain = ForwardPass(cell(ALL_3X3), batch, mean_loss, IMAGES)
    scaled = ForwardPass(cell(ALL_3X3), batch, lambda *given: 7 * mean_loss(*given), IMAGES)
    uneven = ForwardPass(cell(ALL_3X3), batch, weighted, IMAGES)
    expected = score(plain)
    assert score(scaled) == pytest.approx(expected, rel=1e-4)
    assert score(uneven) == pytest.approx(expected, rel=1e-4)
    assert gradient_norm(uneven) != pytest.approx(gradient_norm(plain), rel=0.1)


def test_the_order_of_the_samples_changes_nothing_and_the_mean_gradient_is_not_enough() -> None:
    batch = made_up(16)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    forward = ForwardPass(cell(ALL_3X3), batch, mean_loss, IMAGES)
    permuted = ForwardPass(cell(ALL_3X3), Batch((batch.inputs[0][order],), batch.target[order]), mean_loss, IMAGES)
    assert score(permuted) == pytest.approx(score(forward), rel=1e-4)
    everything = sum(weight.numel() for weight in weights(forward.model).values())
    assert score(forward) / 16 < 0.5 * everything  # signs of the mean gradient would give all of it
    assert score(forward, reduction="mean") == pytest.approx(score(forward) / everything)


# --- the same in every way --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bn", ["instance", "calibrated"])
@pytest.mark.parametrize("text", CELLS)
def test_equals_the_loop(text: str, bn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = load("digits", Split())
    batch = next(iter(source.bind("cpu", Loading(batch_size=24)).batches("train", 0, 0)))
    forward = ForwardPass(cell(text, source.task), batch, mean_loss, source.task)
    expected = by_loop(forward, bn)
    assert taken(forward, monkeypatch) == "_in_one_pass"
    for way in WAYS:
        only(way, monkeypatch)
        assert score(forward, bn=bn, chunk=16) == pytest.approx(expected, rel=1e-3), way


@pytest.mark.parametrize(
    ("space", "size"),
    [
        (RegNet(), RegNet.Size(stem_width=8, width_scale=0.25)),
        (NASNet(), NASNet.Size.preset("search", filters=48, stem_filters=8)),
        (AeCnn(), AeCnn.Size(width_scale=0.125, depth_scale=0.1)),
    ],
)
def test_other_image_spaces_equal_the_loop_in_one_pass(space: Any, size: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grouped, strided and dilated convolutions, squeeze-and-excite, in-place activations."""
    task = Task(kind=IMAGE_CLASSIFICATION, input_shape=(3, 16, 16), outputs=5)
    for draw in range(20):
        arch = moves.sample(space, generator("gradsign", draw))
        forward = ForwardPass(lambda arch=arch: space.build(arch, task, size), made_up(6, task), mean_loss, task)
        if space.costs(arch, task, size)["params"] < 400_000 and taken(forward, monkeypatch) == "_in_one_pass":
            break
    else:
        pytest.fail("no architecture was scored in one pass")
    assert score(forward, bn="calibrated", chunk=4) == pytest.approx(by_loop(forward, "calibrated"), rel=1e-3)
    # By own statistics a depthwise weight of which one tap meets a small map has the gradient 0 but for rounding.
    assert score(forward, chunk=4) == pytest.approx(by_loop(forward), rel=5e-3)


class Shared(nn.Module):
    """One convolution that is used three times, in-place activations right after convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.conv = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu_(self.stem(x))
        for _ in range(3):
            x = x + functional.relu_(self.conv(x))
        return self.head(x.flatten(2).transpose(1, 2)).mean(1)  # linear on every pixel


class Transposed(nn.Module):
    """A layer that the one pass does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 4, 2, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.relu(self.norm(self.up(x))).mean((2, 3)))


class Standardised(nn.Module):
    """A convolution whose weight is computed, by a layer that is known."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight
        weight = weight - weight.mean((1, 2, 3), keepdim=True)
        return self.head(functional.relu(functional.conv2d(x, weight)).mean((2, 3)))


class OwnNorm(nn.Module):
    """Normalises over the batch without `functional.batch_norm`: samples of one batch are not independent."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)
        return self.head(functional.relu(x).mean((2, 3)))


class Tokens(nn.Module):
    """Sequences whose first dimension is not the samples, although it is as long as a chunk of four."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).permute(2, 0, 1)
        return self.head(functional.gelu(self.mix(tokens)).mean(0))


class Branching(nn.Module):
    """Control flow that depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.ConvTranspose2d(3, 4, 2), nn.Conv2d(3, 4, 2)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        path = self.one if float(x.detach().mean()) > 0 else self.two
        return self.head(functional.relu(path(x)).mean((2, 3)))


@pytest.mark.parametrize(
    ("network", "way"),
    [
        (Shared, "_in_one_pass"),
        (Transposed, "_mapped"),
        (Standardised, "_mapped"),
        (OwnNorm, "_mapped"),
        (Tokens, "_mapped"),
        (Branching, "_one_by_one"),
    ],
)
def test_every_network_is_right_whatever_its_layers(
    network: type[nn.Module], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = ForwardPass(network, made_up(12), mean_loss, IMAGES)
    for chunk in (4, 12):
        assert score(forward, chunk=chunk) == pytest.approx(by_loop(forward), rel=1e-3)
    assert taken(forward, monkeypatch) == way


def test_one_value_per_channel_is_calibrated() -> None:
    """`BatchNorm1d`, and convolutional networks whose maps shrink to one pixel."""

    def flat() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 5))

    def shrinking() -> nn.Module:
        layers = (nn.Conv2d(3, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(6, 5))

    for build in (flat, shrinking):
        forward = ForwardPass(build, made_up(12), mean_loss, IMAGES)
        with pytest.raises(ValueError, match="more than 1 value"):
            by_loop(forward)
        assert score(forward) == score(forward, bn="calibrated")
        assert score(forward) == pytest.approx(by_loop(forward, "calibrated"), rel=1e-3)


def test_a_row_of_its_own_has_no_statistics() -> None:
    """Sample after sample, as graphs are passed: where running moments stand in for them there are none."""
    norm = RowNorm(3)
    assert torch.equal(norm(torch.ones(1, 3)), norm.eval()(torch.ones(1, 3)))
    norm.train().running_mean = norm.running_var = None
    with pytest.raises(ValueError, match="more than 1 value"):
        norm(torch.ones(1, 3))


def test_scores_of_the_two_modes_differ() -> None:
    forward = ForwardPass(cell(ALL_3X3), made_up(16), mean_loss, IMAGES)
    assert score(forward) != score(forward, bn="calibrated")


# --- memory and what is left behind -----------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """The entries of the largest tensor that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor):
                self.entries = max(self.entries, value.numel())
        return result


@pytest.mark.parametrize("way", WAYS[:2])
def test_memory_is_bounded_by_the_chunk(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    only(way, monkeypatch)
    wide = SPACE.Size(channels=16, cells=1)
    forward = ForwardPass(lambda: SPACE.build(SPACE.from_text(ALL_3X3), IMAGES, wide), made_up(32), mean_loss, IMAGES)
    layer = max(weight.numel() for weight in weights(forward.model).values())
    assert layer > 16 * 8 * 8 * 32 / 4  # weights, not feature maps, are the largest with chunks of four or more
    for chunk in (2, 4, 16):
        with Largest() as largest:
            score(forward, chunk=chunk)
        assert layer * chunk <= largest.entries <= max(layer * chunk, forward.batch.inputs[0].numel())


@pytest.mark.parametrize("bn", ["instance", "calibrated"])
def test_chunks_change_nothing(bn: str) -> None:
    forward = ForwardPass(cell(MIXED), made_up(13), mean_loss, IMAGES)
    found = [score(forward, bn=bn, chunk=chunk) for chunk in (1, 2, 5, 13, 64)]
    assert found == pytest.approx([found[0]] * 5, rel=1e-3)
    assert score(forward, bn=bn) == score(forward, bn=bn)


@pytest.mark.parametrize("way", [*WAYS, "fails"])
@pytest.mark.parametrize("bn", ["instance", "calibrated"])
def test_the_network_is_left_as_it_was(way: str, bn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = ForwardPass(cell(MIXED), made_up(6), mean_loss, IMAGES)
    forward.model.get_submodule("body").eval()
    forward.model.classifier.weight.requires_grad_(False)
    state = copy.deepcopy(forward.model.state_dict())
    flags = [module.training for module in forward.model.modules()]
    required = [parameter.requires_grad for parameter in forward.model.parameters()]
    settings = copy.deepcopy(norms(forward.model))
    if way == "fails":
        monkeypatch.setattr(forward, "run", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            score(forward, bn=bn)
    else:
        only(way, monkeypatch)
        score(forward, bn=bn)
    assert [module.training for module in forward.model.modules()] == flags
    assert [parameter.requires_grad for parameter in forward.model.parameters()] == required
    assert norms(forward.model) == settings
    assert all(parameter.grad is None for parameter in forward.model.parameters())
    after = forward.model.state_dict()
    assert list(after) == list(state)
    assert all(torch.equal(after[name], value) for name, value in state.items())


def norms(model: nn.Module) -> list[tuple[Any, ...]]:
    found = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    return [(norm.momentum, norm.track_running_stats, norm.running_mean is None) for norm in found]


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(Unscorable, match="no convolution"):
        score(ForwardPass(lambda: nn.Sequential(nn.Flatten(), nn.ReLU()), made_up(4), mean_loss, IMAGES))

    def overflowing() -> nn.Module:
        layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
        nn.init.constant_(layers[1].weight, 3e38)
        return layers

    with pytest.raises(Unscorable, match="not finite"):
        score(ForwardPass(overflowing, made_up(4), mean_loss, IMAGES))


# --- graphs -----------------------------------------------------------------------------------------------------------


def graph_probe(notation: str, count: int = 34) -> ForwardPass:
    source = load("karate", Split())
    batch = next(iter(source.bind("cpu").batches("train", 0, 0)))
    batch = Batch(batch.inputs, batch.target, torch.arange(34)[:count])
    space = NasBenchGraph()
    assert source.task.kind == NODE_CLASSIFICATION
    size = space.Size(hidden=8, dropout=0.5)
    return ForwardPass(lambda: space.build(space.from_text(notation), source.task, size), batch, mean_loss, source.task)


@pytest.mark.parametrize("notation", ["0112:gcn,gin,cheb,fc", "0123:gat,arma,sage,graph", "0000:gcn,gat,fc,cheb"])
def test_nodes_are_the_samples_of_graph_networks(notation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = graph_probe(notation)
    model = forward.copy()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = None
    forward.run(model)
    model.eval()
    found = list(weights(model).values())
    total = [torch.zeros_like(weight) for weight in found]
    for node in range(34):
        part = forward.part(node, node + 1)
        gradients = torch.autograd.grad(forward.loss(forward.run(model), part), found, materialize_grads=True)
        total = [old + gradient.sign() for old, gradient in zip(total, gradients, strict=True)]
    expected = sum(float(value.abs().sum()) for value in total)
    assert expected > 0
    for chunk in (1, 5, 34, 64):
        assert score(forward, chunk=chunk) == pytest.approx(expected, rel=1e-3)
    assert score(forward, bn="calibrated") == score(forward, bn="instance")
    assert score(graph_probe(notation, 10)) < score(forward)

    real = torch.autograd.grad

    def unbatched(*given: Any, is_grads_batched: bool = False, **options: Any) -> Any:
        if is_grads_batched:
            raise RuntimeError("no batching rule")
        return real(*given, **options)

    monkeypatch.setattr(torch.autograd, "grad", unbatched)
    assert score(forward) == pytest.approx(expected, rel=1e-3)


# --- the benchmark ----------------------------------------------------------------------------------------------------


def gradient_norm(forward: ForwardPass) -> float:
    model = forward.copy()
    found = list(weights(model).values())
    loss = forward.loss(forward.run(model), forward.batch)
    gradients = torch.autograd.grad(loss, found, materialize_grads=True)
    return sum(float(gradient.norm()) for gradient in gradients)


@pytest.mark.parametrize("count", [45, pytest.param(150, marks=pytest.mark.slow)])
def test_ranks_the_cells_of_nasbench201(shared_data: Path, count: int) -> None:
    """Published for all cells: 0.77 (GradSign) and 0.58 (grad_norm); tiny networks on small images reach about 0.7."""
    with gzip.open(shared_data / "nb201.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    chosen = generator("gradsign", "cells").choice(len(rows), count, replace=False)
    source = load(f"idx:{shared_data / 'fashion-mnist'}", Split(limit=2000))
    batch = next(iter(source.bind("cpu", Loading(batch_size=32)).batches("train", 0, 0)))
    batch = Batch((functional.avg_pool2d(batch.inputs[0], 2),), batch.target)
    task = Task(kind=IMAGE_CLASSIFICATION, input_shape=(1, 14, 14), outputs=source.task.outputs)
    size = SPACE.Size(channels=8, cells=1)
    signs, norm, accuracy = [], [], []
    for row in (rows[number] for number in chosen):
        arch = SPACE.from_text(row["arch"])
        forward = ForwardPass(lambda arch=arch: SPACE.build(arch, task, size), batch, mean_loss, task)
        signs.append(score(forward))
        norm.append(gradient_norm(forward))
        accuracy.append(float(row["c10_test"]))
    ours, theirs = (spearmanr(values, accuracy).statistic for values in (signs, norm))
    assert ours > 0.55
    assert ours > theirs
