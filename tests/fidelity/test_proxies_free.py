"""Proxies without labels: closed forms, invariances, dead networks, and the ranks of real cells."""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional

from nas_core.batch import Batch
from nas_core.task import IMAGE_CLASSIFICATION, NODE_CLASSIFICATION, Task
from predictors.forward_pass import ForwardPass
from predictors.proxy import Unscorable
from predictors.scoring import Networks, proxy
from predictors.zero_cost.az_nas import body, entropy, trainability
from predictors.zero_cost.linear_regions import regions
from predictors.zero_cost.synflow import flow
from predictors.zero_cost.transform import gaussian_like, reinitialise
from predictors.zero_cost.zen import features
from search_spaces.layers.blocks import SqueezeExcite
from search_spaces.nasbench201.network import CellNetwork
from search_spaces.nasbench201.space import NasBench201
from search_spaces.nasbench_graph.space import GraphSize, NasBenchGraph
from search_spaces.operators.blocks.bottleneck import Bottleneck
from search_spaces.operators.graph.node.cheb import Chebyshev
from training.cost import macs
from training.data import load
from training.data.split import Split

FREE = ("synflow", "logsynflow", "zen", "linear_regions", "az_nas", "path_norm")


def probe_of(model: nn.Module, *inputs: Tensor, kind: str = IMAGE_CLASSIFICATION) -> ForwardPass:
    """A forward of one network with its weights as they are."""
    task = Task(kind=kind, input_shape=tuple(inputs[0].shape[1:]), outputs=2)
    batch = Batch(inputs, torch.zeros(len(inputs[0]), dtype=torch.int64))
    return ForwardPass(lambda: model, batch, lambda output, batch: output.mean(), task)


def components(name: str, model: nn.Module, *inputs: Tensor, kind: str = IMAGE_CLASSIFICATION) -> Mapping[str, float]:
    return proxy(name)[1].score(probe_of(model, *inputs, kind=kind))


def score(name: str, model: nn.Module, *inputs: Tensor, kind: str = IMAGE_CLASSIFICATION) -> float:
    (value,) = components(name, model, *inputs, kind=kind).values()
    return value


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def dense(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    for layer in layers:
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            layer.reset_parameters()
    return nn.Sequential(*layers)


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Difference(nn.Module):
    """Two linear maps of the same input, the second taken off or added."""

    def __init__(self, sign: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.sign = nn.Linear(3, 2), nn.Linear(3, 2), sign

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) - self.second(x) if self.sign < 0 else self.first(x) + self.second(x)


# SynFlow (fidelity check 1)


def test_synflow_of_two_linear_layers_is_twice_the_flow() -> None:
    model = dense(nn.Linear(4, 5, bias=False), nn.Linear(5, 3, bias=False))
    first, second = (layer.weight.detach().double().abs() for layer in model)
    total = float((second @ first).sum())
    assert score("synflow", model, images(2, 4)) == pytest.approx(2 * total, rel=1e-12)
    for weight, gradient in flow(probe_of(model, images(2, 4))):  # every layer alone has the whole flow
        assert float((weight * gradient).sum()) == pytest.approx(total, rel=1e-12)


def test_synflow_does_not_change_when_a_factor_moves_between_layers() -> None:
    model = dense(nn.Linear(4, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False))
    before = [score(name, model, images(2, 4)) for name in ("synflow", "logsynflow")]
    with torch.no_grad():
        model[0].weight.mul_(64.0)
        model[2].weight.div_(64.0)
    after = [score(name, model, images(2, 4)) for name in ("synflow", "logsynflow")]
    assert after[0] == pytest.approx(before[0], rel=1e-12)
    assert after[1] != pytest.approx(before[1], rel=1e-2)


def test_logsynflow_of_one_linear_layer_counts_each_weight_log_2() -> None:
    model = dense(nn.Linear(4, 3))
    expected = float(model[0].weight.detach().double().abs().sum()) * math.log(2)
    assert score("logsynflow", model, images(2, 4)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm2d(2),
        nn.GroupNorm(2, 2),
        nn.InstanceNorm2d(2),
        nn.LayerNorm([2, 4, 4]),
        nn.Sigmoid(),
        nn.Hardtanh(),
        nn.Tanh(),
        Apply(lambda x: functional.batch_norm(x, None, None, training=True)),
        Apply(lambda x: functional.layer_norm(x, x.shape[2:])),
    ],
)
def test_synflow_leaves_out_what_normalises_or_saturates(layer: nn.Module) -> None:
    conv, head = nn.Conv2d(1, 2, 3), nn.Linear(32, 2)
    plain = score("synflow", dense(conv, nn.Flatten(), head), images(2, 1, 6, 6))
    # An activation in place must not reach what was before the layer that is left out.
    model = dense(conv, layer, nn.ReLU(inplace=True), nn.Flatten(), head)
    assert score("synflow", model, images(2, 1, 6, 6)) == pytest.approx(plain, rel=1e-12)


def test_synflow_counts_a_gate_as_open_and_a_difference_as_a_sum() -> None:
    conv, head = nn.Conv2d(1, 4, 3), nn.Linear(64, 2)
    plain = score("synflow", dense(conv, nn.Flatten(), head), images(2, 1, 6, 6))
    gated = score("synflow", dense(conv, SqueezeExcite(4, 2), nn.Flatten(), head), images(2, 1, 6, 6))
    assert gated == pytest.approx(plain, rel=1e-12)
    reshaped = Apply(lambda x: x * torch.sigmoid(x.mean((2, 3))).view(-1, 4, 1, 1))
    assert score("synflow", dense(conv, reshaped, nn.Flatten(), head), images(2, 1, 6, 6)) == pytest.approx(plain)
    found = [score("synflow", Difference(sign), images(2, 3)) for sign in (-1, 1)]
    assert found[0] == found[1] > 0


def test_synflow_refuses_what_has_no_weights_or_no_finite_flow() -> None:
    with pytest.raises(Unscorable, match="no weights"):
        score("synflow", nn.Flatten(), images(2, 4))
    huge = dense(nn.Linear(4, 4), Apply(lambda x: x * 1e308), nn.Linear(4, 4))
    with pytest.raises(Unscorable, match="too large"):
        score("synflow", huge, images(2, 4))


# Graphs


def test_synflow_on_a_graph_is_the_flow_along_its_edges_also_where_a_layer_subtracts() -> None:
    torch.manual_seed(0)
    layer = Chebyshev(3, 2)
    edges = torch.tensor([[0, 1, 1, 2, 2, 0, 2, 3], [1, 0, 2, 1, 0, 2, 3, 2]])
    degree = torch.bincount(edges[1], minlength=4).double()
    spread = float((degree[edges[0]] * degree[edges[1]]).rsqrt().sum())
    itself, neighbours = (float(map_.weight.double().abs().sum()) for map_ in (layer.itself, layer.neighbours))
    found = score("synflow", layer, images(4, 3), edges, kind=NODE_CLASSIFICATION)
    assert found == pytest.approx(4 * itself + spread * neighbours, rel=1e-6)


def test_every_graph_operation_has_a_flow() -> None:
    space = NasBenchGraph()
    nets = Networks(space, GraphSize(hidden=8), load("karate"))
    archs = [space.from_text(f"0112:{name},gcn,{name},fc") for name in ("gat", "gin", "cheb", "sage", "arma", "graph")]
    found = [scored.values for scored in nets.score(archs, ["synflow", "logsynflow"])]
    assert all(math.isfinite(value) and value > 0 for values in found for value in values.values())
    assert len({values["synflow"] for values in found}) == len(archs)


# Zen (fidelity check 9)


def test_zen_counts_a_scale_through_the_running_variances_alone() -> None:
    def network(scale: float) -> nn.Sequential:
        layers = nn.Conv2d(2, 3, 3), Apply(lambda x: x * scale), nn.BatchNorm2d(3), nn.ReLU()
        return dense(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))

    forward = probe_of(network(1.0), images(8, 2, 6, 6))
    model, generator = forward.copy(), forward.generator("zen")
    assert isinstance(model, nn.Sequential)
    reinitialise(model, generator, lambda fan_in: 1.0)
    image = gaussian_like(forward.batch.inputs[0], generator)
    changed = image + 0.01 * gaussian_like(image, generator)
    first, second = (model[0](x).transpose(0, 1).flatten(1).var(1) for x in (image, changed))

    def remembered(scale: float) -> float:
        return float((0.81 + scale**2 * (0.09 * first + 0.1 * second)).mean())

    plain, scaled = (score("zen", network(scale), images(8, 2, 6, 6)) for scale in (1.0, 50.0))
    expected = 0.5 * math.log(remembered(50.0) / remembered(1.0))
    assert scaled - plain == pytest.approx(expected, abs=1e-4)
    assert expected > 3  # without the second term the score would not move


@pytest.mark.parametrize(
    "head",
    [
        [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)],
        [Apply(lambda x: x.mean((2, 3))), nn.Linear(3, 2)],
        [nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Flatten()],
        [SqueezeExcite(3, 2), Apply(lambda x: x.mean((2, 3), keepdim=True)), nn.Dropout(), nn.Flatten()],
        [nn.Flatten(), nn.Linear(48, 2)],
    ],
)
def test_zen_reads_the_features_before_global_pooling(head: list[nn.Module]) -> None:
    trunk = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True))
    stem = nn.Sequential(trunk, head.pop(0)) if isinstance(head[0], SqueezeExcite) else trunk
    model = nn.Sequential(stem, *head)
    expected = stem.train()(images(4, 2, 6, 6))
    assert torch.equal(features(probe_of(model, images(4, 2, 6, 6)), model, images(4, 2, 6, 6)), expected)


# Linear regions


def test_regions_are_the_different_patterns() -> None:
    patterns = torch.tensor([[1, 0, 1], [1, 0, 1], [0, 0, 1], [1, 1, 1], [0, 0, 1]], dtype=torch.bool)
    assert regions(patterns) == 3


def test_one_unit_cuts_the_images_in_two_and_more_units_in_more() -> None:
    def network(units: int) -> nn.Sequential:
        return dense(nn.Conv2d(1, units, 3), nn.BatchNorm2d(units), nn.ReLU(), nn.Flatten(), nn.Linear(units * 36, 2))

    found = [score(f"linear_regions(channels={units})", network(units), images(8, 1, 8, 8)) for units in (1, 2, 4)]
    assert found[0] == 2  # the head, which does not fit crops, ends the pass
    assert found[0] < found[1] <= 4 < found[2] <= 16


def test_regions_do_not_reach_the_number_of_samples_in_deep_networks() -> None:
    shallow, deep = (
        nn.Sequential(
            *(Bottleneck(1 if block == 0 else 16, 16, 1, 16, 1) for block in range(depth)),
            Apply(lambda x: x.mean((2, 3))),
            nn.Linear(16, 2),
        )
        for depth in (2, 12)
    )
    found = [score("linear_regions", model, images(8, 1, 8, 8)) for model in (shallow, deep)]
    assert 50 < found[0] < found[1] < 990


# AZ-NAS


def test_entropy_is_that_of_the_covariance_of_channels() -> None:
    signs = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]).float()
    assert entropy(signs[1:].view(1, 3, 2, 2)) == pytest.approx(math.log(3))
    assert entropy(torch.stack([signs[1], 2 * signs[1]]).view(1, 2, 2, 2)) == pytest.approx(0, abs=1e-6)
    assert entropy(torch.stack([signs[1], 2 * signs[2]]).view(1, 2, 2, 2) + 7) == pytest.approx(
        -0.2 * math.log(0.2) - 0.8 * math.log(0.8)
    )
    assert math.isnan(entropy(signs[:1].view(1, 1, 2, 2)))


def test_trainability_is_best_where_gradients_keep_their_size() -> None:
    def of(function: Callable[[Tensor], Tensor], channels: int) -> float:
        before = images(16, channels, 16, 16).requires_grad_()
        return trainability(before, function(before), torch.Generator().manual_seed(0))

    for scale in (0.5, 3.0):
        assert of(lambda x, scale=scale: x * scale, 1) == pytest.approx(2 - scale - 1 / scale, abs=1e-4)  # type: ignore[misc]
    weight = images(4, 3)
    largest = float(torch.linalg.matrix_norm(weight, 2))
    found = of(lambda x: functional.conv2d(x, weight[:, :, None, None]), 3)
    assert found == pytest.approx(2 - largest - 1 / largest, rel=0.05)
    # Averages of 2 x 2: every gradient is a quarter of the sign, four of them per sign; windows may end outside.
    for side, inside in ((16, 1.0), (15, 7 / 8)):
        before = images(16, 1, side, side).requires_grad_()
        after = functional.avg_pool2d(before, 2, 2, ceil_mode=True, divisor_override=4)
        generator = torch.Generator().manual_seed(0)
        size = 0.25 * math.sqrt(1 + 2 * inside**2 + inside**4)
        assert trainability(before, after, generator) == pytest.approx(2 - size - 1 / size, abs=1e-4)
    assert of(lambda x: x.clone(), 2) == -math.inf


def test_az_nas_finds_the_blocks_of_a_network_and_counts_its_macs() -> None:
    space = NasBench201()
    arch = space.from_text("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|")
    task = Task(kind=IMAGE_CLASSIFICATION, input_shape=(1, 8, 8), outputs=10)
    model = space.build(arch, task, space.Size(channels=4, cells=1))
    assert isinstance(model, CellNetwork)
    assert body(model) == list(model.body)
    found = components("az_nas", model, images(16, 1, 8, 8))
    assert found["complexity"] == macs(model, (images(1, 1, 8, 8),))
    assert 0 < found["expressivity"] < math.log(4) * 2 + math.log(8) * 2 + math.log(16) * 2
    assert found["trainability"] < 0
    assert all(math.isfinite(value) for value in found.values())


def test_az_nas_gives_a_network_with_an_identity_the_worst_trainability() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Identity(), nn.Conv2d(4, 4, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.blocks(x).mean((2, 3))

    found = components("az_nas", Network(), images(4, 1, 8, 8))
    assert found["trainability"] == -math.inf
    assert found["progressivity"] <= 0 < found["expressivity"]
    with pytest.raises(Unscorable, match="two blocks"):
        components("az_nas", nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), images(4, 1, 8, 8))


# All of them on cells


def test_dead_cells_have_the_worst_scores_and_scoring_changes_nothing() -> None:
    space = NasBench201()
    none = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    cut = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|none~2|"
    alive = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|nor_conv_1x1~1|skip_connect~2|"
    archs = [space.from_text(text) for text in (none, cut, alive)]
    nets = Networks(space, space.Size(channels=4, cells=1), load("digits"), batch=16)
    dead, also_dead, living = nets.score(archs, FREE)
    worst = {"synflow": 0.0, "logsynflow": 0.0, "linear_regions": 1.0}
    for scored in (dead, also_dead):
        assert dict(scored.values) == {name: worst.get(name, -math.inf) for name in living.values}
        assert set(scored.reasons) == {"az_nas", "path_norm"}
    assert all(value > worst.get(name, -math.inf) for name, value in living.values.items())
    (again,) = nets.score(archs[2:], tuple(reversed(FREE)))  # in another order
    assert dict(again.values) == dict(living.values)


@pytest.mark.parametrize("count", [40, pytest.param(300, marks=pytest.mark.slow)])
def test_synflow_and_parameters_rank_real_cells(shared_data: Path, count: int) -> None:
    """Fidelity check 10, on 300 cells for networks and 2,000 for counts."""
    space = NasBench201()
    with gzip.open(shared_data / "nb201.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    picked = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:2000].tolist()
    archs = [space.from_text(rows[row]["arch"]) for row in picked]
    accuracies = [float(rows[row]["c10_test"]) for row in picked]
    source = load(f"idx:{shared_data / 'fashion-mnist'}", Split(limit=2000))
    size = space.Size(channels=8, cells=1)
    nets = Networks(space, size, source)
    params = [space.costs(arch, source.task, size)["params"] for arch in archs]
    assert float(spearmanr(params, accuracies)[0]) == pytest.approx(0.75, abs=0.04)
    scored = list(nets.score(archs[:count], ["synflow", "logsynflow", "naswot"]))
    for name in ("synflow", "logsynflow", "naswot"):
        found = [max(one.values[name], -1e300) for one in scored]  # ranks of minus infinity are not defined
        assert float(spearmanr(found, accuracies[:count])[0]) >= 0.7, name
