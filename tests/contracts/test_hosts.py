"""Every listed host keeps the contract; a new one is tested by being listed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from nas_core.errors import UsageError
from nas_core.space import HasHosts
from nas_core.task import Task
from search_spaces.evonorm.layer import EvoNormLayer
from search_spaces.evonorm.space import EvoNorm
from search_spaces.hosts import HOSTS
from search_spaces.hosts.network import HostSize, default_host, host_network
from search_spaces.hosts.slot import ChannelsLast
from training.networks import build
from training.tasks import example_tasks, kind_of

SPACE = EvoNorm()
TASKS = list(example_tasks())
LAYERS = ("bn-relu", "gn-silu", "evonorm-b0", "evonorm-s0", "evonorm-s1", "evonorm-b2")
PLACES = [(name, task) for name, host in HOSTS.items() for task in TASKS if task.kind in host.kinds]
# Each host once.
FIRST = [(name, next(task for task in TASKS if task.kind in host.kinds)) for name, host in HOSTS.items()]


def label(value: object) -> str:
    return str(value.input_shape) if isinstance(value, Task) else str(value)


def named(layer: str, host: str, task: Task, seed: int = 0) -> nn.Module:
    return build(SPACE, SPACE.named[layer], task, HostSize.preset("search", host=host), seed)


def inputs(task: Task) -> tuple[Tensor, ...]:
    return tuple(example_tasks()[task])


def layers(network: nn.Module) -> Iterator[tuple[str, EvoNormLayer]]:
    return ((name, module) for name, module in network.named_modules() if isinstance(module, EvoNormLayer))


def test_every_host_learns_something() -> None:
    assert {name for name, _ in PLACES} == set(HOSTS)
    assert isinstance(SPACE, HasHosts)
    assert SPACE.tasks == {task.kind for _, task in PLACES}
    for task in TASKS:
        found = SPACE.hosts(task)
        assert found == [name for name, one in PLACES if one == task]
        if found:
            assert default_host(task) == found[0]
        else:
            with pytest.raises(UsageError, match=f"no host learns {task.kind}"):
                default_host(task)


@pytest.mark.parametrize(("host", "task"), PLACES, ids=label)
def test_shapes_and_seeds(host: str, task: Task) -> None:
    """An answer per sample, whatever their number; weights, and with them answers, depend on the seed alone."""
    network = named("bn-relu", host, task).eval()
    [wanted] = {len(inputs(task)[0])}
    assert network(*inputs(task)).shape == (wanted, task.outputs)
    again, other = named("bn-relu", host, task).eval(), named("bn-relu", host, task, 1).eval()
    assert torch.equal(network(*inputs(task)), again(*inputs(task)))
    assert not torch.equal(network(*inputs(task)), other(*inputs(task)))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("host", "task"), FIRST, ids=label)
def test_a_step_reaches_every_layer(host: str, task: Task, layer: str) -> None:
    """Every parameter but the shifts that a normalisation takes out again moves, and the loss goes down."""
    network = named(layer, host, task)
    found = list(layers(network))
    assert found
    given = inputs(task)
    target = torch.arange(len(given[0])) % task.outputs
    if task.kind.endswith("regression"):
        target = torch.randn(len(target), task.outputs, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.SGD(network.parameters(), 0.02, momentum=0.9)
    losses = []
    torch.manual_seed(0)
    for _ in range(8):
        loss = kind_of(task).loss(network(*given), target)
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        if len(losses) == 1:
            for name, module in found:
                assert module.weight.grad is not None, name
                assert float(module.weight.grad.abs().max()) > 0, name
        optimizer.step()
    assert all(map(torch.isfinite, map(torch.tensor, losses)))
    assert min(losses[-3:]) < losses[0]


@pytest.mark.parametrize(("host", "task"), FIRST, ids=label)
def test_slots_see_samples_channels_and_positions(host: str, task: Task) -> None:
    """Layers get `[n, channels, *positions]`, with as many dimensions of positions as the host says."""
    network, seen = named("evonorm-s0", host, task), []
    for _, module in layers(network):
        module.register_forward_pre_hook(lambda layer, args: seen.append((args[0].dim() - 2, args[0].shape[1], layer)))
    network(*inputs(task))
    assert len(seen) == len(list(layers(network)))
    for positions, channels, layer in seen:
        assert positions == HOSTS[host].positions
        assert channels == len(layer.weight)


@pytest.mark.parametrize(("host", "task"), FIRST, ids=label)
def test_places_without_activation_are_normalised_by_the_family(host: str, task: Task) -> None:
    """As many normalisations of torch as places that have no activation, all of the layer's family."""
    asked: list[bool] = []

    class Watched(nn.Identity):
        def __init__(self, channels: int) -> None:
            super().__init__()
            asked.append(True)

    for batch in (True, False):
        asked.clear()
        network = host_network(HostSize(host=host), task, Watched, batch)
        batches = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
        groups = [module for module in network.modules() if isinstance(module, nn.GroupNorm)]
        assert (groups if batch else batches) == []
        assert len(batches or groups) == {"mobilenet": 3, "efficientnet": 3, "vit": 4}.get(host, 0)
        network(*inputs(task))
        assert len(asked) == len([module for module in network.modules() if isinstance(module, Watched)])


@pytest.mark.parametrize(("host", "task"), FIRST, ids=label)
def test_full_size_is_larger(host: str, task: Task) -> None:
    def params(scale: str) -> int:
        with torch.device("meta"):
            made = SPACE.build(SPACE.named["gn-relu"], task, HostSize.preset(scale, host=host))
        return sum(parameter.numel() for parameter in made.parameters())

    assert params("full") > 3 * params("search")


@pytest.mark.parametrize(("host", "task"), FIRST, ids=label)
def test_networks_are_exportable(host: str, task: Task) -> None:
    network = named("evonorm-b0", host, task)
    if len(task.inputs) == 1:
        network.eval()
        program = torch.export.export(network, inputs(task)).module()
        torch.testing.assert_close(program(*inputs(task)), network(*inputs(task)))


def test_channels_last_of_tokens_and_of_a_graph() -> None:
    """Moments of a sample's channel are over its tokens, and of a graph over its nodes."""
    layer = nn.InstanceNorm1d(5)
    tokens, nodes = torch.randn(3, 7, 5), torch.randn(7, 5)
    for made, x, over in ((ChannelsLast(layer), tokens, 1), (ChannelsLast(layer, graph=True), nodes, 0)):
        y = made(x)
        assert y.shape == x.shape
        torch.testing.assert_close(y.mean(over), torch.zeros_like(y.mean(over)), atol=1e-5, rtol=0)


def test_sizes() -> None:
    images = next(task for task in TASKS if task.kind in HOSTS["vgg"].kinds)
    size = HostSize.preset("full", depth=1).fitted(images)
    assert size == HostSize(host="resnet", scale="full", width=48, depth=1, stages=3)
    assert size.at("vgg").fitted(images) == HostSize(host="vgg", scale="full", width=64, depth=1, stages=3)
    assert size.at("vgg").fitted(images).at("resnet").fitted(images) == size
    assert str(HostSize.parse(str(size))) == str(size)
    old = {"width": 8, "depth": 1, "stages": 2}
    assert HostSize.parse(old).model_dump(mode="json") == old


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (HostSize(host="resnte"), "did you mean 'resnet'"),
        (HostSize(host="gcn"), "host 'gcn' learns node-classification.*use resnet"),
        (HostSize(host="vit", stages=2), "host 'vit' has no stages"),
    ],
)
def test_sizes_of_no_host(size: HostSize, message: str) -> None:
    images = next(task for task in TASKS if task.kind in HOSTS["vgg"].kinds)
    with pytest.raises(UsageError, match=message):
        SPACE.build(SPACE.named["bn-relu"], images, size)
