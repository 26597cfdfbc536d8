"""Every relaxable space keeps the contract of a supernet, every other one says why it has none."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import pytest

import search_spaces
from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.config import SizeConfig
from nas_core.errors import UsageError
from nas_core.relax import Mix, Style, not_relaxable
from nas_core.space import SearchSpace
from nas_core.task import GRAPH_CLASSIFICATION, IMAGE_CLASSIFICATION, NODE_CLASSIFICATION, Task, graph_task
from nas_core.testing.findings import Reference
from training.tasks import example_tasks, sample_inputs

if TYPE_CHECKING:
    from torch import Tensor, nn

    from search_spaces.supernet.supernet import Supernet

IMAGES = Task(kind=IMAGE_CLASSIFICATION, input_shape=(2, 8, 8), outputs=3)
GRAPH = Task(kind=NODE_CLASSIFICATION, input_shape=(20,), outputs=3, nodes=30, edges=60)
GRAPHS = graph_task(5, 3, 9, 20, kind=GRAPH_CLASSIFICATION, level="graph")
EXAMPLE = f"{Path(__file__).resolve().parents[2] / 'examples' / 'my_space.py'}:space"
NOTHING = frozenset({"none"})  # candidates that add nothing, whose weight does not matter


def load(text: str) -> SearchSpace:
    space: SearchSpace = Reference(text, search_spaces.BUILTIN, search_spaces.GROUP, "space").load()
    return space


@dataclass(frozen=True)
class Case:
    """A space with a small size, and a task."""

    text: str
    size: Mapping[str, float]
    task: Task
    seed: int = 0

    @property
    def space(self) -> SearchSpace:
        return load(self.text)

    @property
    def sized(self) -> SizeConfig:
        return self.space.Size.preset("search", **self.size)

    def supernet(self, seed: int = 0, style: Style = Style.SUPERNET) -> Supernet:
        import torch

        from search_spaces.supernet.supernet import Supernet

        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return Supernet(self.space, self.task, self.sized, style)

    def architectures(self, count: int) -> list[Architecture]:
        rng = numpy.random.default_rng(self.seed)
        return [moves.sample(self.space, rng) for _ in range(count)]


CASES = (
    Case("nasbench201", {"channels": 4, "cells": 1}, IMAGES),
    Case("nasbench_graph", {"hidden": 8}, GRAPH),
    Case("gnas", {"hidden": 6}, GRAPH),
    Case(
        "gnas(layers=2, operators=('gcn', 'sage'), aggregators=('sum', 'std'), encodings=('random-walk(features=3)',))",
        *({"hidden": 6}, GRAPH),
    ),
    Case("argnp(vertices=3)", {"node": 5, "relation": 4, "node_output": 6, "relation_output": 4}, GRAPHS),
    Case("darts", {"channels": 4, "layers": 4}, IMAGES),
    Case("darts(levels=3)", {"channels": 4, "layers": 5}, IMAGES),
)


@pytest.fixture(params=CASES, ids=lambda case: case.text)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture
def supernet(case: Case) -> Supernet:
    return copy.deepcopy(prepared(CASES.index(case)))


@cache
def prepared(number: int) -> Supernet:
    """With running statistics of its own maps: with others, the rectifiers of deep cells may all be shut."""
    import torch

    case = CASES[number]
    made = case.supernet()
    made.train()
    norms = [module for module in made.modules() if hasattr(module, "running_mean")]
    with torch.no_grad():
        for seed, momentum in enumerate((1.0, 0.1)):
            for norm in norms:
                norm.momentum = momentum
            made(sample_inputs(case.task, 4), made.mix(soft(made, seed)))
    return made.eval()


def soft(supernet: Supernet, seed: int = 0, dtype: str = "float32") -> dict[str, Tensor]:
    """Weights without a favourite; leaves, for their gradients."""
    import torch

    random = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(len(group.options), generator=random, dtype=getattr(torch, dtype)).softmax(0).requires_grad_()
        for name, group in supernet.groups.items()
    }


def one_hot(supernet: Supernet, arch: Architecture) -> dict[str, Tensor]:
    """1 for what is taken; all 0 where nothing is."""
    import torch

    assignment = supernet.space.assignment(arch)
    return {
        name: torch.tensor([float(option == assignment[name]) for option in group.options])
        for name, group in supernet.groups.items()
    }


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def test_one_hot_scores_derive_the_architecture(case: Case, supernet: Supernet) -> None:
    for arch in case.architectures(25):
        derived = supernet.derive(one_hot(supernet, arch))
        assert case.space.illegal(derived) is None
        assert case.space.identity(derived) == case.space.identity(arch)


def test_any_scores_derive_a_legal_architecture(case: Case, supernet: Supernet) -> None:
    import torch

    for seed in range(25):
        assert case.space.illegal(supernet.derive(soft(supernet, seed))) is None
    for position in range(max(len(group.options) for group in supernet.groups.values())):
        alike = {
            name: torch.arange(len(group.options)).eq(position % len(group.options)).float()
            for name, group in supernet.groups.items()
        }
        assert case.space.illegal(supernet.derive(alike)) is None


def test_a_path_is_the_extracted_network(case: Case, supernet: Supernet) -> None:
    import torch

    inputs = sample_inputs(case.task, 4)
    with torch.no_grad():
        for arch in case.architectures(4):
            extracted = supernet.extract(arch)
            assert not extracted.training
            path = supernet(inputs, supernet.mix_of(arch))
            torch.testing.assert_close(path, extracted(*inputs), atol=1e-5, rtol=1e-5)
            mixed = supernet(inputs, supernet.mix(one_hot(supernet, arch)))
            torch.testing.assert_close(mixed, path, atol=1e-5, rtol=1e-5)


def test_a_path_trains_as_the_extracted_network(case: Case, supernet: Supernet) -> None:
    """In training mode: the same output, and the same statistics afterwards."""
    import torch

    inputs, arch = sample_inputs(case.task, 4), case.architectures(1)[0]
    extracted = supernet.train().extract(arch)
    assert extracted.training
    outputs = []
    for run in (partial(supernet, inputs, supernet.mix_of(arch)), partial(extracted, *inputs)):
        torch.manual_seed(0)  # dropout draws the same
        outputs.append(run())
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
    again = supernet.extract(arch).state_dict()
    for name, tensor in extracted.state_dict().items():
        torch.testing.assert_close(again[name], tensor, msg=name)


def test_extracted_networks_have_the_shapes_of_built_ones(case: Case, supernet: Supernet) -> None:
    from nas_core.relax import FixedPicker
    from search_spaces.supernet.supernet import relaxable

    space, full = case.space, case.supernet(style=Style.STANDALONE)
    for arch in case.architectures(4):
        built = relaxable(space).network(FixedPicker(space.assignment(arch), Style.SUPERNET), case.task, case.sized)
        assert shapes(supernet.extract(arch)) == shapes(built)
        assert shapes(full.extract(arch)) == shapes(space.build(arch, case.task, case.sized))


def test_extracting_copies(case: Case, supernet: Supernet) -> None:
    import torch

    state = torch.get_rng_state()
    extracted = supernet.extract(case.architectures(1)[0])
    assert torch.equal(torch.get_rng_state(), state)
    shared = {tensor.untyped_storage().data_ptr() for tensor in supernet.state_dict().values()}
    assert not shared & {tensor.untyped_storage().data_ptr() for tensor in extracted.state_dict().values()}


def test_candidates_that_are_not_run_stay_as_they_are(case: Case, supernet: Supernet) -> None:
    """To the bit, although decay and momentum would move them."""
    import torch

    from search_spaces.supernet.picker import MixedOp

    inputs, arch = sample_inputs(case.task, 4), case.architectures(1)[0]
    optimizer = torch.optim.SGD(supernet.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    supernet.train()
    supernet(inputs, supernet.mix(soft(supernet))).square().mean().backward()
    optimizer.step()
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    supernet.zero_grad(set_to_none=True)
    mix = supernet.mix_of(arch)
    supernet(inputs, mix).square().mean().backward()
    optimizer.step()
    unused = [
        f"{place}.operations.{position}."
        for place, mixed in supernet.named_modules()
        if isinstance(mixed, MixedOp)
        for position in range(len(mixed.operations))
        if position not in mix.active[mixed.route.name]
    ]
    assert unused
    moved = set()
    for name, tensor in supernet.state_dict().items():
        if name.startswith(tuple(unused)):
            assert torch.equal(tensor, before[name]), name
        elif not torch.equal(tensor, before[name]):
            moved.add(name)
    assert moved
    for name, parameter in supernet.named_parameters():
        if name.startswith(tuple(unused)):
            assert parameter.grad is None, name
        assert (parameter.grad is not None) == (name in moved), name


def test_gradients_reach_every_weight_that_matters(case: Case, supernet: Supernet) -> None:
    """In training mode, and they agree with differences, in float64."""
    import torch

    def loss(weights: Mapping[str, Tensor]) -> Tensor:
        torch.manual_seed(0)  # dropout draws the same
        output: Tensor = supernet(inputs, supernet.mix(weights))
        return output.square().sum()

    supernet.double().train()
    inputs = tuple(x.double() if x.is_floating_point() else x for x in sample_inputs(case.task, 4))
    weights = soft(supernet, dtype="float64")
    loss(weights).backward()
    for name, group in supernet.groups.items():
        gradient = weights[name].grad
        assert gradient is not None, name
        matters = torch.tensor([option not in NOTHING for option in group.options])
        assert (gradient[matters].abs() > 1e-9).all(), (name, gradient)
    random = torch.Generator().manual_seed(0)
    for name in list(weights)[:: max(1, len(weights) // 6)]:
        gradient = weights[name].grad
        assert gradient is not None
        direction = torch.randn(len(gradient), generator=random, dtype=torch.float64)
        with torch.no_grad():
            ahead, behind = (loss({**weights, name: weights[name] + step * direction}) for step in (1e-6, -1e-6))
        assert float(gradient @ direction) == pytest.approx(float(ahead - behind) / 2e-6, rel=1e-3, abs=1e-5), name


def test_weights_that_are_numbers_get_gradients(case: Case, supernet: Supernet) -> None:
    """`Mix.scalars`: the weights of what is not run are added, so that a zero changes nothing and has a gradient; also
    where the operation that is run is none."""
    import torch

    inputs, arch = sample_inputs(case.task, 4), case.architectures(1)[0]
    path = supernet.mix_of(arch)
    weights = {name: tensor.requires_grad_() for name, tensor in one_hot(supernet, arch).items()}
    none = {name: (group.options.index("none"),) for name, group in supernet.groups.items() if "none" in group.options}
    active = {name: positions or none.get(name, ()) for name, positions in path.active.items()}
    scalars = {
        name: tuple(position for position in range(len(group.options)) if position not in active[name])
        for name, group in supernet.groups.items()
        if active[name]
    }
    output = supernet(inputs, Mix(active, weights, scalars))
    torch.testing.assert_close(output, supernet(inputs, path), atol=1e-5, rtol=1e-5)
    output.sum().backward()
    reached = [name for name in scalars if weights[name].grad is not None and weights[name].grad.abs().sum() > 0]
    assert reached


def test_a_supernet_is_a_function(case: Case, supernet: Supernet) -> None:
    """Of its seed; of inputs and mix; and nothing of a mix is left behind, also where a pass fails."""
    import torch

    one, same, other = case.supernet(1), case.supernet(1), case.supernet(2)
    state = one.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in same.state_dict().items())
    assert not all(torch.equal(tensor, state[name]) for name, tensor in other.state_dict().items())
    assert tuple(one.groups) == tuple(same.groups)

    inputs, mix = sample_inputs(case.task, 4), supernet.mix(soft(supernet))
    with torch.no_grad():
        output = supernet(inputs, mix)
        supernet(inputs, supernet.mix_of(case.architectures(1)[0]))
        assert torch.equal(supernet(inputs, mix), output)
        with pytest.raises(KeyError):
            supernet(inputs, Mix({}))
        with pytest.raises(RuntimeError, match="told how to mix"):
            supernet.network(*inputs)


def test_costs_add_up_or_are_refused(case: Case, supernet: Supernet) -> None:
    decides_widths = {"nasbench_graph": "topology", "argnp(vertices=3)": "vertices"}
    if case.text in decides_widths:
        with pytest.raises(UsageError, match=f"{case.space.name}.*{decides_widths[case.text]}") as caught:
            supernet.costs("params")
        assert len(str(caught.value).splitlines()) == 1
        return
    costs = supernet.costs("params")
    for arch in case.architectures(4):
        built = case.space.build(arch, case.task, case.sized)
        params = sum(parameter.numel() for parameter in built.parameters())
        assert costs.of(case.space.assignment(arch), supernet.groups) == params


# -- spaces that are not relaxable -------------------------------------------------------------------


@pytest.mark.parametrize("text", [*search_spaces.BUILTIN, EXAMPLE], ids=lambda text: Path(text).name)
def test_every_space_is_relaxed_or_refused(text: str) -> None:
    from search_spaces.supernet.supernet import Supernet

    space = load(text)
    reason = not_relaxable(space)
    if reason is None:
        assert text in [case.text.partition("(")[0] for case in CASES], "list it in CASES"
        return
    task = next(task for task in example_tasks() if task.kind in space.tasks)
    with pytest.raises(UsageError) as caught:
        Supernet(space, task, space.Size())
    message = str(caught.value)
    assert f"space '{space.name}' is not relaxable: {reason}" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(("text", "reason"), [("regnet", "width"), ("ae-cnn", "length"), ("nasnet", "concatenates")])
def test_reasons(text: str, reason: str) -> None:
    found = not_relaxable(load(text))
    assert found is not None
    assert reason in found


def test_what_is_no_cost_is_refused() -> None:
    with pytest.raises(UsageError, match="latency"):
        CASES[0].supernet().costs("latency")


def test_groups_know_what_their_candidates_are() -> None:
    """Skips of stride 2, which have weights, too."""
    from search_spaces.darts.space import Darts
    from search_spaces.nasbench201.space import NasBench201
    from search_spaces.nasbench_graph.space import NasBenchGraph
    from search_spaces.supernet.supernet import Supernet

    images = Task(kind=IMAGE_CLASSIFICATION, input_shape=(3, 8, 8), outputs=10)
    graph = Task(kind=NODE_CLASSIFICATION, input_shape=(8,), outputs=3, nodes=10, edges=20)
    for space, task, size in (
        (NasBench201(), images, {"channels": 4, "cells": 1}),
        (Darts(), images, {"channels": 4, "layers": 3}),
        (NasBenchGraph(), graph, {"hidden": 8}),
    ):
        for group in Supernet(space, task, space.Size(**size)).groups.values():
            if group.name == "topology":
                continue
            names = dict(zip(group.options, zip(group.weighted, group.zero, group.skip, strict=True), strict=True))
            for name, (weighted, zero, skip) in names.items():
                assert zero == (name == "none")
                assert skip == (name in ("skip", "skip_connect"))
                assert weighted == (not zero and not skip and "pool" not in str(name))


def test_none_is_passed_over_on_demand() -> None:
    import torch

    from search_spaces.nasbench201.space import NasBench201
    from search_spaces.supernet.supernet import Supernet

    task = Task(kind=IMAGE_CLASSIFICATION, input_shape=(3, 8, 8), outputs=10)
    supernet = Supernet(NasBench201(), task, NasBench201.Size(channels=2, cells=1))
    scores = {name: torch.tensor([0.5, 0.1, 0.3, 0.1, 0.0]) for name in supernet.groups}
    assert set(supernet.derive(scores).values.values()) == {"none"}
    assert set(supernet.derive(scores, none=False).values.values()) == {"nor_conv_1x1"}
