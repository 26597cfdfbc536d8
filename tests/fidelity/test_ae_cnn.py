"""AE-CNN: units, closure of its variations, and costs of Sun et al. (IEEE TNNLS 31(4), 2020) and its settings file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nas_core import moves, tokens
from nas_core.architecture import Architecture
from nas_core.config import SizeConfig
from nas_core.errors import UsageError
from nas_core.seeds import generator
from nas_core.task import IMAGE_CLASSIFICATION, Task
from nas_core.testing.space import check
from search_spaces.ae_cnn.network import DenseLayer, dense_unit, pooling_unit, resnet_unit
from search_spaces.ae_cnn.space import AeCnn, Size
from search_spaces.ae_cnn.units import DenseNetUnit, PoolingUnit, ResNetUnit, densenet
from training.tasks import sample_inputs

SPACE = AeCnn()
CIFAR = Task(kind=IMAGE_CLASSIFICATION, input_shape=(3, 32, 32), outputs=10)
TINY = Size(width_scale=1 / 16, depth_scale=0.1)  # one block, one layer per unit
MAX_INPUTS = {12: 128, 20: 64, 40: 32}

seeds = st.integers(0, 100_000)


def image(*shape: int, outputs: int = 10) -> Task:
    return Task(kind=IMAGE_CLASSIFICATION, input_shape=shape, outputs=outputs)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def random_texts(space: AeCnn, count: int) -> list[str]:
    return [space.to_text(moves.sample(space, generator(number))) for number in range(count)]


def faults(text: str, limit: int, pools: int = 4) -> list[str]:
    """What the paper forbids in a list, read from its text alone."""
    parts = [part.replace("-", " ").replace("R", "R ").replace("D", "D ").split() for part in text.split(",")]
    found = []
    if not 1 <= len(parts) <= limit:
        found.append(f"{len(parts)} units")
    if parts[0][0][0] == "P":
        found.append("begins with a pool")
    if sum(part[0] in ("Pmax", "Pavg") for part in parts) > pools:
        found.append("too many pools")
    for part in parts:
        match part:
            case ["R", blocks, channels]:
                good = 3 <= int(blocks) <= 10 and int(channels) in (64, 128, 256)
            case ["D", layers, growth]:
                good = 3 <= int(layers) <= {12: 10, 20: 10, 40: 5}[int(growth)]
            case [pool]:
                good = pool in ("Pmax", "Pavg")
            case _:
                good = False
        if not good:
            found.append(f"no unit {part}")
    return found


def variations(space: AeCnn, count: int, start: int = 0) -> Iterator[tuple[Architecture, ...]]:
    """`count` random mutations and crossovers of a population that drifts with them; the children of each."""
    rng = generator("drift", start)
    population = [moves.sample(space, rng) for _ in range(20)]
    for number in range(count):
        one, other = (int(place) for place in rng.choice(len(population), 2, replace=False))
        if number % 2:
            children: tuple[Architecture, ...] = (space.mutate(population[one], rng),)
            assert children[0] != population[one]
        else:
            children = space.crossover(population[one], population[other], rng)
            lengths = [len(space.units(population[place])) for place in (one, other)]
            assert sum(len(space.units(child)) for child in children) == sum(lengths)
        for place, child in zip((one, other), children, strict=False):
            population[place] = child
        yield children


# Closure: fidelity checks 1 and 2.


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_thousands_of_variations_stay_in_the_space(count: int) -> None:
    """Structure only; building is the next two tests."""
    lengths, pools = Counter[int](), Counter[int]()
    for children in variations(SPACE, count):
        for child in children:
            text = SPACE.to_text(child)
            assert faults(text, 16) == []
            assert SPACE.illegal(child) is None
            lengths[text.count(",") + 1] += 1
            pools[text.count("P")] += 1
    assert set(lengths) == set(range(1, 17))
    assert set(pools) == {0, 1, 2, 3, 4}


def builds(child: Architecture, task: Task, size: Size) -> None:
    """It builds, every unit's input is its predecessor's output, and a pass gives (batch, classes)."""
    model = SPACE.build(child, task, size)
    widths = [task.input_shape[0]]
    for unit in model.get_submodule("units"):  # type: ignore[attr-defined]
        unit.register_forward_hook(lambda module, given, output: widths.append(output.shape[1]))
    with torch.no_grad():
        output = model.eval()(torch.randn(2, *task.input_shape))
    assert output.shape == (2, task.outputs)
    assert torch.isfinite(output).all()
    expected = [task.input_shape[0]]
    for unit in SPACE.units(child):
        match unit:
            case ResNetUnit(_, channels):
                expected.append(round(channels * size.width_scale))
            case DenseNetUnit(layers, growth, _):
                grown = max(1, round(layers * size.depth_scale)) * max(1, round(growth * size.width_scale))
                expected.append(min(expected[-1], round(MAX_INPUTS[growth] * size.width_scale)) + grown)
            case PoolingUnit():
                expected.append(expected[-1])
    assert widths == expected


def test_children_build_and_answer() -> None:
    for number, children in enumerate(variations(SPACE, 2_000, start=1)):
        if number % 50 == 0:
            builds(children[0], image(3, 16, 16, outputs=7), TINY)


@pytest.mark.slow
def test_ten_thousand_children_build_and_answer() -> None:
    for children in variations(SPACE, 10_000):
        for child in children:
            builds(child, image(3, 16, 16, outputs=7), TINY)


def test_children_of_full_width_have_consistent_shapes() -> None:
    for number in range(3):
        one, other = (moves.sample(SPACE, generator(number, parent)) for parent in ("one", "other"))
        with torch.device("meta"):
            for child in SPACE.crossover(one, other, generator(number)):
                assert SPACE.build(child, CIFAR, Size())(torch.empty(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(("units", "pools", "min_pools"), [(1, 4, 0), (2, 1, 0), (3, 0, 0), (6, 4, 4), (9, 3, 2)])
def test_variations_keep_the_limits_of_the_space(units: int, pools: int, min_pools: int) -> None:
    space = AeCnn(units=units, pools=pools, min_pools=min_pools)
    for children in variations(space, 500):
        for child in children:
            text = space.to_text(child)
            assert faults(text, units, pools) == []
            assert text.count("P") >= min_pools
            assert space.illegal(child) is None


def test_crossover_cuts_each_parent_where_it_likes() -> None:
    """Child lengths vary, tails are swapped, and all legal pairs of cuts are equally likely."""
    one, other = SPACE.from_text("R3-64,Pmax,R4-64,Pmax"), SPACE.from_text("D3-12,Pavg,D4-12,Pavg,Pavg")
    a, b = SPACE.to_text(one).split(","), SPACE.to_text(other).split(",")
    wanted = {}
    for cut_a in range(len(a) + 1):
        for cut_b in range(len(b) + 1):
            children = [",".join(units) for units in (a[:cut_a] + b[cut_b:], b[:cut_b] + a[cut_a:])]
            trivial = (cut_a, cut_b) in ((0, 0), (len(a), len(b)))
            if all(children) and not trivial and not any(faults(child, 16) for child in children):
                wanted[tuple(children)] = 0
    assert 5 < len(wanted) < 25
    rng = generator("cuts")
    for _ in range(200 * len(wanted)):
        wanted[tuple(SPACE.to_text(child) for child in SPACE.crossover(one, other, rng))] += 1
    # Chi-square with len - 1 degrees of freedom: mean len - 1, variance twice that.
    distance = sum((count - 200) ** 2 / 200 for count in wanted.values())
    assert distance < len(wanted) - 1 + 4 * math.sqrt(2 * (len(wanted) - 1))
    assert len({first.count(",") for first, _ in wanted}) > 3


def test_parents_without_a_legal_cut_stay_themselves() -> None:
    space = AeCnn(units=1)
    parents = space.from_text("R3-64"), space.from_text("D5-40")
    assert space.crossover(*parents, generator(0)) == parents


# Mutation.


def kind_of(before: str, after: str) -> str:
    old, new = before.split(","), after.split(",")
    if len(new) == len(old) + 1:
        assert any(new[:place] + new[place + 1 :] == old for place in range(1, len(new)))
        return "add"
    if len(new) == len(old) - 1:
        assert any(old[:place] + old[place + 1 :] == new for place in range(len(old)))
        return "remove"
    ((was, now),) = [(one, other) for one, other in zip(old, new, strict=True) if one != other]
    if was[0] == "P":
        return "alter pool"
    assert was[0] == now[0]
    (count, width), (new_count, new_width) = was[1:].split("-"), now[1:].split("-")
    assert (count == new_count) != (width == new_width)
    return f"alter {was[0]} {'count' if width == new_width else 'width'}"


def test_mutations_come_as_often_as_in_the_paper() -> None:
    text = "R10-64,D5-40,Pmax,R3-256"
    arch, rng = SPACE.from_text(text), generator("kinds")
    found = Counter(kind_of(text, SPACE.to_text(SPACE.mutate(arch, rng))) for _ in range(10_000))
    shares = {
        "add": 0.4,
        "remove": 0.3,
        # Half of the units are ResNet units, whose blocks and channels are altered with even odds.
        "alter R count": 0.3 * 0.25,
        "alter R width": 0.3 * 0.25,
        "alter D count": 0.3 * 0.25,
        "alter pool": 0.3 * 0.25,
    }
    assert set(found) == set(shares)
    for kind, share in shares.items():
        assert abs(found[kind] - 10_000 * share) < 4 * math.sqrt(10_000 * share * (1 - share)), kind


def mutants(space: AeCnn, text: str, count: int = 2_000) -> Counter[str]:
    arch, rng = space.from_text(text), generator("mutants", text)
    return Counter(space.to_text(space.mutate(arch, rng)) for _ in range(count))


def test_altered_numbers_reach_their_bounds_and_never_stay() -> None:
    assert set(mutants(AeCnn(units=1), "R9-128")) == {f"R{blocks}-128" for blocks in (3, 4, 5, 6, 7, 8, 10)} | {
        "R9-64",
        "R9-256",
    }
    assert set(mutants(AeCnn(units=1), "D4-40")) == {"D3-40", "D5-40"}
    assert set(mutants(AeCnn(units=1), "D4-20")) == {f"D{layers}-20" for layers in (3, 5, 6, 7, 8, 9, 10)}


def test_added_units_are_of_any_type_below_the_limit_of_pools() -> None:
    def added(text: str) -> Counter[str]:
        """The type of the unit that was added behind one that is different."""
        found = Counter[str]()
        for mutant, count in mutants(SPACE, text, 6_000).items():
            if mutant.count(",") > text.count(","):
                (extra,) = Counter(part[0] for part in mutant.split(",")) - Counter(part[0] for part in text.split(","))
                found[extra] += count
        return found

    few, full = added("R3-64,Pmax,Pmax,Pmax"), added("R3-64,Pmax,Pmax,Pmax,Pmax")
    assert set(few) == {"R", "D", "P"}
    assert set(full) == {"R", "D"}
    for found in (few, full):
        total, share = sum(found.values()), 1 / len(found)
        assert all(abs(count - total * share) < 4 * math.sqrt(total * share * (1 - share)) for count in found.values())


def test_what_cannot_be_added_or_removed_is_not() -> None:
    assert not [mutant for mutant in mutants(AeCnn(units=1), "R3-64", 200) if "," in mutant]
    shortened = {mutant for mutant in mutants(SPACE, "R3-64,Pmax,D3-12") if mutant.count(",") == 1}
    assert shortened == {"R3-64,D3-12", "R3-64,Pmax"}
    assert "D3-12" in mutants(SPACE, "R3-64,D3-12")
    assert not [mutant for mutant in mutants(AeCnn(min_pools=1), "R3-64,Pmax") if "P" not in mutant]


# The network.


def test_resnet_unit() -> None:
    """Three blocks 1x1-3x3-1x1 of width 64; only the first shortcut is projected."""
    unit = resnet_unit(3, 3, 64)
    kernels = [(m.in_channels, m.out_channels, m.kernel_size[0]) for m in unit.modules() if isinstance(m, nn.Conv2d)]
    assert sorted(kernels) == sorted([(3, 64, 1)] * 2 + [(64, 64, 3)] * 3 + [(64, 64, 1)] * 5)
    first, rest = 3 * 64 + 9 * 64**2 + 64**2 + 3 * 64 + 4 * 128, 64**2 + 9 * 64**2 + 64**2 + 3 * 128
    assert parameters(unit) == first + 2 * rest == 132_736
    assert parameters(resnet_unit(64, 3, 64)) == 3 * rest
    assert unit(torch.randn(2, 3, 5, 5)).shape == (2, 64, 5, 5)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 300), st.sampled_from([12, 20, 40]), st.integers(3, 5))
def test_dense_unit_has_the_paper_s_width(inputs: int, growth: int, layers: int) -> None:
    unit = densenet(layers, growth)
    outputs = min(inputs, MAX_INPUTS[growth]) + growth * layers
    assert unit.outputs(inputs) == outputs
    model = dense_unit(inputs, layers, growth, unit.max_input)
    assert model(torch.randn(2, inputs, 3, 3)).shape == (2, outputs, 3, 3)
    reduced = not isinstance(model[0], DenseLayer)
    assert reduced == (inputs > MAX_INPUTS[growth])
    assert len(model) == layers + reduced


def test_dense_layer_order_and_parameters() -> None:
    """BN-ReLU-1x1(4k)-BN-ReLU-3x3(k); the input is kept in front."""
    layer = DenseLayer(30, 12)
    assert [type(module).__name__ for module in (*layer.narrow, *layer.grow)] == ["BatchNorm2d", "ReLU", "Conv2d"] * 2
    assert parameters(layer) == 2 * 30 + 30 * 48 + 2 * 48 + 9 * 48 * 12
    x = torch.randn(2, 30, 4, 4)
    kept = x.clone()
    assert torch.equal(layer(x)[:, :30], kept)
    assert torch.equal(x, kept)


def test_pooling_unit_rounds_up_and_averages_what_exists() -> None:
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    assert pooling_unit("max")(x).flatten().tolist() == [4, 5, 7, 8]
    assert pooling_unit("avg")(x).flatten().tolist() == [2, 3.5, 6.5, 8]
    pixel = torch.tensor([[[[-3.0]]]])
    assert torch.equal(pooling_unit("max")(pixel), pixel)
    assert torch.equal(pooling_unit("avg")(pixel), pixel)
    assert pooling_unit("avg")(torch.zeros(1, 5, 32, 28)).shape == (1, 5, 16, 14)


@pytest.mark.parametrize(("side", "last"), [(32, 2), (28, 2), (224, 14), (8, 1), (1, 1)])
def test_classifier_sees_the_flattened_map(side: int, last: int) -> None:
    arch = SPACE.from_text("R3-64,Pmax,Pavg,D5-20,Pmax,Pmax")
    with torch.device("meta"):
        model = SPACE.build(arch, image(3, side, side), Size())
        assert model(torch.empty(2, 3, side, side)).shape == (2, 10)
    assert model.get_submodule("classifier").in_features == last**2 * (64 + 5 * 20)


def test_parameters_at_full_width_by_hand() -> None:
    arch = SPACE.from_text("R3-64,Pmax,D5-40,Pavg")
    # 64 channels are reduced to 32; layer i reads 32 + 40 i channels.
    dense = 2 * 64 + 64 * 32 + sum(2 * w + 160 * w + 2 * 160 + 9 * 160 * 40 for w in range(32, 232, 40))
    wanted = 132_736 + dense + (8 * 8 * (32 + 5 * 40) + 1) * 10
    assert SPACE.costs(arch, CIFAR, Size())["params"] == wanted
    assert parameters(SPACE.build(arch, CIFAR, Size())) == wanted


def test_sizes_scale_width_and_depth() -> None:
    arch = SPACE.from_text("R10-256,D10-12,D3-40")
    half = SPACE.build(arch, CIFAR, Size(width_scale=0.5, depth_scale=0.5))
    resnet, dense, wide = half.get_submodule("units")  # type: ignore[misc]
    assert len(resnet) == 5
    assert resnet(torch.zeros(2, 3, 4, 4)).shape[1] == 128
    assert dense(torch.zeros(2, 128, 4, 4)).shape[1] == 64 + 5 * 6
    assert wide(torch.zeros(2, 94, 4, 4)).shape[1] == 16 + 2 * 20  # 1.5 layers are rounded to 2
    assert Size.preset("search").width_scale == 0.25
    assert Size.preset("full").fitted(CIFAR) == Size(width_scale=1, depth_scale=1)


@settings(max_examples=8, deadline=None)
@given(
    seeds,
    st.tuples(st.integers(1, 4), st.integers(1, 33), st.integers(1, 33)),
    st.integers(1, 12),
    st.builds(
        Size,
        width_scale=st.sampled_from([1 / 16, 0.25, 0.4, 1]),
        depth_scale=st.sampled_from([0.05, 0.3, 0.5, 1]),
    ),
)
def test_costs_are_those_of_the_built_network(seed: int, shape: tuple[int, int, int], outputs: int, size: Size) -> None:
    arch = moves.sample(SPACE, generator(seed))
    task = image(*shape, outputs=outputs)
    costs = SPACE.costs(arch, task, size)
    with torch.device("meta"):
        model = SPACE.build(arch, task, size).eval()
        with FlopCounterMode(display=False) as counter:
            assert model(torch.empty(1, *shape)).shape == (1, outputs)
    assert costs["params"] == parameters(model)
    assert costs["macs"] == counter.get_total_flops() / 2


# Choices and views.


@pytest.mark.parametrize(("units", "count"), [(12, 73), (16, 97), (1, 7), (50, 301)])
def test_six_choices_per_unit_and_the_length(units: int, count: int) -> None:
    space = AeCnn(units=units)
    assert len(tokens.encode(space, moves.sample(space, generator(0)))) == count
    options: dict[str, set[tuple[object, ...]]] = {}
    for choice in space.choices:
        options.setdefault(choice.kind, set()).add(choice.options)
    assert len(options) == 7
    assert all(len(variants) == 1 for variants in options.values())  # a kind shares its embeddings and heads


def test_small_spaces_have_the_size_that_counting_gives() -> None:
    plain = 8 * 3 + 8 + 8 + 3  # ResNet units, DenseNet units of growth 12, 20, 40
    assert moves.size(AeCnn(units=1)) == plain == 43
    assert moves.size(AeCnn(units=2)) == plain + plain * (plain + 2)
    assert moves.size(AeCnn(units=2, pools=0)) == plain + plain**2
    assert moves.size(AeCnn(units=2, min_pools=1)) == plain * 2
    assert moves.size(AeCnn(units=3, pools=2, min_pools=2)) == plain * 4


def test_sampling_honours_the_least_number_of_pools() -> None:
    """As in the paper's first generation, which has exactly four."""
    texts = random_texts(AeCnn(min_pools=4), 200)
    assert {text.count("P") for text in texts} == {4}
    assert not [text for text in texts if faults(text, 16)]
    assert len({text.count(",") for text in texts}) > 8


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_text_tokens_and_units_round_trip(seed: int) -> None:
    arch = moves.sample(SPACE, generator(seed))
    text = SPACE.to_text(arch)
    assert faults(text, 16) == []
    assert SPACE.from_text(text) == arch
    assert SPACE.from_text(f" {text.replace(',', ' , ')} ") == arch
    assert tokens.decode(SPACE, tokens.encode(SPACE, arch)) == arch
    assert [str(unit) for unit in SPACE.units(arch)] == text.split(",")
    assert list(SPACE.graph(arch).nodes) == ["input", *text.split(","), "output"]


def test_identity_is_the_list() -> None:
    archs = [moves.sample(AeCnn(units=2), generator(number)) for number in range(300)]
    assert len({SPACE.identity(arch) for arch in archs}) == len(set(archs)) < len(archs)
    assert SPACE.identity(SPACE.from_text("R3-64,R3-64")) != SPACE.identity(SPACE.from_text("R6-64"))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "unit 1 ''"),
        ("R3-64,", "unit 2 ''"),
        ("R3-64;Pmax", "unit 1 'R3-64;Pmax' is none of"),
        ("R3-64,Pmin", "unit 2 'Pmin' is none of"),
        ("r3-64", "none of R<blocks>-<channels>"),
        ("R11-64", "11 blocks; there are 3 to 10"),
        ("R3-65", r"channels 65 is none of \(64, 128, 256\)"),
        ("D6-40", "6 layers of growth 40; there are 3 to 5"),
        ("D3-13", "growth 13 is none of"),
        ("D2-12", "2 layers of growth 12; there are 3 to 10"),
        ("Pmax,R3-64", "does not begin with a pool"),
        ("R3-64" + ",Pmax" * 5, "has 5 pools; this space has 0 to 4"),
        (",".join(["R3-64"] * 17), "has 17 units; this space has 1 to 16"),
    ],
)
def test_bad_texts_are_explained(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        SPACE.from_text(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"units": 0}, "units is 0; use a whole number from 1 to 50"),
        ({"units": 51}, "units is 51"),
        ({"units": "4"}, "units is '4'"),
        ({"pools": -1}, "pools is -1; use a whole number from 0 to 50"),
        ({"pools": 2, "min_pools": 3}, "min_pools is 3; use a whole number from 0 to 2"),
        ({"units": 4, "min_pools": 4}, "min_pools is 4; use a whole number from 0 to 3"),
    ],
)
def test_impossible_arguments_are_explained(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        AeCnn(**arguments)


def test_wrong_tasks_sizes_and_architectures_are_explained() -> None:
    arch = SPACE.from_text("R3-64,Pmax")
    with pytest.raises(UsageError, match="needed are images"):
        SPACE.costs(arch, image(64), Size())
    with pytest.raises(UsageError, match=r"needed are images, .*'node-classification' has x"):
        SPACE.build(arch, Task(kind="node-classification", input_shape=(64,), outputs=10), Size())
    with pytest.raises(UsageError, match="needs its own Size"):
        SPACE.build(arch, CIFAR, SizeConfig())
    pool_first = Architecture("ae-cnn", {"length": 1, "unit1/type": "pool", "unit1/pool": "max"})
    with pytest.raises(UsageError, match="'pool' is not allowed for choice 'unit1/type'"):
        SPACE.build(pool_first, CIFAR, Size())


@pytest.mark.parametrize("space", [AeCnn(units=3, pools=1), AeCnn(units=7, pools=5, min_pools=4)], ids=["few", "pools"])
def test_other_limits_keep_the_contract(space: AeCnn) -> None:
    task = Task(kind=IMAGE_CLASSIFICATION, input_shape=(1, 8, 8), outputs=10)
    assert list(check(space, {task: sample_inputs(task, 4)})) == []


def test_a_small_network_learns() -> None:
    """Four pools leave one pixel of an 8x8 image; gradients pass them."""
    torch.manual_seed(0)
    model = SPACE.build(SPACE.from_text("D3-12,Pmax,R3-64,Pavg,Pmax,Pavg"), image(1, 8, 8, outputs=2), TINY)
    target = torch.arange(32) % 2
    inputs = torch.randn(32, 1, 8, 8) + 2 * target[:, None, None, None]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(model(inputs), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
