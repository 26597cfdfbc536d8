"""NAS-Bench-201: counts, costs, notation, functional identity, and the network against the benchmark's layers."""

from __future__ import annotations

import csv
import gzip
import random
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import permutations
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from nas_core import moves, tokens
from nas_core.architecture import Architecture
from nas_core.config import SizeConfig
from nas_core.errors import UsageError
from nas_core.relax import FixedPicker
from nas_core.space import HasCosts, HasNotation
from nas_core.task import IMAGE_CLASSIFICATION, NODE_CLASSIFICATION, Task
from search_spaces.nasbench201.network import Cell
from search_spaces.nasbench201.space import (
    CONV1,
    CONV3,
    EDGES,
    KERNELS,
    NONE,
    OPERATIONS,
    POOL,
    SKIP,
    NasBench201,
    Size,
    skip_none_string,
    skip_string,
)

SPACE = NasBench201()
FULL = Size.preset("full")
LETTERS = {"0": NONE, "s": SKIP, "1": CONV1, "3": CONV3, "p": POOL}
cells = st.tuples(*[st.sampled_from(OPERATIONS)] * 6).map(lambda values: arch_of(*values))


def arch_of(*operations: str) -> Architecture:
    return Architecture(SPACE.name, dict(zip(EDGES, operations, strict=True)))


def cell(letters: str) -> Architecture:
    """`cell("3s0 ...")`: one letter per edge in the order of the official string; spaces are free."""
    return arch_of(*(LETTERS[letter] for letter in letters.replace(" ", "")))


def images(channels: int = 3, height: int = 32, width: int = 32, classes: int = 10) -> Task:
    return Task(kind=IMAGE_CLASSIFICATION, input_shape=(channels, height, width), outputs=classes)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@cache
def everything() -> tuple[Architecture, ...]:
    return tuple(moves.enumerate_all(SPACE))


@cache
def classes() -> dict[str, list[Architecture]]:
    found: dict[str, list[Architecture]] = {}
    for arch in everything():
        found.setdefault(SPACE.identity(arch), []).append(arch)
    return found


def built_cell(arch: Architecture, channels: int) -> Cell:
    return Cell(FixedPicker(arch.values), EDGES, channels)


def operations_of(arch: Architecture) -> dict[tuple[int, int], str]:
    return {edge: str(arch.values[name]) for name, edge in EDGES.items()}


# --- Counts -------------------------------------------------------------------------------------------------------


def test_the_space_is_what_it_says() -> None:
    assert moves.size(SPACE) == len(everything()) == 15_625
    assert isinstance(SPACE, HasCosts)
    assert isinstance(SPACE, HasNotation)
    assert [choice.name for choice in SPACE.choices] == list(EDGES)
    assert all(choice.options == OPERATIONS and choice.kind == "operation" for choice in SPACE.choices)


def test_counts_of_classes() -> None:
    assert len({skip_string(arch) for arch in everything()}) == 12_751
    assert len({skip_none_string(arch) for arch in everything()}) == 6_466
    assert len(classes()) == 5_234


def test_cells_with_a_path_from_input_to_output() -> None:
    def connected(arch: Architecture) -> bool:
        reached = {0}
        for (source, target), operation in sorted(operations_of(arch).items()):
            if source in reached and operation != NONE:
                reached.add(target)
        return 3 in reached

    joined = [arch for arch in everything() if connected(arch)]
    assert len(joined) == 15_284
    assert all("x" in SPACE.identity(arch) for arch in joined)
    assert sum("x" in identity for identity in map(SPACE.identity, everything())) == 15_284


# --- Costs --------------------------------------------------------------------------------------------------------

ALL_CONV3, ALL_CONV1, ALL_SKIP, ALL_NONE = cell("333333"), cell("111111"), cell("ssssss"), cell("000000")


@pytest.mark.parametrize(
    ("arch", "outputs", "expected"),
    [
        (ALL_CONV3, 10, 1_531_546),
        (ALL_CONV3, 100, 1_537_396),
        (ALL_CONV3, 120, 1_538_696),
        (ALL_CONV1, 10, 241_306),
        (ALL_SKIP, 10, 73_306),
        (ALL_NONE, 10, 73_306),
    ],
)
def test_published_parameter_counts(arch: Architecture, outputs: int, expected: int) -> None:
    with torch.device("meta"):
        network = SPACE.build(arch, images(classes=outputs), FULL)
    assert parameters(network) == expected
    assert SPACE.costs(arch, images(classes=outputs), FULL)["params"] == expected


def test_parameters_and_macs_of_every_row_of_the_table(shared_data: Path) -> None:
    """The table's MACs are a formula whose constant is 16 below the multiply-adds of the same network.

    Its cells differ by exactly what ours do. The benchmark's own smallest FLOPs, 7.78305 M, are ours and
    the 10 biases of the classifier.
    """
    with gzip.open(shared_data / "nb201.csv.gz", "rt") as file:
        rows = [(row["arch"], int(row["params"]), int(row["macs"])) for row in csv.DictReader(file)]
    assert len(rows) == 15_625
    for text, params, macs in rows:
        arch = SPACE.from_text(text)
        assert SPACE.to_text(arch) == text
        assert SPACE.costs(arch, images(), FULL) == {"params": params, "macs": macs + 16}


def test_smallest_and_largest_published_flops() -> None:
    assert SPACE.costs(ALL_SKIP, images(), FULL)["macs"] + 10 == 7_783_050
    assert SPACE.costs(ALL_CONV3, images(), FULL)["macs"] + 10 == 220_119_690


@pytest.mark.parametrize(
    ("task", "size"),
    [
        (images(1, 8, 8, 10), Size(channels=8, cells=1)),
        (images(3, 32, 32, 100), Size(channels=16, cells=2)),
        (images(2, 7, 13, 3), Size(channels=3, cells=1)),
        (images(5, 1, 1, 1), Size(channels=1, cells=3)),
    ],
)
@pytest.mark.parametrize("letters", ["333333", "111111", "ssssss", "31p0s3", "p13s1p"])
def test_costs_equal_the_built_network(letters: str, task: Task, size: Size) -> None:
    arch = cell(letters)
    with torch.device("meta"):
        network = SPACE.build(arch, task, size).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, *task.input_shape))
    assert SPACE.costs(arch, task, size) == {"params": parameters(network), "macs": counter.get_total_flops() / 2}


@pytest.mark.parametrize("letters", ["330000", "033033", "303030"])
def test_edges_that_cannot_matter_count_but_are_not_computed(letters: str) -> None:
    arch, task, size = cell(letters), images(1, 8, 8), Size(channels=4, cells=1)
    with torch.device("meta"):
        network = SPACE.build(arch, task, size).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, *task.input_shape))
    costs = SPACE.costs(arch, task, size)
    assert costs["params"] == parameters(network)
    assert costs["macs"] > counter.get_total_flops() / 2


# --- Notation and views -------------------------------------------------------------------------------------------


@given(cells)
def test_round_trips(arch: Architecture) -> None:
    assert SPACE.from_text(SPACE.to_text(arch)) == arch
    assert Architecture.from_json(arch.to_json()) == arch
    assert tokens.decode(SPACE, tokens.encode(SPACE, arch)) == arch
    assert SPACE.illegal(arch) is None


def test_official_string() -> None:
    text = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|none~2|"
    assert SPACE.from_text(text) == cell("p 1s 1s0")
    assert SPACE.to_text(cell("p 1s 1s0")) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has 1 nodes"),
        ("|none~0|+|none~0|none~1|", "has 2 nodes"),
        ("none~0+|none~0|none~1|+|none~0|none~1|none~2|", "node 1 'none~0' must begin and end"),
        ("|+|none~0|none~1|+|none~0|none~1|none~2|", "node 1 '|' must begin and end"),
        ("|none~0|+|none~0|+|none~0|none~1|none~2|", "node 2 '|none~0|' has 1 operations; it needs 2"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|none~3|", "has 4 operations; it needs 3"),
        ("|none|+|none~0|none~1|+|none~0|none~1|none~2|", "'none' in '|none|' is not of the form"),
        ("|skip~0|+|none~0|none~1|+|none~0|none~1|none~2|", "did you mean 'skip_connect'"),
        ("|none~1|+|none~0|none~1|+|none~0|none~1|none~2|", "reads input '1'"),
        ("|none~0|+|none~0|none~0|+|none~0|none~1|none~2|", "reads input '0'"),
    ],
)
def test_malformed_text(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        SPACE.from_text(text)
    assert message in str(error.value)


@given(st.text(alphabet="|~+0123 nonesk", max_size=40))
def test_any_other_text_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        SPACE.from_text(text)


def test_graph() -> None:
    graph = SPACE.graph(cell("3s1 p03"))
    assert graph.fixed_topology
    assert graph.nodes == ("input", CONV3, SKIP, CONV1, POOL, NONE, CONV3, "output")
    assert set(graph.edges) == {
        *((0, 1), (0, 2), (0, 4)),
        *((1, 3), (1, 5)),
        *((2, 6), (3, 6)),
        *((4, 7), (5, 7), (6, 7)),
    }
    assert graph.longest_path() == 4
    assert SPACE.graph(ALL_NONE).edges == graph.edges


# --- The network --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28), (2, 5, 9), (4, 1, 1), (3, 1, 6)])
def test_forward_and_backward_for_any_image(shape: tuple[int, int, int]) -> None:
    task = images(*shape, classes=7)
    for letters in ("31p 0s3", "000000", "0p1 03s"):
        network = SPACE.build(cell(letters), task, Size(channels=2, cells=1))
        output = network(torch.randn(5, *shape))
        assert output.shape == (5, 7)
        output.sum().backward()
        assert network.classifier.weight.grad is not None


def benchmark_cell(network: Cell, operations: dict[tuple[int, int], str], x: Tensor) -> Tensor:
    """The benchmark's cell: every edge computed, `none` as a multiplication with zero, each ReLU by itself."""

    def edge(source: int, target: int) -> Tensor:
        value, operation = nodes[source], operations[source, target]
        if operation == NONE:
            return value.mul(0.0)
        if operation == SKIP:
            return value
        if operation == POOL:
            return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)(value)
        return nn.Sequential.forward(network.edges[f"{source}-{target}"], functional.relu(value))

    nodes = [x]
    for target in (1, 2, 3):
        nodes.append(sum((edge(source, target) for source in range(target)), torch.zeros(())))
    return nodes[3]


@pytest.mark.parametrize("training", [False, True])
def test_cell_equals_the_benchmarks_layers_bit_for_bit(training: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 4, 5, 6)
    for arch in [*random.Random(0).sample(everything(), 300), ALL_NONE, cell("013033"), cell("0p0 0p1")]:
        network = randomised(built_cell(arch, 4)).train(training)
        expected = benchmark_cell(network, operations_of(arch), x)
        assert torch.equal(network(x), expected), arch


def test_errors_a_user_can_act_on() -> None:
    with pytest.raises(UsageError, match=r"needed are images, .*'node-classification' has x"):
        SPACE.build(ALL_SKIP, Task(kind=NODE_CLASSIFICATION, input_shape=(7,), outputs=3), FULL)
    with pytest.raises(UsageError, match="needed are images"):
        SPACE.costs(ALL_SKIP, Task(kind=IMAGE_CLASSIFICATION, input_shape=(8, 8), outputs=3), FULL)
    with pytest.raises(UsageError, match="has no network for"):
        SPACE.build(Architecture(SPACE.name, {"cell/edge.0-1": NONE}), images(), FULL)
    with pytest.raises(UsageError, match="its own Size"):
        SPACE.build(ALL_SKIP, images(), SizeConfig())
    with pytest.raises(UsageError, match="channels"):
        Size.preset("search", channels=0)


@pytest.mark.parametrize("letters", ["0p1 s33", pytest.param("000000", marks=pytest.mark.matrix)])
def test_export(letters: str, tmp_path: Path) -> None:
    """A pooled, a skipped, a zero-input and a plain edge, at an odd image size, with a dynamic batch."""
    torch.manual_seed(0)
    network = randomised(SPACE.build(cell(letters), images(1, 7, 7, 4), Size(channels=2, cells=1))).eval()
    x = torch.randn(3, 1, 7, 7)
    batch = ({0: torch.export.Dim("batch", min=1)},)
    program = torch.export.export(network, (x,), dynamic_shapes=batch)
    torch.testing.assert_close(program.module()(x[:1]), network(x[:1]))
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    file = tmp_path / "network.onnx"
    torch.onnx.export(network, (x,), file, dynamo=True, dynamic_shapes=batch, verbose=False)
    (answer,) = onnxruntime.InferenceSession(file).run(None, {"x": x[:2].numpy()})
    torch.testing.assert_close(torch.from_numpy(answer), network(x[:2]).detach(), rtol=1e-4, atol=1e-5)


# --- Identity -----------------------------------------------------------------------------------------------------

Term = tuple[str, tuple[int, int] | None, tuple["Term", ...]]  # text, edge of its convolution, the terms below it


def terms(arch: Architecture, node: int) -> list[Term]:
    """The sum at a node, as nested terms that remember their edges; `terms(arch, 3)` spells the identity."""
    if node == 0:
        return [("x", None, ())]
    operations = operations_of(arch)
    result: list[Term] = []
    for source in range(node):
        below, operation, edge = terms(arch, source), operations[source, node], (source, node)
        if operation == SKIP:
            result += below
        elif operation == POOL:
            result += [(text if text == "b" else f"p{text}", inner, under) for text, inner, under in below]
        elif operation in KERNELS and not below:
            result.append(("b", edge, ()))
        elif operation in KERNELS:
            shared = edge == (0, 1) and all(operations[e] != NONE for e in ((1, 2), (1, 3), (2, 3)))
            inside = tuple(sorted(below))
            text = f"{KERNELS[operation]}({'+'.join(term[0] for term in inside)}){shared * chr(39)}"
            result.append((text, edge, inside))
    return result


def instances(arch: Architecture) -> list[tuple[int, int]]:
    """The edges of the convolutions that reach the output; those of two members of a class correspond in order."""

    def walk(found: list[Term] | tuple[Term, ...]) -> Iterator[tuple[int, int]]:
        for _, edge, inside in sorted(found):
            if edge is not None:
                yield edge
            yield from walk(inside)

    return list(dict.fromkeys(walk(terms(arch, 3))))


def randomised(network: nn.Module) -> nn.Module:
    """All BN parameters and statistics as training could leave them."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -2, 2)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network


def copy_weights(source: Cell, edges: list[tuple[int, int]], target: Cell, others: list[tuple[int, int]]) -> None:
    """Copy convolution and BN edge by edge; where only zero comes in, kernels may differ and do not matter."""
    for (a, b), (c, d) in zip(edges, others, strict=True):
        one, other = source.edges[f"{a}-{b}"], target.edges[f"{c}-{d}"]
        if one[0].kernel_size == other[0].kernel_size:
            other[0].load_state_dict(one[0].state_dict())
        other[1].load_state_dict(one[1].state_dict())


def in_float64(arch: Architecture) -> Cell:
    return randomised(built_cell(arch, 3).double())


def same_function(one: Cell, other: Cell) -> bool:
    """In training mode (batch statistics) and in evaluation mode (running ones)."""
    x = torch.randn(4, 3, 4, 5, dtype=torch.float64)
    return all(torch.allclose(one.train(mode)(x), other.train(mode)(x), 1e-7, 1e-7) for mode in (False, True))


def test_members_of_a_class_compute_the_same_function() -> None:
    """Whole networks, weights copied by correspondence, in both modes."""
    torch.manual_seed(0)
    several = [members for members in classes().values() if len(members) > 1]
    task, size = images(2, 6, 7, 4), Size(channels=2, cells=1)
    for members in random.Random(1).sample(several, 25):
        one, other = random.Random(2).sample(members, 2)
        first, second = (randomised(SPACE.build(arch, task, size).double()) for arch in (one, other))
        rest = {key: value for key, value in first.state_dict().items() if ".edges." not in key}
        second.load_state_dict(rest, strict=False)
        for source, target in zip(first.body, second.body, strict=True):
            if isinstance(source, Cell):
                copy_weights(source, instances(one), target, instances(other))
        x = torch.randn(4, 2, 6, 7, dtype=torch.float64)
        for training in (False, True):
            expected, answer = first.train(training)(x), second.train(training)(x)
            torch.testing.assert_close(answer, expected, rtol=1e-5, atol=1e-5)


def test_cells_of_many_classes_compute_the_same_function() -> None:
    torch.manual_seed(0)
    several = [members for members in classes().values() if len(members) > 1]
    for number, members in enumerate(random.Random(3).sample(several, 100)):
        one, other = random.Random(number).sample(members, 2)
        first, second = in_float64(one), in_float64(other)
        copy_weights(first, instances(one), second, instances(other))
        assert same_function(first, second), (SPACE.to_text(one), SPACE.to_text(other))


def test_identity_spells_the_terms() -> None:
    for arch in random.Random(5).sample(everything(), 2_000):
        assert SPACE.identity(arch) == ("+".join(sorted(text for text, _, _ in terms(arch, 3))) or "0")


@pytest.mark.parametrize(
    ("members", "identity"),
    [
        ("3 00 0s0, 0 00 300, 0 30 00s", "3(x)"),  # a skip flattens
        ("3 s1 000, 0 00 000, 0 0p 0s0", "0"),  # nothing reaches the output, or nothing is pooled
        ("3 30 30s, 3 30 3s0, 0 30 30s", "3(x)+3(x)"),  # two convs of one sum stay two
        ("3 00 s30, 0 30 s03, 3 s0 03s, s 30 0s3", "3(3(x))+x"),  # nodes 1 and 2 change places
        ("3 30 s00, s 00 0s0, 0 00 s00", "x"),  # an edge to a node without a way out is dead
        ("0 s0 03s, 0 00 s10, 0 03 s0s, 0 01 s0p", "b+x"),  # a conv of nothing has no kernel; pooling keeps it
        ("3 s0 0pp, 3 ss 00p, s 30 0pp, 3 00 pp0", "p3(x)+px"),  # pooling is linear
        ("s s0 0ss, s 00 ss0", "x+x"),  # a doubled term stays doubled
    ],
)
def test_the_rule_merges(members: str, identity: str) -> None:
    found = {SPACE.identity(cell(letters)) for letters in members.split(",")}
    assert found == {identity}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0 00 300", "0 00 100"),  # the kernel
        ("p 00 030", "3 00 0p0"),  # pooling before or after
        ("0 00 s00", "s 00 ss0"),  # x and 2x
        ("s 00 030", "s s0 s30"),  # also where a conv with BN follows
        ("s 00 0p0", "s 00 0s0"),
        ("0 00 010", "0 00 000"),  # BN of zero and nothing
        ("0 00 s10", "0 00 s00"),
        ("0 01 001", "0 01 00s"),  # a conv of a constant and that constant
        ("0 01 001", "0 01 003"),  # which the padding of a 3x3 conv spoils at the border
        ("3 01 00s", "3 01 00p"),
        ("3 01 003", "3 03 001"),
        ("s 13 003", "p 13 003"),
    ],
)
def test_nearly_equal_cells_differ(one: str, other: str) -> None:
    """No correspondence of their convolutions makes the outputs agree."""
    torch.manual_seed(0)
    first_arch, second_arch = cell(one), cell(other)
    assert SPACE.identity(first_arch) != SPACE.identity(second_arch)
    edges, others = instances(first_arch), instances(second_arch)
    for order in permutations(others) if len(edges) == len(others) else ():
        first, second = in_float64(first_arch), in_float64(second_arch)
        copy_weights(first, edges, second, list(order))
        assert not same_function(first, second)


@pytest.mark.parametrize(
    ("shared", "separate", "copied"),
    [
        ("3 0s 0ss", "3 30 0ss", [(0, 1), (0, 1)]),  # twice conv(x), or two of them
        ("3 0s 03s", "3 30 03s", [(0, 1), (0, 1), (1, 3)]),  # conv(a) + a, or conv(a) + b
        ("3 0s 0ps", "3 30 0ps", [(0, 1), (0, 1)]),
    ],
)
def test_one_convolution_used_twice_is_not_two(shared: str, separate: str, copied: list[tuple[int, int]]) -> None:
    """They agree while the two have equal weights, and no longer: the second computes more functions."""
    torch.manual_seed(0)
    assert SPACE.identity(cell(shared)) != SPACE.identity(cell(separate))
    assert SPACE.identity(cell(shared)).replace("'", "") == SPACE.identity(cell(separate))
    one, two = in_float64(cell(shared)), in_float64(cell(separate))
    copy_weights(one, copied, two, sorted(edge for edge in instances(cell(separate))))
    assert same_function(one, two)
    nn.init.normal_(two.edges["0-2"][0].weight)
    assert not same_function(one, two)


def test_classes_are_exactly_the_isomorphic_sums() -> None:
    """Another way to the same classes: the least description of a cell over all numberings of its convolutions."""

    def description(arch: Architecture) -> object:
        operations = operations_of(arch)
        sums: dict[int, Counter[tuple[int, object]]] = {0: Counter({(0, "x"): 1})}
        inside: dict[tuple[int, int], tuple[int, Counter[tuple[int, object]]]] = {}
        for target in (1, 2, 3):
            total: Counter[tuple[int, object]] = Counter()
            for source in range(target):
                operation, edge = operations[source, target], (source, target)
                if operation == SKIP:
                    total += sums[source]
                elif operation == POOL:
                    for (depth, base), count in sums[source].items():
                        constant = base != "x" and not inside[base][1]
                        total[0 if constant else depth + 1, base] += count
                elif operation in KERNELS:
                    inside[edge] = (KERNELS[operation] if sums[source] else 0, sums[source])
                    total[0, edge] += 1
            sums[target] = total
        live: list[tuple[int, int]] = []
        waiting = [sums[3]]
        while waiting:
            for _, base in waiting.pop():
                if base != "x" and base not in live:
                    live.append(base)
                    waiting.append(inside[base][1])

        def numbered(order: tuple[tuple[int, int], ...]) -> object:
            number = {"x": -1} | {edge: position for position, edge in enumerate(order)}
            spelled = [
                sorted((depth, number[base], count) for (depth, base), count in value.items())
                for value in (sums[3], *(inside[edge][1] for edge in order))
            ]
            return [inside[edge][0] for edge in order], spelled

        return repr(min(numbered(order) for order in permutations(live)))

    pairs = {(SPACE.identity(arch), description(arch)) for arch in everything()}
    assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs}) == 5_234
