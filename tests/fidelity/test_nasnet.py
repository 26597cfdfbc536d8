"""NASNet: counts, published cells and sizes, costs, ScheduledDropPath, auxiliary head, functional identity."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from nas_core import moves, tokens
from nas_core.architecture import Architecture
from nas_core.config import SizeConfig
from nas_core.errors import UsageError
from nas_core.seeds import generator
from nas_core.space import HasCosts, HasNamed, HasNotation
from nas_core.task import IMAGE_CLASSIFICATION, NODE_CLASSIFICATION, Task
from search_spaces.layers.drop_path import DropPath
from search_spaces.nasnet import plan
from search_spaces.nasnet import space as nasnet
from search_spaces.nasnet.network import OPERATORS, NASNetwork
from search_spaces.nasnet.space import ADD, CELLS, COMBINATIONS, OPERATIONS, Block, Cell, NASNet, Size, unread
from search_spaces.operators.conv.full import ConvBN
from search_spaces.operators.conv.halving import FactorisedReduction
from search_spaces.operators.conv.split import Split
from search_spaces.operators.conv.stacked import Separable
from training.cost import params

SPACE = NASNet()
NASNET_A, AMOEBANET_A = SPACE.named["NASNet-A"], SPACE.named["AmoebaNet-A"]
FULL = Size.preset("full")
TINY = Size(cells=1, filters=48, stem_filters=3)  # cells of 2, 4 and 8 filters
MOBILE = Size(cells=4, filters=1056, stem="imagenet", stem_filters=32)
LARGE = Size(cells=6, filters=4032, stem="imagenet", stem_filters=96)

architectures = st.tuples(*[st.sampled_from(choice.options) for choice in SPACE.choices]).map(
    lambda values: Architecture(SPACE.name, dict(zip([choice.name for choice in SPACE.choices], values, strict=True)))
)


def images(channels: int = 3, height: int = 32, width: int = 32, classes: int = 10) -> Task:
    return Task(kind=IMAGE_CLASSIFICATION, input_shape=(channels, height, width), outputs=classes)


def of(normal: str, reduction: str) -> Architecture:
    """The architecture of two cells of any number of blocks."""
    return NASNet(blocks=1 + normal.count("|")).from_text(f"normal={normal} reduction={reduction}")


def sampled(count: int) -> list[Architecture]:
    return [moves.sample(SPACE, generator("nasnet", number)) for number in range(count)]


def pairs(cell: Cell) -> list[tuple[str, int]]:
    return [(name, state) for block in cell for state, name in block.paths]


# --- Counts (card: fidelity check 3) ------------------------------------------------------------------------------


def test_the_space_is_what_it_says() -> None:
    assert isinstance(SPACE, HasCosts)
    assert isinstance(SPACE, HasNamed)
    assert isinstance(SPACE, HasNotation)
    assert len(SPACE.choices) == 50
    assert len(OPERATIONS) == 13
    one_cell = math.factorial(6) ** 2 * 13**10
    assert one_cell == 518_400 * 137_858_491_849
    assert round(one_cell / 1e16, 1) == 7.1
    assert moves.size(SPACE) == (one_cell * 2**5) ** 2
    assert moves.size(NASNet(blocks=1)) == (2 * 2 * 13 * 13 * 2) ** 2


def test_choices_of_a_block() -> None:
    names = [choice.name for choice in SPACE.choices]
    assert names[:6] == [
        "normal/block0/input1",
        "normal/block0/input2",
        "normal/block0/operation1",
        "normal/block0/operation2",
        "normal/block0/combination",
        "normal/block1/input1",
    ]
    assert names[25] == "reduction/block0/input1"
    for position, choice in enumerate(SPACE.choices):
        block, part = position // 5 % 5, position % 5
        states = tuple(range(block + 2))
        assert choice.options == (states, states, OPERATIONS, OPERATIONS, COMBINATIONS)[part]
        assert choice.kind == ("input", "input", "operation", "operation", "combination")[part]


@given(architectures)
def test_a_decoded_cell_has_its_blocks_and_all_unread_states_leave_it(arch: Architecture) -> None:
    graph = SPACE.graph(arch)
    start = 0
    for cell in SPACE.cells(arch).values():
        assert len(cell) == 5
        output = start + 2 + 3 * 5
        states = [start, start + 1, *range(start + 4, output, 3)]
        read = {source for source, target in graph.edges if target < output}
        assert set(graph.parents(output)) == {state for state in states if state not in read}
        assert graph.parents(output)[-1] == output - 1  # nothing can read the last block
        start = output + 1
    assert start == len(graph.nodes)


@given(architectures)
def test_round_trips(arch: Architecture) -> None:
    assert SPACE.from_text(SPACE.to_text(arch)) == arch
    assert Architecture.from_json(arch.to_json()) == arch
    assert tokens.decode(SPACE, tokens.encode(SPACE, arch)) == arch
    assert SPACE.illegal(arch) is None
    canonical = SPACE.from_text(SPACE.identity(arch))
    assert SPACE.identity(canonical) == SPACE.identity(arch)


# --- Published architectures --------------------------------------------------------------------------------------

# As released with DARTS: (operation, state) of every pair, and the states that are concatenated.
RELEASED = {
    "NASNet-A": (
        "sep5 1, sep3 0, sep5 0, sep3 0, avg3 1, skip 0, avg3 0, avg3 0, sep3 1, skip 1",
        (2, 3, 4, 5, 6),
        "sep5 1, sep7 0, max3 1, sep7 0, avg3 1, sep5 0, skip 3, avg3 2, sep3 2, max3 1",
        (4, 5, 6),
    ),
    "AmoebaNet-A": (
        "avg3 0, max3 1, sep3 0, sep5 2, sep3 0, avg3 3, sep3 1, skip 1, skip 0, avg3 1",
        (4, 5, 6),
        "avg3 0, sep3 1, max3 0, sep7 2, sep7 0, avg3 1, max3 0, max3 1, 7x1 0, sep3 5",
        (3, 4, 6),
    ),
}
SHORT = {
    "skip": "identity",
    "7x1": "conv_1x7_7x1",
    "avg3": "avg_pool_3x3",
    "max3": "max_pool_3x3",
    **{f"sep{size}": f"sep_conv_{size}x{size}" for size in (3, 5, 7)},
}


@pytest.mark.parametrize("name", RELEASED)
def test_published_cells(name: str) -> None:
    """The concatenations of the release follow from the rule of the unread states."""
    assert list(SPACE.named) == list(RELEASED)
    released = RELEASED[name]
    for cell, text, joined in zip(SPACE.cells(SPACE.named[name]).values(), released[::2], released[1::2], strict=True):
        assert pairs(cell) == [(SHORT[part.split()[0]], int(part.split()[1])) for part in str(text).split(", ")]
        assert all(block.combination == ADD for block in cell)
        assert unread(cell) == joined


def test_parameters_of_nasnet_a_for_cifar() -> None:
    """The paper has 3.3 M. The authors' program concatenates one state more in each cell; see the next test."""
    costs = SPACE.costs(NASNET_A, images(), FULL)
    assert costs == {"params": 3_061_738, "macs": 483_842_304}
    assert abs(costs["params"] - 3.3e6) < 0.25e6
    assert SPACE.costs(AMOEBANET_A, images(), FULL)["params"] == 2_509_674


def test_published_sizes_with_the_concatenations_of_the_authors_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """h_{i-1} joins the normal cell's output, the second block that of the reduction cell, though both are read."""
    joined = dict(zip(SPACE.cells(NASNET_A).values(), ((0, 2, 3, 4, 5, 6), (3, 4, 5, 6)), strict=True))
    for module in (plan, nasnet):
        monkeypatch.setattr(module, "unread", lambda cell: joined[cell])
    cifar = SPACE.costs(NASNET_A, images(), FULL)
    assert cifar["params"] == 3_328_234  # 6 @ 768: 3.3 M
    mobile = SPACE.costs(NASNET_A, images(3, 224, 224, 1000), MOBILE)
    assert mobile["params"] == 5_287_076  # 4 @ 1056: 5.3 M
    assert abs(mobile["macs"] - 564e6) < 0.02 * 564e6
    large = SPACE.costs(NASNET_A, images(3, 331, 331, 1000), LARGE)
    assert abs(large["params"] - 88.9e6) < 0.2e6  # 6 @ 4032
    assert abs(large["macs"] - 23.8e9) < 0.05e9


# --- Costs --------------------------------------------------------------------------------------------------------


def every_operation() -> Iterator[Architecture]:
    """Two architectures with every operation in both cells, on inputs and on blocks; the second never reads h_{i-1}."""
    for first in (0, 3):
        names = (OPERATIONS[first:] + OPERATIONS)[:10]
        values = []
        for _, block in product(CELLS, range(5)):
            states = (min(1, first), block + 1 if block % 2 else 1)
            values += [*states, *names[2 * block : 2 * block + 2], COMBINATIONS[block % 2]]
        yield Architecture(SPACE.name, dict(zip([choice.name for choice in SPACE.choices], values, strict=True)))


@pytest.mark.parametrize(
    ("task", "size"),
    [
        (images(1, 7, 13, 3), TINY),
        (images(3, 32, 32, 10), Size(cells=1, filters=120, stem_filters=7, auxiliary=True)),
        (images(2, 33, 18, 5), Size(cells=1, filters=264, stem="imagenet", stem_filters=4, auxiliary=True)),
    ],
)
def test_costs_equal_the_built_network(task: Task, size: Size) -> None:
    for arch in [NASNET_A, AMOEBANET_A, *every_operation()]:
        with torch.device("meta"):
            network = SPACE.build(arch, task, size).eval()
            with FlopCounterMode(display=False) as counter:
                network(torch.empty(1, *task.input_shape))
        costs = {"params": params(network), "macs": counter.get_total_flops() / 2}
        assert SPACE.costs(arch, task, size) == costs


def test_the_auxiliary_head_costs_nothing_and_is_there() -> None:
    with torch.device("meta"):
        network = SPACE.build(NASNET_A, images(), FULL)
    everything = sum(parameter.numel() for parameter in network.parameters())
    # The normal cells of the second stage have 5 x 64 channels at 16 x 16; 4 x 4 are left after pooling.
    head = 320 * 128 + 2 * 128 + 16 * 128 * 768 + 2 * 768 + 769 * 10
    assert everything - head == params(network) == SPACE.costs(NASNET_A, images(), FULL)["params"]


# --- Layers -------------------------------------------------------------------------------------------------------


def test_separable_convolutions_are_applied_twice_with_nothing_between_depthwise_and_pointwise() -> None:
    layers = list(Separable(6, 2, 5))
    assert [type(layer) for layer in layers] == [
        *(nn.Conv2d, nn.Conv2d, nn.BatchNorm2d, nn.ReLU),
        *(nn.Conv2d, nn.Conv2d, nn.BatchNorm2d),
    ]
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert [layer.groups for layer in convolutions] == [6, 1, 6, 1]
    assert [layer.kernel_size for layer in convolutions] == [(5, 5), (1, 1), (5, 5), (1, 1)]
    assert [layer.stride for layer in convolutions] == [(2, 2), (1, 1), (1, 1), (1, 1)]


def test_kernels_of_the_other_operations() -> None:
    split = OPERATORS["conv_1x7_7x1"].make(4, 2)
    assert isinstance(split, Split)
    assert [layer.kernel_size for layer in split if isinstance(layer, nn.Conv2d)] == [(1, 7), (7, 1)]
    dilated = OPERATORS["dil_conv_3x3"].make(4, 1)
    assert isinstance(dilated, ConvBN)
    assert (dilated[0].kernel_size, dilated[0].dilation, dilated[0].groups) == ((3, 3), (2, 2), 1)
    assert OPERATORS["max_pool_7x7"].make(4, 2).kernel_size == 7
    assert OPERATORS["conv_1x1"].make(4, 2)[0].kernel_size == (1, 1)
    assert isinstance(OPERATORS["identity"].make(4, 1), nn.Identity)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("shape", [(9, 6), (1, 1), (2, 3)])
def test_every_operation_keeps_or_halves_the_resolution(name: str, shape: tuple[int, int]) -> None:
    x = torch.randn(2, 4, *shape)
    assert OPERATORS[name].make(4, 1)(x).shape == x.shape
    assert OPERATORS[name].make(4, 2)(x).shape == (2, 4, (shape[0] + 1) // 2, (shape[1] + 1) // 2)


def test_a_factorised_reduction_sees_even_and_odd_pixels() -> None:
    x = torch.randn(1, 3, 5, 6, requires_grad=True)
    layer = FactorisedReduction(3, 5).eval()
    layer(x).sum().backward()
    assert x.grad is not None
    seen = (x.grad != 0).all(dim=1)[0]
    rows, columns = torch.meshgrid(torch.arange(5), torch.arange(6), indexing="ij")
    assert torch.equal(seen, rows % 2 == columns % 2)


def test_wiring_of_a_cell() -> None:
    """Inputs, blocks and output of a cell against the formula, with the fitting layers taken out."""
    arch = of(
        "identity~0+max_pool_3x3~1|avg_pool_3x3~2+identity~2|identity~0+identity~1",
        "max_pool_3x3~1+avg_pool_3x3~1|identity~2+max_pool_5x5~2|identity~3+identity~3",
    )
    network = NASNet(blocks=3).build(arch, images(1, 8, 8), TINY).eval()
    normal, reduction = network.cells[0], network.cells[1]
    for cell in (normal, reduction):
        cell.fit_previous = cell.fit_current = nn.Identity()
    a, b = torch.rand(2, 2, 8, 8), torch.rand(2, 2, 8, 8)  # not negative: rectifying changes nothing
    first = a + functional.max_pool2d(b, 3, 1, 1)
    second = functional.avg_pool2d(first, 3, 1, 1, count_include_pad=False) + first
    torch.testing.assert_close(normal(a, b), torch.cat([second, a + b], dim=1))
    a, b = torch.rand(2, 4, 8, 8), torch.rand(2, 4, 8, 8)
    first = functional.max_pool2d(b, 3, 2, 1) + functional.avg_pool2d(b, 3, 2, 1, count_include_pad=False)
    third = 2 * (first + functional.max_pool2d(first, 5, 1, 2))
    expected = torch.cat([reduction.reductions["0"](a), third], dim=1)  # nobody reads h_{i-1}
    torch.testing.assert_close(reduction(a, b), expected)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 8, 8), (2, 1, 1), (1, 5, 9)])
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_forward_and_backward_for_any_image(shape: tuple[int, int, int], stem: str) -> None:
    size = TINY.model_copy(update={"stem": stem, "auxiliary": True, "drop_path": 0.3})
    for arch in [NASNET_A, AMOEBANET_A, *sampled(1)]:
        network = SPACE.build(arch, images(*shape, classes=7), size)
        x = torch.randn(4, *shape)
        logits, auxiliary = network(x)
        assert logits.shape == auxiliary.shape == (4, 7)
        (logits.sum() + network.auxiliary_weight * auxiliary.sum()).backward()
        assert network.stem[0].weight.grad is not None
        assert network.eval()(x).shape == (4, 7)


def test_resolutions_and_filters_of_the_stages() -> None:
    layers = SPACE.layers(NASNET_A, images(), Size(cells=2, filters=768))
    assert [layer.stride for layer in layers] == [1, 1, 2, 1, 1, 2, 1, 1]
    assert [layer.width for layer in layers] == [32, 32, 64, 64, 64, 128, 128, 128]
    assert [layer.output_shape[0] for layer in layers] == [32, 32, 16, 16, 16, 8, 8, 8]
    assert [layer.halve for layer in layers] == [False, False, False, True, False, False, True, False]
    stem = SPACE.layers(NASNET_A, images(3, 224, 224), Size(cells=1, filters=1056, stem="imagenet"))
    assert [layer.width for layer in stem] == [11, 22, 44, 88, 88, 176, 176]
    assert [layer.shape[0] for layer in stem] == [112, 56, 28, 28, 14, 14, 7]


@pytest.mark.parametrize("cells", [1, 3])
def test_the_auxiliary_head_reads_the_last_cell_of_the_second_stage(cells: int) -> None:
    size = TINY.model_copy(update={"cells": cells, "auxiliary": True})
    network = SPACE.build(AMOEBANET_A, images(1, 16, 16), size)
    assert network.auxiliary_weight == 0.4
    _, auxiliary = network(torch.randn(2, 1, 16, 16))
    auxiliary.sum().backward()
    reached = [any(weight.grad is not None for weight in cell.parameters()) for cell in network.cells]
    assert reached == [True] * (2 * cells + 1) + [False] * (cells + 1)
    assert isinstance(SPACE.build(AMOEBANET_A, images(1, 16, 16), TINY)(torch.randn(2, 1, 16, 16)), Tensor)


def test_export() -> None:
    """Concatenations, unread inputs and every kind of reduction, with a dynamic batch; the second head stays behind."""
    arch = of(
        "sep_conv_3x3~1&avg_pool_3x3~1|identity~2+conv_1x3_3x1~1", "identity~1&max_pool_3x3~1|conv_3x3~2+identity~2"
    )
    size = TINY.model_copy(update={"auxiliary": True, "drop_path": 0.2})
    network = NASNet(blocks=2).build(arch, images(1, 7, 7, 4), size).eval()
    x = torch.randn(3, 1, 7, 7)
    program = torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    torch.testing.assert_close(program.module()(x[:1]), network(x[:1]))


# --- ScheduledDropPath (card: fidelity check 5) -------------------------------------------------------------------


def test_the_probability_rises_linearly() -> None:
    drop = DropPath(0.4)
    assert drop.probability == 0
    for step, expected in ((0, 0.0), (50, 0.2), (100, 0.4)):
        drop.progress = step / 100
        assert drop.probability == pytest.approx(expected)
    assert not drop.state_dict()


def test_samples_are_dropped_as_a_whole_and_the_expectation_is_kept() -> None:
    torch.manual_seed(0)
    drop = DropPath(0.5)
    drop.progress = 0.6
    x = torch.rand(20_000, 2, 1, 3) + 1
    y = drop(x)
    kept = (y != 0).flatten(1)
    assert torch.equal(kept.all(dim=1), kept.any(dim=1))
    rows = kept.all(dim=1)
    torch.testing.assert_close(y[rows], x[rows] / 0.7)
    share = rows.double().mean().item()
    assert abs(share - 0.7) < 6 * math.sqrt(0.7 * 0.3 / 20_000)
    assert abs(y.mean().item() / x.mean().item() - 1) < 6 * math.sqrt(0.3 / 0.7 / 20_000)


def test_nothing_is_dropped_at_the_start_and_in_evaluation_mode() -> None:
    drop, x = DropPath(0.9), torch.rand(50, 3)
    assert torch.equal(drop(x), x)
    drop.progress = 1.0
    assert not torch.equal(drop(x), x)
    assert torch.equal(drop.eval()(x), x)
    for bad in (-0.1, 1.0, 1.5):
        with pytest.raises(ValueError, match=r"\[0, 1\)"):
            DropPath(bad)


def test_the_network_drops_the_paths_of_operations_but_identities() -> None:
    torch.manual_seed(0)
    arch = of("identity~1+max_pool_3x3~1", "identity~0+identity~1")
    size = TINY.model_copy(update={"drop_path": 0.999})
    network = NASNet(blocks=1).build(arch, images(1, 8, 8), size)
    drops = [module for module in network.modules() if isinstance(module, DropPath)]
    assert len(drops) == len(network.cells) == 5
    assert {drop.final_probability for drop in drops} == {0.999}
    cell = network.cells[0]
    cell.fit_previous = cell.fit_current = nn.Identity()
    a, b = torch.rand(4, 2, 8, 8), torch.rand(4, 2, 8, 8)
    torch.testing.assert_close(cell(a, b), torch.cat([a, b + functional.max_pool2d(b, 3, 1, 1)], dim=1))
    for drop in drops:
        drop.progress = 1.0
    torch.testing.assert_close(cell(a, b), torch.cat([a, b], dim=1))


# --- Identity -----------------------------------------------------------------------------------------------------


def renumbered(cell: Cell, order: Sequence[int], flips: Sequence[bool]) -> Cell | None:
    """The blocks in another order, some with their sides swapped; None where a block would read a later one."""
    new = {0: 0, 1: 1} | {old + 2: place + 2 for place, old in enumerate(order)}
    blocks = []
    for place, old in enumerate(order):
        one, other = [(new[state], name) for state, name in cell[old].paths][:: -1 if flips[old] else 1]
        if max(one[0], other[0]) >= place + 2:
            return None
        blocks.append(Block((one[0], other[0]), (one[1], other[1]), cell[old].combination))
    return tuple(blocks)


def all_forms(cell: Cell) -> set[Cell]:
    """Every cell isomorphic to this one, by trying everything."""
    count = len(cell)
    tried = product(permutations(range(count)), product((False, True), repeat=count))
    return {form for order, flips in tried if (form := renumbered(cell, order, flips))}


def cells_of(count: int) -> st.SearchStrategy[Cell]:
    """Cells of two operations, where equal expressions and isomorphic cells are frequent."""
    names = st.sampled_from(OPERATIONS[4:6])

    def block(number: int) -> st.SearchStrategy[Block]:
        states = st.integers(0, number + 1)
        return st.builds(Block, st.tuples(states, states), st.tuples(names, names), st.sampled_from(COMBINATIONS))

    return st.tuples(*map(block, range(count)))


def written(normal: Cell, reduction: Cell) -> Architecture:
    return NASNet(blocks=len(normal)).from_text(nasnet._text(dict(zip(CELLS, (normal, reduction), strict=True))))


@settings(deadline=None)
@given(cells_of(3), st.data())
def test_identity_is_isomorphism_of_cells(cell: Cell, data: st.DataObject) -> None:
    space, forms = NASNet(blocks=3), all_forms(cell)
    identity = space.identity(written(cell, cell))
    for form in data.draw(st.lists(st.sampled_from(sorted(forms, key=str)), max_size=5)):
        assert space.identity(written(form, form)) == identity
    for changed in (data.draw(cells_of(3)), *one_change(cell)):
        assert (space.identity(written(changed, cell)) == identity) == (changed in forms)
        assert (space.identity(written(cell, changed)) == identity) == (changed in forms)


def one_change(cell: Cell) -> Iterator[Cell]:
    """Cells that read another state at one place."""
    for number, block in enumerate(cell):
        for state in range(number + 2):
            changed = Block((state, block.inputs[1]), block.operations, block.combination)
            yield (*cell[:number], changed, *cell[number + 1 :])


def test_one_block_read_twice_is_not_two_equal_blocks() -> None:
    space = NASNet(blocks=3)
    twin = "conv_1x1~0+conv_1x1~1"
    once, twice = (of(f"{twin}|{twin}|identity~2+conv_3x3~{state}", "|".join([twin] * 3)) for state in (2, 3))
    assert space.identity(once) != space.identity(twice)
    other = of(f"{twin}|{twin}|conv_3x3~2+identity~3", "|".join([twin] * 3))
    assert space.identity(other) == space.identity(twice)


def test_sums_and_concatenations_and_cells_differ() -> None:
    space = NASNet(blocks=1)
    add, concat = "conv_1x1~0+conv_3x3~1", "conv_1x1~0&conv_3x3~1"
    found = {space.identity(of(one, other)) for one in (add, concat) for other in (add, concat)}
    assert len(found) == 4
    assert space.identity(of("conv_3x3~1&conv_1x1~0", add)) == space.identity(of(concat, add))


def shuffled(cell: Cell, rng: random.Random) -> tuple[Cell, list[int], list[bool]]:
    """The same cell, its blocks in another topological order and some of them with swapped sides."""
    orders = [list(order) for order in permutations(range(len(cell))) if renumbered(cell, order, [False] * len(cell))]
    order = rng.choice(orders)
    flips = [rng.random() < 0.5 for _ in cell]
    other = renumbered(cell, order, flips)
    assert other is not None
    return other, order, flips


def copy_weights(
    source: NASNetwork, target: NASNetwork, moved: Callable[[Cell], tuple[Sequence[int], Sequence[bool]]]
) -> None:
    """Give `target` the weights of `source` at the blocks where they moved to, channels in the target's order."""
    target.stem.load_state_dict(source.stem.state_dict())
    seen = [torch.arange(source.stem[0].out_channels)] * 2  # channels of h_{i-1} and h_i of the source, as the target's
    for old, new in zip(source.cells, target.cells, strict=True):
        order, flips = moved(old.layer.cell)
        for name, channels in zip(("fit_previous", "fit_current"), seen, strict=True):
            weights = getattr(old, name).state_dict()
            weights = {key: value[:, channels] if value.dim() == 4 else value for key, value in weights.items()}
            getattr(new, name).load_state_dict(weights)
        for place, block in enumerate(order):
            for side in (0, 1):
                weights = old.paths[block][side].state_dict()
                new.paths[place][1 - side if flips[block] else side].load_state_dict(weights)
            if str(block) in old.joins:
                weights = old.joins[str(block)].state_dict()
                if flips[block]:
                    weights["0.weight"] = weights["0.weight"].roll(old.layer.width, dims=1)
                new.joins[str(place)].load_state_dict(weights)
        new.reductions.load_state_dict(old.reductions.state_dict())
        states = [0, 1, *(block + 2 for block in order)]
        width = torch.arange(old.layer.width)
        channels = torch.cat([old.unread.index(states[state]) * old.layer.width + width for state in new.unread])
        seen = [seen[1], channels]
    target.classifier.load_state_dict({"weight": source.classifier.weight[:, seen[1]], "bias": source.classifier.bias})


def test_equal_identity_means_equal_functions() -> None:
    """With weights copied the outputs agree, in training and in evaluation mode."""
    rng, task = random.Random(0), images(2, 8, 8, 3)
    torch.manual_seed(0)
    moved_at_all = 0
    for arch in [NASNET_A, AMOEBANET_A, *sampled(4)]:
        cells = SPACE.cells(arch)
        changes = {kind: shuffled(cell, rng) for kind, cell in cells.items()}
        other = written(*(changes[kind][0] for kind in CELLS))
        assert SPACE.identity(other) == SPACE.identity(arch)
        moved_at_all += any(order != sorted(order) for _, order, _ in changes.values())
        source, target = (SPACE.build(each, task, TINY).double() for each in (arch, other))
        with torch.no_grad():
            by_cell = {cells[kind]: changes[kind][1:] for kind in CELLS}
            copy_weights(source, target, lambda cell, known=by_cell: known[cell])
            x = torch.randn(6, 2, 8, 8, dtype=torch.float64)
            torch.testing.assert_close(target(x), source(x))
            torch.testing.assert_close(target.eval()(x), source.eval()(x))
    assert moved_at_all >= 4


# --- What a user may do wrong -------------------------------------------------------------------------------------

GOOD = "conv_1x1~0+conv_1x1~1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no architecture: write normal="),
        (f"normal={GOOD}", "is no architecture"),
        (f"reduction={GOOD}|{GOOD} normal={GOOD}|{GOOD}", "is no architecture"),
        (f"normal={GOOD} reduction={GOOD}|{GOOD}", "the normal cell 'conv_1x1~0+conv_1x1~1' has 1 blocks; it needs 2"),
        (f"normal={GOOD}|{GOOD} reduction={GOOD}|{GOOD}|{GOOD}", "has 3 blocks; it needs 2"),
        (f"normal={GOOD}|{GOOD}+identity~0 reduction={GOOD}|{GOOD}", "must join two operation~state by '+'"),
        (f"normal={GOOD}|identity~0 reduction={GOOD}|{GOOD}", "block 1 'identity~0' must join two"),
        (f"normal={GOOD}|identity~0+identity reduction={GOOD}|{GOOD}", "'identity' in block 1"),
        (f"normal=identity~0&identty~0|{GOOD} reduction={GOOD}|{GOOD}", "did you mean 'identity'"),
        (f"normal=identity~0+identity~2|{GOOD} reduction={GOOD}|{GOOD}", "reads '2'; it may read 0 to 1"),
        (f"normal={GOOD}|{GOOD} reduction={GOOD}|identity~-1+identity~0", "reads '-1'; it may read 0 to 2"),
        (f"normal={GOOD}|{GOOD} reduction={GOOD}|identity~²+identity~0", "reads '²'; it may read 0 to 2"),
    ],
)
def test_malformed_text(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        NASNet(blocks=2).from_text(text)
    assert message in str(error.value)


@given(st.text(alphabet="normaleduction=~+&|01 _x3", max_size=60))
def test_any_other_text_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        SPACE.from_text(text)


def test_errors_a_user_can_act_on() -> None:
    with pytest.raises(UsageError, match=r"needed are images, .*'node-classification' has x"):
        SPACE.build(NASNET_A, Task(kind=NODE_CLASSIFICATION, input_shape=(7,), outputs=3), FULL)
    with pytest.raises(UsageError, match="needed are images"):
        SPACE.costs(NASNET_A, Task(kind=IMAGE_CLASSIFICATION, input_shape=(8, 8), outputs=3), FULL)
    with pytest.raises(UsageError, match="has no network"):
        SPACE.build(Architecture(SPACE.name, {"normal/block0/input1": 0}), images(), FULL)
    with pytest.raises(UsageError, match="its own Size"):
        SPACE.build(NASNET_A, images(), SizeConfig())
    for size in ({"filters": 100}, {"filters": 24}, {"cells": 0}, {"stem": "mnist"}, {"drop_path": 1.0}):
        with pytest.raises(UsageError, match=next(iter(size))):
            Size.preset("search", **size)
    for blocks in (0, 8, 2.0, True):
        with pytest.raises(UsageError, match="1 to 7"):
            NASNet(blocks=blocks)
    assert NASNet(blocks=4).named == {}
