"""DARTS cells: counts, published genotypes, supernet, derivation, text, costs, levels, functional identity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations, permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.errors import UsageError
from nas_core.relax import Mix, Style
from nas_core.seeds import generator
from nas_core.space import HasCosts, HasNamed, HasNotation
from nas_core.task import IMAGE_CLASSIFICATION, NODE_CLASSIFICATION, Task
from search_spaces.darts.genotype import KEPT, NODES, OPERATIONS, Cell, canonical, to_text
from search_spaces.darts.network import DartsNetwork, operation
from search_spaces.darts.space import EDGES, Darts, Size
from search_spaces.layers.drop_path import DropPath
from search_spaces.layers.features import Features
from search_spaces.nasnet.network import AuxiliaryHead
from search_spaces.operators.conv.reduction import FactorisedReduction
from search_spaces.operators.conv.skip import Skip
from search_spaces.supernet.supernet import Supernet
from training import cost

SPACE, LEVELS = Darts(), Darts(levels=3)
CIFAR = Task(kind=IMAGE_CLASSIFICATION, input_shape=(3, 32, 32), outputs=10)
SMALL = Task(kind=IMAGE_CLASSIFICATION, input_shape=(2, 12, 9), outputs=5)  # odd sizes on the way
TINY = Size(channels=4, layers=5)

cells = st.tuples(
    *[
        st.tuples(
            st.sampled_from(list(combinations(range(node), 2))), st.sampled_from(KEPT), st.sampled_from(KEPT)
        ).map(lambda drawn: ((drawn[0][0], drawn[1]), (drawn[0][1], drawn[2])))
        for node in NODES
    ]
)


def of(space: Darts, **given: Cell) -> Architecture:
    return space.from_text(to_text(given))


def samples(space: Darts, count: int) -> list[Architecture]:
    return [moves.sample(space, generator("darts", number)) for number in range(count)]


def supernet(space: Darts = SPACE, task: Task = SMALL, size: Size = TINY) -> Supernet:
    """A supernet whose running statistics are those of its own maps."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Supernet(space, task, size)
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            made((torch.randn(8, *task.input_shape),), made.mix(uniform(made)))
    return made.eval()


def uniform(made: Supernet) -> dict[str, Tensor]:
    return {name: torch.full((len(group.options),), 1 / len(group.options)) for name, group in made.groups.items()}


def images(task: Task = SMALL, count: int = 3) -> Tensor:
    return torch.randn(count, *task.input_shape, generator=torch.Generator().manual_seed(0))


# -- counts ---------------------------------------------------------------------------------------------------


def test_number_of_architectures() -> None:
    per_cell = 180 * 7**8
    assert per_cell == 1_037_664_180
    assert math.prod(math.comb(node, 2) for node in NODES) == 180
    assert moves.size(SPACE) == per_cell**2
    assert moves.size(LEVELS) == per_cell**5


def test_abilities() -> None:
    assert isinstance(SPACE, HasCosts)
    assert isinstance(SPACE, HasNamed)
    assert isinstance(SPACE, HasNotation)


def test_supernet_has_the_published_size() -> None:
    with torch.device("meta"):
        made = Supernet(SPACE, CIFAR, Size.preset("search"))
    assert sum(parameter.numel() for parameter in made.parameters()) == 1_930_618
    for cell in ("normal", "reduce"):
        table = [group for name, group in made.groups.items() if name.startswith(f"{cell}/")]
        assert [group.options for group in table] == [OPERATIONS] * 14
        assert {group.weighted for group in table} == {(False,) * 4 + (True,) * 4}
    assert len(made.groups) == 28
    # Only the stem's normalisation is affine, and no convolution has a bias.
    norms = [module for module in made.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [norm.affine for norm in norms] == [True] + [False] * (len(norms) - 1)
    assert not any(module.bias is not None for module in made.modules() if isinstance(module, nn.Conv2d))


@pytest.mark.parametrize(
    ("name", "params"),
    # DARTS: of the published program; the others publish 3.4 M (P-DARTS) and 3.6 M (PC-DARTS).
    [("DARTS_V1", 3_169_414), ("DARTS_V2", 3_349_342), ("PDARTS", 3_433_798), ("PC_DARTS_cifar", 3_634_678)],
)
def test_published_genotypes(name: str, params: int) -> None:
    assert SPACE.costs(SPACE.named[name], CIFAR, Size.preset("full"))["params"] == params
    assert LEVELS.costs(LEVELS.named[name], CIFAR, Size.preset("full"))["params"] == params


def test_the_network_for_imagenet_has_the_published_size() -> None:
    arch, task = SPACE.named["DARTS_V2"], Task(kind=IMAGE_CLASSIFICATION, input_shape=(3, 224, 224), outputs=1000)
    size = Size.preset("imagenet", auxiliary=False)
    assert SPACE.costs(arch, task, size)["params"] == 4_718_752
    with torch.device("meta"):
        made = SPACE.build(arch, task, size)
        assert made(torch.empty(2, 3, 224, 224)).shape == (2, 1000)
    assert cost.params(made) == 4_718_752
    small = Task(kind=IMAGE_CLASSIFICATION, input_shape=(3, 64, 64), outputs=10)
    tiny = Size.preset("imagenet", channels=4, layers=4, auxiliary=False)
    network = SPACE.build(arch, small, tiny).eval()
    assert cost.macs(network, (torch.randn(1, *small.input_shape),)) == SPACE.costs(arch, small, tiny)["macs"]
    assert torch.isfinite(network(torch.randn(2, 3, 64, 64))).all()


def test_the_second_order_genotype_and_its_auxiliary_head() -> None:
    text = (
        "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
        "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], "
        "normal_concat=[2, 3, 4, 5], "
        "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), "
        "('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], "
        "reduce_concat=[2, 3, 4, 5])"
    )
    arch = SPACE.from_text(text)
    assert arch == SPACE.named["DARTS_V2"]
    with torch.device("meta"):
        network = SPACE.build(arch, CIFAR, Size.preset("full"))
    assert cost.params(network) == 3_349_342
    assert isinstance(network, DartsNetwork)
    assert network.auxiliary is not None
    assert sum(parameter.numel() for parameter in network.auxiliary.parameters()) == 476_426
    assert [cell.layer.cell for cell in network.cells].index("reduce") == 6
    assert [cell.layer.auxiliary for cell in network.cells].index(True) == 13


@pytest.mark.parametrize(
    ("name", "params"),
    [
        *[("sep_conv_3x3", 864), ("sep_conv_5x5", 1_376), ("dil_conv_3x3", 432), ("dil_conv_5x5", 688)],
        *[(name, 0) for name in ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect")],
    ],
)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [8, 7, 1])
def test_operations(name: str, params: int, stride: int, side: int) -> None:
    layer = operation(name, 16, stride, Style.STANDALONE, None).eval()
    if (name, stride) == ("skip_connect", 2):
        params = 16 * 16 + 2 * 16
        assert isinstance(layer, FactorisedReduction)
    assert sum(parameter.numel() for parameter in layer.parameters()) == params
    node = Features(torch.randn(2, 16, side, side))
    shape = (2, 16, -(-side // stride), -(-side // stride))
    output = layer(node)
    assert layer.zeros(node).shape == shape
    if name == "none":
        assert output is None
        return
    assert output.shape == shape
    # The search style normalises without affine part; a weight gives the weighted result.
    search = operation(name, 16, stride, Style.SUPERNET, None).eval()
    norms = [module for module in search.modules() if isinstance(module, nn.BatchNorm2d)]
    assert not any(norm.affine for norm in norms)
    assert bool(norms) == (name != "skip_connect" or stride == 2)
    weight = torch.tensor(0.3)
    if norms:
        torch.testing.assert_close(search.weighted(weight, node), weight * search(node))


def test_average_pooling_leaves_padding_out_and_the_factorised_reduction_sees_two_grids() -> None:
    ones = Features(torch.ones(1, 4, 6, 6))
    assert torch.equal(operation("avg_pool_3x3", 4, 2, Style.STANDALONE, None)(ones), torch.ones(1, 4, 3, 3))
    reduce = FactorisedReduction(1, 2, Style.STANDALONE).eval()
    with torch.no_grad():
        reduce.even.weight.fill_(1)
        reduce.odd.weight.fill_(1)
        x = torch.arange(36.0).view(1, 1, 6, 6)
        even, odd = reduce.response(Features(x))[0]
    assert torch.equal(even, x[0, 0, ::2, ::2])
    assert torch.equal(odd, x[0, 0, 1::2, 1::2])


# -- relaxation -----------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(normal=cells, reduce=cells)
def test_derive_is_the_inverse_of_assignment(normal: Cell, reduce: Cell) -> None:
    arch = of(SPACE, normal=normal, reduce=reduce)
    assignment = SPACE.assignment(arch)
    assert list(assignment) == [f"{cell}/edge.{i}-{j}" for cell in ("normal", "reduce") for i, j in EDGES]
    assert sum(value is not None for value in assignment.values()) == 16
    assert "none" not in assignment.values()
    scores = {name: [float(option == value) for option in OPERATIONS] for name, value in assignment.items()}
    assert SPACE.derive(scores) == arch


def test_the_rule_of_the_genotype() -> None:
    """`none` neither counts as the strength of an edge nor is selected."""
    row = dict.fromkeys(OPERATIONS, 0.0)
    scores = {name: list(row.values()) for name in SPACE.assignment(SPACE.named["DARTS_V2"])}
    scores["normal/edge.0-5"] = list((row | {"none": 0.9, "skip_connect": 0.1}).values())
    scores["normal/edge.1-5"] = list((row | {"sep_conv_3x3": 0.2, "dil_conv_5x5": 0.19}).values())
    scores["normal/edge.2-5"] = list((row | {"max_pool_3x3": 0.05}).values())
    scores["normal/edge.4-5"] = list((row | {"none": 0.85, "dil_conv_5x5": 0.15}).values())
    normal = SPACE.cells(SPACE.derive(scores))["normal"]
    assert normal[3] == ((1, "sep_conv_3x3"), (4, "dil_conv_5x5"))
    # Of equals the first edges and the first operation.
    assert normal[2] == ((0, "max_pool_3x3"), (1, "max_pool_3x3"))


@pytest.mark.parametrize("space", [SPACE, LEVELS], ids=lambda space: space.name)
def test_a_one_hot_mix_is_the_extracted_network(space: Darts) -> None:
    made, x = supernet(space), images()
    for arch in samples(space, 3):
        assignment = space.assignment(arch)
        # Logits of +50, as a strategy would have them: what is not used has weight 1 on `none`.
        weights = {
            name: torch.tensor([50.0 * (option == (assignment[name] or "none")) for option in group.options]).softmax(0)
            for name, group in made.groups.items()
        }
        network = made.extract(arch)
        with torch.no_grad():
            alone = network(x)
            torch.testing.assert_close(made((x,), made.mix(weights)), alone, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(made((x,), made.mix_of(arch)), alone, atol=1e-6, rtol=1e-6)
        assert not any(isinstance(module, DropPath | AuxiliaryHead) for module in network.modules())


@pytest.mark.parametrize(
    ("space", "task"),
    [
        pytest.param(SPACE, SMALL, id="12x9-darts"),
        pytest.param(LEVELS, CIFAR, id="32x32-darts-3"),
        pytest.param(SPACE, CIFAR, id="32x32-darts", marks=pytest.mark.matrix),
        pytest.param(LEVELS, SMALL, id="12x9-darts-3", marks=pytest.mark.matrix),
    ],
)
def test_costs_of_formula_supernet_and_network_agree(space: Darts, task: Task) -> None:
    size = Size(channels=3, layers=5, auxiliary=True, drop_path=0.1)
    made = supernet(space, SMALL, TINY) if task is SMALL else Supernet(space, task, size)
    size = TINY if task is SMALL else size
    costs = {name: made.costs(name) for name in ("params", "macs")}
    for arch in samples(space, 1):
        network = space.build(arch, task, size)
        counted = {"params": cost.params(network), "macs": cost.macs(network, cost.sample_inputs(task))}
        assert space.costs(arch, task, size) == counted
        assert {name: found.of(space.assignment(arch), made.groups) for name, found in costs.items()} == counted


def test_levels_have_tables_of_their_own() -> None:
    """Three levels and two reductions: five tables, whose gradients differ."""
    made = supernet(LEVELS, SMALL, Size(channels=4, layers=6))
    alphas = {name: torch.zeros(8, requires_grad=True) for name in made.groups}
    weights = {name: alpha.softmax(0) for name, alpha in alphas.items()}
    made.train()((images(),), made.mix(weights)).square().mean().backward()
    tables: dict[str, list[Tensor]] = {}
    for name, alpha in alphas.items():
        assert alpha.grad is not None
        tables.setdefault(name.split("/")[0], []).append(alpha.grad)
    assert sorted(tables) == ["normal1", "normal2", "normal3", "reduce1", "reduce2"]
    stacked = [torch.stack(table) for table in tables.values()]
    assert all(table.shape == (14, 8) and table.abs().sum() > 0 for table in stacked)
    assert not any(torch.allclose(one, other) for one, other in combinations(stacked, 2))
    kinds = [layer.cell for layer in LEVELS.layers(CIFAR, Size(layers=8))]
    assert kinds == ["normal1"] * 2 + ["reduce1"] + ["normal2"] * 2 + ["reduce2"] + ["normal3"] * 2


def test_equal_cells_on_all_levels_are_the_plain_network() -> None:
    networks = []
    for space in (SPACE, LEVELS):
        torch.manual_seed(0)
        networks.append(space.build(space.named["DARTS_V1"], SMALL, TINY).eval())
    assert torch.equal(*(network(images()) for network in networks))
    one, three = (space.named["DARTS_V1"] for space in (SPACE, LEVELS))
    assert one != three
    assert SPACE.illegal(three)
    assert LEVELS.illegal(one)


def test_a_node_that_nothing_reaches_is_zero() -> None:
    """Paths of `none` alone (a draw of GDAS): the bias of the classifier is left; gradients of numbers arrive."""
    made = supernet()
    nothing = Mix(dict.fromkeys(made.groups, (0,)))
    with torch.no_grad():
        torch.testing.assert_close(made((images(),), nothing), made.network.classifier.bias.expand(3, -1))
    for taken in ("skip_connect", "max_pool_3x3", "sep_conv_3x3"):  # into node 5 alone, from empty nodes too
        position = OPERATIONS.index(taken)
        active = {name: (position if name.endswith("5") else 0,) for name in made.groups}
        weights = {name: torch.nn.functional.one_hot(torch.tensor(active[name][0]), 8).float() for name in active}
        leaves = {name: weight.requires_grad_() for name, weight in weights.items()}
        scalars = {name: tuple(p for p in range(8) if p not in active[name]) for name in active}
        output = made.train()((images(),), Mix(active, leaves, scalars))
        output.square().sum().backward()
        assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in leaves.values())


def test_what_a_node_gives_to_several_edges_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, counts = supernet(), dict.fromkeys(("relu", "max_pool2d", "avg_pool2d"), 0)
    for name in counts:
        original = getattr(torch.nn.functional, name)

        def counted(*args: object, name: str = name, original: object = original, **more: object) -> Tensor:
            counts[name] += not more.get("inplace", False)
            return original(*args, **more)  # type: ignore[operator, no-any-return]

        monkeypatch.setattr(torch.nn.functional, name, counted)
    with torch.no_grad():
        made((images(),), made.mix(uniform(made)))
    layers = len(made.network.cells)
    # Nodes 0 to 4 of every cell and their two poolings; node 2 and later are not rectified for the output alone. A
    # cell's output is rectified once for the two cells that read it, the stem for both inputs of the first cell.
    assert counts["avg_pool2d"] == counts["max_pool2d"] == 5 * layers
    assert counts["relu"] == 5 * layers + layers


# -- network --------------------------------------------------------------------------------------------------


def test_training_only_parts() -> None:
    cells = {
        kind: SPACE.cells(SPACE.named[name])[kind] for kind, name in (("normal", "PDARTS"), ("reduce", "DARTS_V2"))
    }
    cells["reduce"] = (((0, "skip_connect"), (1, "sep_conv_5x5")), *cells["reduce"][1:])
    arch = of(SPACE, **cells)
    size = Size(channels=4, layers=5, auxiliary=True, drop_path=0.5)
    network = SPACE.build(arch, SMALL, size)
    assert isinstance(network, DartsNetwork)
    assert network.auxiliary_weight == 0.4
    logits, auxiliary = network.train()(images())
    assert logits.shape == auxiliary.shape == (3, 5)
    assert network.eval()(images()).shape == (3, 5)
    assert SPACE.build(arch, SMALL, TINY).train()(images()).shape == (3, 5)
    assert Supernet(SPACE, SMALL, size).train()((images(),), Mix(dict.fromkeys(SPACE.assignment(arch), (3,)))).shape
    # Paths are dropped, identities are not; a factorised reduction is a path like the others.
    kinds = {type(edge) for cell in network.cells for edge in cell.edges.values()}
    assert {FactorisedReduction, Skip} < kinds
    for cell in network.cells:
        for edge in cell.edges.values():
            assert (getattr(edge, "drop_path", None) is None) == isinstance(edge, Skip)
        assert cell.fit_previous.drop_path is None
        assert cell.fit_current.drop_path is None
    [drop] = [part for part in network.modules() if isinstance(part, DropPath)]
    drop.progress = 1.0
    node = Features(torch.ones(200, 4, 2, 2))
    pool = operation("avg_pool_3x3", 4, 1, Style.STANDALONE, drop.train())
    assert set(pool(node)[:, 0, 0, 0].tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("side", [8, 5, 1])
def test_small_images(side: int) -> None:
    task = Task(kind=IMAGE_CLASSIFICATION, input_shape=(1, side, side), outputs=3)
    size = Size(channels=1, layers=3, auxiliary=True)
    for arch in samples(SPACE, 3):
        network = SPACE.build(arch, task, size)
        assert network.eval()(torch.randn(2, 1, side, side)).shape == (2, 3)
        assert SPACE.costs(arch, task, size)["macs"] == cost.macs(network, cost.sample_inputs(task))


# -- identity -------------------------------------------------------------------------------------------------


def test_identity_is_that_of_networks_with_permuted_nodes() -> None:
    """Nodes 2 and 3 exchanged: with weights moved, and channels of what reads a cell permuted, outputs agree."""
    one = (
        ((0, "sep_conv_3x3"), (1, "skip_connect")),
        ((0, "dil_conv_5x5"), (1, "max_pool_3x3")),
        ((2, "avg_pool_3x3"), (3, "sep_conv_5x5")),
        ((3, "dil_conv_3x3"), (4, "skip_connect")),
    )
    other = (
        one[1],
        one[0],
        ((2, "sep_conv_5x5"), (3, "avg_pool_3x3")),
        ((2, "dil_conv_3x3"), (4, "skip_connect")),
    )
    reduce = SPACE.cells(SPACE.named["DARTS_V1"])["reduce"]
    archs = [of(SPACE, normal=cell, reduce=reduce) for cell in (one, other)]
    assert archs[0] != archs[1]
    assert SPACE.identity(archs[0]) == SPACE.identity(archs[1])
    first, second = (SPACE.build(arch, SMALL, TINY).eval() for arch in archs)
    swap = {"0": "0", "1": "1", "2": "3", "3": "2", "4": "4", "5": "5"}
    moved: dict[str, Tensor] = {}
    for name, tensor in first.state_dict().items():
        parts = name.split(".")
        normal = parts[0] == "cells" and first.cells[int(parts[1])].layer.cell == "normal"
        if normal and parts[2] == "edges":
            source, target = (swap[node] for node in parts[3].split("-"))
            parts[3] = f"{source}-{target}"
        moved[".".join(parts)] = permuted(first, parts, tensor)
    second.load_state_dict(moved)
    torch.testing.assert_close(first(images()), second(images()))


def permuted(network: nn.Module, parts: list[str], tensor: Tensor) -> Tensor:
    """The second and first quarter of the input channels exchanged, where these are those of a normal cell."""
    kinds = [cell.layer.cell for cell in network.cells]  # type: ignore[union-attr, operator]
    if parts[0] == "classifier":
        reads, dimension = len(kinds) - 1, 1
    elif parts[0] == "cells" and parts[2] in ("fit_previous", "fit_current"):
        reads, dimension = int(parts[1]) - (2 if parts[2] == "fit_previous" else 1), 1
    else:
        return tensor
    if reads < 0 or kinds[reads] != "normal" or parts[-1] != "weight" or tensor.dim() < 2:
        return tensor
    two, three, *rest = tensor.chunk(4, dimension)
    return torch.cat([three, two, *rest], dimension)


@settings(max_examples=30, deadline=None)
@given(cell=cells, data=st.data())
def test_identity_of_any_renumbering(cell: Cell, data: st.DataObject) -> None:
    orders = [order for order in permutations(range(4)) if renumber(cell, order)]
    other = renumber(cell, data.draw(st.sampled_from(orders)))
    assert other is not None
    assert canonical(other) == canonical(cell)
    assert canonical(cell) in [renumber(cell, order) for order in orders]
    assert canonical(canonical(cell)) == canonical(cell)


def renumber(cell: Cell, order: tuple[int, ...]) -> Cell | None:
    """`order[k]` is the place that node k + 2 gets; None where a node would come before what it reads."""
    place: Mapping[int, int] = {0: 0, 1: 1, **{old + 2: new + 2 for old, new in enumerate(order)}}
    found = {}
    for old, inputs in zip(NODES, cell, strict=True):
        renamed = tuple(sorted((place[source], name) for source, name in inputs))
        if max(source for source, _ in renamed) >= place[old]:
            return None
        found[place[old]] = renamed
    return tuple(found[node] for node in NODES)  # type: ignore[misc]


# -- text and graph -------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(normal=cells, reduce=cells)
def test_text_both_ways(normal: Cell, reduce: Cell) -> None:
    arch = of(SPACE, normal=normal, reduce=reduce)
    assert SPACE.cells(arch) == {"normal": normal, "reduce": reduce}
    text = SPACE.to_text(arch)
    assert SPACE.from_text(text) == arch
    assert SPACE.from_text("\n  " + text.replace(", ", ",\n   ") + "\n") == arch
    everywhere = LEVELS.from_text(text)
    assert LEVELS.cells(everywhere) == {kind: {"n": normal, "r": reduce}[kind[0]] for kind in LEVELS.cell_types}
    assert LEVELS.from_text(LEVELS.to_text(everywhere)) == everywhere


GOOD = SPACE.to_text(SPACE.named["DARTS_V2"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["is no genotype"]),
        ("__import__('os').system('true')", ["is no genotype"]),
        ("Genotype(" * 400, ["is no genotype"]),
        ("-" * 100_000 + "1", ["is no genotype"]),
        ("Genotype([])", ["must name all its fields"]),
        ("Genotype(**x)", ["must name all its fields"]),
        ("Genotype(normal=[])", ["lacks 'normal_concat'"]),
        (GOOD.replace("reduce=", "reduction="), ["no field 'reduction'"]),
        (
            GOOD.replace("normal_concat=range(2, 6)", "normal_concat=range(3, 6)"),
            ["normal_concat is range(3,6)", "2, 6"],
        ),
        (GOOD.replace("range(2, 6)", "1" + "+1" * 500), ["normal_concat is 1+1", "..."]),
        (GOOD.replace("range(2, 6)", "1" + "+1" * 50_000), ["is no genotype"]),
        (GOOD.replace("[('sep_conv_3x3', 0), ", "["), ["'normal' has 7 pairs", "8"]),
        (GOOD.replace("normal=[", "normal=0*["), ["'normal' is no list"]),
        (GOOD.replace("('sep_conv_3x3', 0)", "('none', 0)", 1), ["'none' at node 2 of 'normal'", "skip_connect"]),
        (GOOD.replace("sep_conv_3x3", "sep_conv_3x4", 1), ["'sep_conv_3x4'", "did you mean 'sep_conv_3x3'?"]),
        (GOOD.replace("('dil_conv_3x3', 2)", "('dil_conv_3x3', 5)"), ["node 5 of 'normal' reads node 5", "0 to 4"]),
        (GOOD.replace("('dil_conv_3x3', 2)", "('dil_conv_3x3', -1)"), ["node 5 of 'normal' is not of the form"]),
        (GOOD.replace("('dil_conv_3x3', 2)", "('dil_conv_3x3', True)"), ["is not of the form"]),
        (GOOD.replace("('dil_conv_3x3', 2)", "('dil_conv_3x3', 0)"), ["node 5 of 'normal' reads node 0 twice"]),
        (GOOD.replace("('dil_conv_3x3', 2)", "'dil_conv_3x3'"), ["is not of the form ('operation', input)"]),
    ],
)
def test_bad_text_is_named(text: str, words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        SPACE.from_text(text)
    assert all(word in str(caught.value) for word in words), caught.value
    assert len(str(caught.value)) < 300


def test_graph_shows_both_cells() -> None:
    graph = SPACE.graph(SPACE.named["DARTS_V2"])
    assert len(graph.nodes) == 2 * (2 + 3 * 4 + 1)
    assert len(graph.edges) == 2 * (4 * 4 + 4)
    assert graph.nodes.count("add") == 8
    assert graph.nodes.count("sep_conv_3x3") == 5
    assert graph.nodes.count("skip_connect") == 2 + 3
    assert graph.skips == {"skip_connect"}
    # A skip from an input of a reduction cell is a convolution of stride 2.
    skip = ((0, "skip_connect"), (1, "skip_connect"))
    graph = SPACE.graph(of(SPACE, normal=(skip,) * 4, reduce=(skip,) * 4))
    assert (graph.nodes.count("skip_connect"), graph.nodes.count("factorised_reduction")) == (8, 8)


# -- mistakes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [0, 2, 4, True, "3"])
def test_other_levels_are_refused(levels: int) -> None:
    with pytest.raises(UsageError, match=f"levels is {levels!r}; use 1 .* or 3"):
        Darts(levels=levels)


def test_other_sizes_and_tasks_are_refused() -> None:
    arch = LEVELS.named["DARTS_V2"]
    with pytest.raises(UsageError, match=r"5 layers or more.*got 4"):
        LEVELS.build(arch, SMALL, Size(channels=4, layers=4))
    with pytest.raises(UsageError, match="needed are images"):
        LEVELS.build(arch, Task(kind=NODE_CLASSIFICATION, input_shape=(3,), outputs=2), TINY)
    with pytest.raises(UsageError, match="needs its own Size"):
        LEVELS.build(arch, SMALL, Task)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="belongs to space 'darts-3'"):
        SPACE.build(arch, SMALL, TINY)
