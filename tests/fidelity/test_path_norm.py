"""Path-norm: explicit sums over paths, invariance under rescaling, what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.batch import Batch
from nas_core.task import IMAGE_CLASSIFICATION, Task
from predictors.forward_pass import ForwardPass
from predictors.proxy import Unscorable
from predictors.scoring import proxy
from search_spaces.layers.blocks import SqueezeExcite
from search_spaces.nasbench201.space import NasBench201

Edge = tuple[int, int]
OPERATIONS = ("none", "skip", "conv", "conv_bias", "max_pool", "avg_pool", "pool_with_padding")


def path_norm(model: nn.Module, shape: Sequence[int], q: int = 1) -> float:
    """The score of one network with its weights as they are."""
    _, found = proxy(f"path_norm(q={q})")
    task = Task(kind=IMAGE_CLASSIFICATION, input_shape=tuple(shape), outputs=2)
    batch = Batch((torch.zeros(2, *shape),), torch.zeros(2, dtype=torch.int64))
    (value,) = found.score(ForwardPass(lambda: model, batch, lambda output, batch: output.mean(), task)).values()
    return value


def shuffle_norms(model: nn.Module) -> nn.Module:
    """Batch normalisations as after training, with scales of both signs; the same numbers every time."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                    assert value is not None
                    value.copy_(torch.randn(value.shape, generator=generator))
                assert norm.running_var is not None
                norm.running_var.abs_().add_(0.1)
    return model


class Dag(nn.Module):
    """Nodes of two channels that sum their incoming edges; batch normalisation of the last sum, mean, classifier."""

    def __init__(self, operations: dict[Edge, str]) -> None:
        super().__init__()
        self.edges = {
            edge: nn.Sequential(nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1, bias=name == "conv_bias"), nn.BatchNorm2d(2))
            for edge, name in operations.items()
            if name.startswith("conv")
        }
        self.layers = nn.ModuleList(self.edges.values())
        self.operations = operations
        self.norm = nn.BatchNorm2d(2)
        self.classifier = nn.Linear(2, 2)

    def edge(self, edge: Edge, x: Tensor) -> Tensor:
        name = self.operations[edge]
        if name == "none":
            return torch.zeros_like(x)
        if name == "max_pool":
            return functional.max_pool2d(x, 3, 1, 1)
        if name == "avg_pool":
            return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        if name == "pool_with_padding":
            return functional.avg_pool2d(x, 3, 1, 1)
        # By position, as a copy of the network has modules of its own.
        return x if name == "skip" else self.layers[list(self.edges).index(edge)](x)

    def forward(self, x: Tensor) -> Tensor:
        states = [x]
        for target in range(1, 4):
            states.append(sum((self.edge((source, target), states[source]) for source in range(target)), 0 * x))
        return self.classifier(functional.relu(self.norm(states[-1])).mean((2, 3)))


def affine(function: Callable[[Tensor], Tensor], shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Matrix and offset of a map that is affine, between flattened tensors."""
    zero = torch.zeros(1, *shape, dtype=torch.float64)
    offset = function(zero).detach().flatten()
    matrix = torch.autograd.functional.jacobian(function, zero).flatten(-len(shape) - 1)
    return matrix.reshape(len(offset), -1), offset


def enumerated(model: Dag, shape: tuple[int, int, int], q: int) -> float:
    """One path after the other, from inputs and from biases, over the neurons of the network."""
    model = model.double().eval()
    links: dict[tuple[int, int], list[tuple[int, int, float]]] = {}
    total = 0.0
    starts: list[tuple[tuple[int, int], float]] = []
    size = torch.Size(shape).numel()

    def add(source: int, target: int, matrix: Tensor, offset: Tensor) -> None:
        for row, column in matrix.nonzero().tolist():
            links.setdefault((source, column), []).append((target, row, abs(float(matrix[row, column])) ** q))
        starts.extend(((target, row), abs(float(value)) ** q) for row, value in enumerate(offset) if value)

    for edge, name in model.operations.items():
        if name == "max_pool":  # every value of a window may be the largest
            matrix, offset = affine(lambda x: 9 * functional.avg_pool2d(x, 3, 1, 1), shape)
        elif name.startswith("conv"):
            layer = model.layers[list(model.edges).index(edge)]
            assert isinstance(layer, nn.Sequential)
            matrix, offset = affine(layer[1:], shape)
        else:
            matrix, offset = affine(lambda x, edge=edge: model.edge(edge, x), shape)  # type: ignore[misc]
        add(edge[0], edge[1], matrix, offset)
    # The sum before the last normalisation is node 3, that normalisation node 4, the mean node 5, the outputs node 6.
    add(3, 4, *affine(model.norm, shape))
    add(4, 5, *affine(lambda x: x.mean((2, 3)), shape))
    add(5, 6, model.classifier.weight.detach(), model.classifier.bias.detach())
    starts += [((0, neuron), 1.0) for neuron in range(size)]
    while starts:
        place, weight = starts.pop()
        if place[0] == 6:
            total += weight
        starts += [((target, row), weight * factor) for target, row, factor in links.get(place, [])]
    return float(total ** (1 / q))


@pytest.mark.parametrize("q", [1, 2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_equals_the_sum_over_explicit_paths_on_random_dags(seed: int, q: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    edges = [(source, target) for target in range(1, 4) for source in range(target)]
    picked = torch.randint(1, len(OPERATIONS), (len(edges),), generator=generator).tolist()
    operations = {edge: OPERATIONS[choice] for edge, choice in zip(edges, picked, strict=True)}
    operations[edges[seed % 6]] = OPERATIONS[seed % 3 * 2]  # none, conv, max_pool take turns
    torch.manual_seed(seed)
    model = shuffle_norms(Dag(operations))
    reference = Dag(operations)
    reference.load_state_dict(model.state_dict())
    expected = enumerated(reference, (2, 2, 2), q)
    assert path_norm(model, (2, 2, 2), q) == pytest.approx(expected, rel=1e-9)


def test_two_layers_are_the_product_of_absolute_matrices() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 5, bias=False), nn.ReLU(), nn.Linear(5, 2, bias=False))
    first, second = (model[number].weight.detach().double() for number in (1, 3))
    assert path_norm(model, (1, 2, 2)) == pytest.approx(float((second.abs() @ first.abs()).sum()))
    squares = float((second.square() @ first.square()).sum())
    assert path_norm(model, (1, 2, 2), 2) == pytest.approx(squares**0.5)


@pytest.mark.parametrize("q", [1, 2])
def test_rescaling_a_neuron_leaves_it_and_changes_the_sum_of_norms(q: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    before = path_norm(model, (1, 2, 2), q), sum(float(weight.detach().norm()) for weight in model.parameters())
    scale = torch.tensor([0.1, 2.0, 30.0, 1.0, 0.5])
    with torch.no_grad():
        model[1].weight.mul_(scale[:, None])
        model[1].bias.mul_(scale)
        model[3].weight.div_(scale)
    after = path_norm(model, (1, 2, 2), q), sum(float(weight.detach().norm()) for weight in model.parameters())
    assert after[0] == pytest.approx(before[0], rel=1e-6)
    assert after[1] != pytest.approx(before[1], rel=1e-2)


@pytest.mark.parametrize("bias", [False, True])
def test_a_normalisation_is_folded_into_the_convolution_before_it(bias: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, 3, padding=1, bias=bias)
    norm = shuffle_norms(nn.BatchNorm2d(3))
    head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    folded = torch.nn.utils.fuse_conv_bn_eval(conv.double().eval(), norm.double().eval())
    expected = path_norm(nn.Sequential(folded, head), (2, 4, 4), 2)
    assert path_norm(nn.Sequential(conv, norm, head), (2, 4, 4), 2) == pytest.approx(expected, rel=1e-9)


def test_a_normalisation_after_an_activation_in_place_is_a_layer_of_its_own() -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(1, 1, 1), shuffle_norms(nn.BatchNorm2d(1))
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_var is not None
    assert norm.running_mean is not None
    found = [
        path_norm(nn.Sequential(conv, nn.ReLU(inplace=inplace), norm, nn.Flatten()), (1, 1, 1))
        for inplace in (False, True)
    ]
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias - norm.running_mean * scale
    expected = float(scale.abs() * (conv.weight.abs().sum() + conv.bias.abs().sum()) + shift.abs())
    assert found == pytest.approx([expected, expected])


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "dilation", "ceil"),
    [
        (4, 2, 2, 0, 1, False),
        (5, 2, 2, 0, 1, True),
        (7, 3, 2, 1, 1, False),
        (7, 3, 3, 1, 2, False),
        (6, 3, 2, 1, 1, True),
    ],
)
def test_max_pooling_sums_the_values_of_its_windows(
    size: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool
) -> None:
    pool = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil)
    side = pool(torch.zeros(1, 1, size, size)).shape[2]
    torch.manual_seed(0)
    linear = nn.Linear(side * side, 1, bias=False)
    weight = linear.weight.detach().abs().view(side, side)
    expected = 0.0
    for row, column, down, right in product(range(side), range(side), range(kernel), range(kernel)):
        y, x = (start * stride - padding + step * dilation for start, step in ((row, down), (column, right)))
        expected += float(weight[row, column]) if 0 <= y < size and 0 <= x < size else 0.0
    assert path_norm(nn.Sequential(pool, nn.Flatten(), linear), (1, size, size)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("pool", "sides"),
    [
        (nn.AvgPool2d(2, 2, ceil_mode=True), (2, 2, 1)),
        (nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), (2, 2, 1)),
        (nn.AdaptiveAvgPool2d(2), (3, 3)),
        (nn.AdaptiveAvgPool2d(1), (5,)),
    ],
)
def test_average_pooling_of_k_values_has_weights_of_one_kth(pool: nn.Module, sides: tuple[int, ...]) -> None:
    windows = [height * width for height, width in product(sides, sides)]
    expected = sum(size * (1 / size) ** 2 for size in windows) ** 0.5
    assert path_norm(nn.Sequential(pool, nn.Flatten()), (1, 5, 5), 2) == pytest.approx(expected)


def test_a_chain_without_biases_has_synflow_as_many_times_as_it_has_layers() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2, bias=False)
    )
    for layer in model:
        layer.register_parameter("bias", None)
    _, synflow = proxy("synflow")
    task = Task(kind=IMAGE_CLASSIFICATION, input_shape=(1, 4, 4), outputs=2)
    batch = Batch((torch.zeros(2, 1, 4, 4),), torch.zeros(2, dtype=torch.int64))
    (value,) = synflow.score(ForwardPass(lambda: model, batch, lambda output, batch: output.mean(), task)).values()
    assert value == pytest.approx(3 * path_norm(model, (1, 4, 4)))


def _without_input(image: Tensor) -> Tensor:
    return torch.zeros_like(image)


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (SqueezeExcite(2, 1), "no ReLU network"),
        (Apply(lambda x: x * torch.softmax(x, 1)), "no ReLU network"),
        (nn.Sequential(nn.Conv2d(2, 2, 3), nn.GroupNorm(1, 2)), "no ReLU network"),
        (nn.BatchNorm2d(2, track_running_stats=False), "no running statistics"),
        (nn.MaxPool2d(2, return_indices=True), "max_pool2d_with_indices"),
        (Apply(_without_input), "no path leads"),
    ],
)
def test_what_is_no_relu_network_is_refused(layer: nn.Module, reason: str) -> None:
    torch.manual_seed(0)
    tail = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    with pytest.raises(Unscorable, match=reason):
        path_norm(nn.Sequential(layer, tail), (2, 4, 4))


def test_nasbench201_networks_are_covered_and_other_activations_count_as_relu() -> None:
    space = NasBench201()
    text = "|nor_conv_3x3~0|+|avg_pool_3x3~0|skip_connect~1|+|nor_conv_1x1~0|none~1|nor_conv_3x3~2|"
    task = Task(kind=IMAGE_CLASSIFICATION, input_shape=(1, 8, 8), outputs=2)
    model = space.build(space.from_text(text), task, space.Size(channels=2, cells=1))
    assert 0 < path_norm(model, (1, 8, 8), 2) < path_norm(model, (1, 8, 8), 1)
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)]
    values = {path_norm(nn.Sequential(layers[0], act(), *layers[1:]), (1, 4, 4)) for act in (nn.ReLU, nn.GELU, nn.Tanh)}
    assert len(values) == 1
