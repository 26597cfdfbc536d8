"""Experts by the task of a sample: who decides, and the network of one task, bit for bit as in the whole one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.choice import Value
from nas_core.errors import UsageError
from nas_core.parts import head_number, task_network
from nas_core.task import image_task, multi_task
from search_spaces.counter import params
from search_spaces.layers.moe import MixtureOfExperts
from search_spaces.moe.of_task import of_task
from search_spaces.moe.space import Moe, Size
from search_spaces.operators.routers.attributes import Attributes
from training.tasks.multi_task import DIGITS, ranges_of

TASK = multi_task((1, 8, 8), DIGITS)
SPACE = Moe("tasks")
CHOSEN = [("task", 1), ("task", 2), ("task", 4), ("attributes", 1), ("attributes", 2)]
MIXED: dict[str, Value] = {"expert": "mixed", "experts": 32}  # of the third kind 5, which begin at 12
MERGED = 1e-5  # of the largest logit: what merging before instead of in each pass may round away


def arch_of(ffn: str, **values: Value) -> Architecture:
    return moves.complete(SPACE, {"ffn": ffn, "experts": 8, "depth": 2, **values}, moves.first)


def built(arch: Architecture) -> nn.Module:
    """With weights unlike those of a new network, whose biases may be small and whose routers undecided."""
    torch.manual_seed(0)
    network = SPACE.build(arch, TASK, Size(width=16)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


def answers(network: nn.Module, x: Tensor, number: int) -> Tensor:
    """Of the whole network for one task."""
    outputs = ranges_of(TASK.heads)[number]
    return network(x, torch.full((len(x),), number))[:, outputs.start : outputs.stop]


@pytest.mark.parametrize(("router", "active"), CHOSEN)
@pytest.mark.parametrize(
    "values", [{}, {"shared": 1, "layers": 2}, {"expert": "pade"}, {"expert": "rational"}, MIXED], ids=str
)
@torch.no_grad()
def test_chosen_experts_give_the_same_bits_alone(router: str, active: int, values: dict[str, Value]) -> None:
    network = built(arch_of(router, active=active, **values))
    for number in range(len(DIGITS)):
        part = of_task(network, number)
        for samples in (1, 7):
            x = torch.randn(samples, 1, 8, 8)
            assert torch.equal(part(x), answers(network, x, number))


@torch.no_grad()
def test_merged_experts_are_one_dense_layer_alone() -> None:
    network = built(arch_of("smear-task"))
    for number in range(len(DIGITS)):
        part = of_task(network, number)
        x = torch.randn(7, 1, 8, 8)
        wanted = answers(network, x, number)
        assert (part(x) - wanted).abs().max() <= MERGED * wanted.abs().max()
        for layer in (module for module in part.modules() if isinstance(module, MixtureOfExperts)):
            assert all(len(one) == 1 for one in layer.experts.parameters())


@pytest.mark.parametrize(("router", "active"), [*CHOSEN, ("smear-task", 1)])
def test_the_network_of_a_task_is_what_is_shared_and_its_experts(router: str, active: int) -> None:
    counted = {} if router == "smear-task" else {"active": active}
    network = built(arch_of(router, **counted))
    layers = [module for module in network.modules() if isinstance(module, MixtureOfExperts)]
    routers = sum(params(layer.router) for layer in layers)
    idle = sum((8 - active) / 8 * params(layer.experts) for layer in layers)
    others = sum(params(head) for number, head in enumerate(network.heads) if number != 1)
    assert params(of_task(network, 1)) == params(network) - routers - idle - others


@pytest.mark.parametrize("router", ["task", "attributes", "smear-task", "mmoe"])
@torch.no_grad()
def test_what_is_asked_decides(router: str) -> None:
    """Of the features, not of the heads alone; and the tasks of other samples are nothing to one."""
    network, x = built(arch_of(router)), torch.randn(6, 1, 8, 8)
    first, second = (network(x, torch.full((6,), number)) for number in (0, 1))
    assert (first - second).abs().max() > 1e-3
    mixed = network(x, torch.tensor([0, 1, 2, 0, 1, 2]))
    assert torch.allclose(mixed[[0, 3]], first[[0, 3]], atol=1e-5)
    assert torch.allclose(mixed[[1, 4]], second[[1, 4]], atol=1e-5)


def test_every_task_has_attributes_of_its_own() -> None:
    router = Attributes(16, 4, 1, attributes=3, tasks=7)
    assert router.codes.tolist() == [[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1]]
    with pytest.raises(UsageError, match="3 attributes tell 7 tasks, not 8"):
        Attributes(16, 4, 1, attributes=3, tasks=8)


def test_the_known_layout_of_task_level_experts() -> None:
    arch = SPACE.named["task-moe"]
    network = SPACE.build(arch, TASK, Size(width=8))
    layers = [module for module in network.modules() if isinstance(module, MixtureOfExperts)]
    assert [(len(layer.loads), layer.router.active) for layer in layers] == [(32, 2)] * 2
    assert "task-moe" in Moe("patches").left_out


@pytest.mark.parametrize("task", [image_task((1, 8, 8), 10), multi_task((1, 8, 8), DIGITS, told=False)])
def test_without_tasks_there_is_no_such_network(task: object) -> None:
    with pytest.raises(UsageError, match="needed are images and the numbers of their tasks"):
        SPACE.build(arch_of("task"), task, Size(width=8))  # type: ignore[arg-type]


def test_networks_whose_routers_look_at_tokens_are_not_cut() -> None:
    for router in ("task", "attributes", "smear-task"):
        assert SPACE.why_no_task_network(arch_of(router)) is None
    assert SPACE.why_no_task_network(SPACE.named["dense"]) is None
    for router in ("switch", "smear", "mmoe", "softmax"):
        network = built(arch_of(router))
        with pytest.raises(UsageError, match=f"router {router} goes by the tokens .* are smear-task, task, attributes"):
            task_network(SPACE, network, arch_of(router), TASK, "task=parity")
    patches = Moe("patches")
    assert "networks of the backbone patches are not told" in str(patches.why_no_task_network(patches.named["dense"]))
    with pytest.raises(UsageError, match="has one task; leave it out"):
        head_number(image_task((1, 8, 8), 10), "task=parity")
