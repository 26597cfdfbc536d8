"""RegNet: the width rule, parameter counts and costs of Radosavovic et al. (CVPR 2020) and its released code."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from nas_core import moves
from nas_core.errors import UsageError
from nas_core.seeds import generator
from nas_core.task import IMAGE_CLASSIFICATION, Task
from search_spaces.regnet.space import (
    GROUP_WIDTHS,
    W_0,
    W_A,
    W_M,
    RegNet,
    Size,
    Stage,
    block_widths,
    build_network,
    compatible,
    network_costs,
    raw_stages,
    regnet_stages,
    scaled,
)

IMAGENET = Task(kind=IMAGE_CLASSIFICATION, input_shape=(3, 224, 224), outputs=1000)

# (w_a, w_0, w_m, depth, group width), raw widths, built widths, depths
TABLE = {
    "X-200MF": ((36.44, 24, 2.49, 13, 8), [24, 56, 152, 368], [24, 56, 152, 368], [1, 1, 4, 7]),
    "X-400MF": ((24.48, 24, 2.54, 22, 16), [24, 64, 152, 392], [32, 64, 160, 384], [1, 2, 7, 12]),
    "X-3.2GF": ((26.31, 88, 2.25, 25, 48), [88, 200, 448, 1000], [96, 192, 432, 1008], [2, 6, 15, 2]),
    "X-8.0GF": ((49.56, 80, 2.88, 23, 120), [80, 232, 664, 1912], [80, 240, 720, 1920], [2, 5, 15, 1]),
    "Y-4.0GF": ((31.41, 96, 2.24, 22, 64), [96, 216, 480, 1080], [128, 192, 512, 1088], [2, 6, 12, 2]),
}


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", TABLE)
def test_width_rule_gives_the_published_stages(name: str) -> None:
    numbers, raw, built, depths = TABLE[name]
    assert raw_stages(block_widths(*numbers[:4])) == list(zip(raw, depths, strict=True))
    stages = regnet_stages(*numbers)
    assert [stage.width for stage in stages] == built
    assert [stage.depth for stage in stages] == depths
    assert sum(depths) == numbers[3]


def test_group_width_is_lowered_to_a_narrow_stage() -> None:
    """X-8.0GF has group width 120 and a first stage of 80 channels: one group of 80."""
    stages = regnet_stages(*TABLE["X-8.0GF"][0])
    assert [stage.inner // stage.groups for stage in stages] == [80, 120, 120, 120]


def test_rounding_is_half_to_even() -> None:
    assert compatible(24, 16) == (32, 32, 2)  # 1.5 groups become 2
    assert compatible(40, 16) == (32, 32, 2)  # 2.5 groups become 2, not 3
    assert compatible(8, 3, bottleneck=2) == (6, 3, 1)  # inner width 4 is 1.33 groups
    assert block_widths(10, 20, 2.0, 1) == [16]  # 2.5 quanta


@pytest.mark.parametrize(
    ("numbers", "se", "count"),
    [
        (TABLE["X-200MF"][0], False, 2_684_792),
        (TABLE["X-200MF"][0], True, 3_162_996),  # Y-200MF has the same five numbers
        (TABLE["X-3.2GF"][0], False, 15_296_552),
    ],
)
def test_published_parameter_counts(numbers: tuple[float, int, float, int, int], se: bool, count: int) -> None:
    size = Size.preset("imagenet")
    with torch.device("meta"):
        model = build_network(regnet_stages(*numbers), IMAGENET, size, se)
    assert parameters(model) == count
    assert network_costs(regnet_stages(*numbers), IMAGENET, size, se)["params"] == count


def test_regnetx_200mf_has_200_million_macs() -> None:
    macs = network_costs(regnet_stages(*TABLE["X-200MF"][0]), IMAGENET, Size.preset("imagenet"), se=False)["macs"]
    assert macs == pytest.approx(200e6, rel=0.01)


SPACES = (RegNet(), RegNet(stages=1, se=False), RegNet(stages=3, bottleneck=2), RegNet(stages=4, bottleneck=4))


@settings(max_examples=8, deadline=None)
@given(
    st.sampled_from(SPACES),
    st.integers(0, 10_000),
    st.tuples(st.integers(1, 4), st.integers(1, 33), st.integers(1, 33)),
    st.integers(2, 12),
    st.builds(
        Size, stem_width=st.integers(1, 24), stem_stride=st.integers(1, 4), width_scale=st.sampled_from([0.25, 0.5, 1])
    ),
)
def test_costs_are_those_of_the_built_network(
    space: RegNet, seed: int, shape: tuple[int, int, int], outputs: int, size: Size
) -> None:
    arch = moves.sample(space, generator(seed))
    task = Task(kind=IMAGE_CLASSIFICATION, input_shape=shape, outputs=outputs)
    costs = space.costs(arch, task, size)
    with torch.device("meta"):
        model = space.build(arch, task, size).eval()
        with FlopCounterMode(display=False) as counter:
            assert model(torch.empty(1, *shape)).shape == (1, outputs)
    assert costs["params"] == parameters(model)
    assert costs["macs"] == counter.get_total_flops() / 2


def test_every_architecture_has_the_wished_number_of_stages() -> None:
    for space, wanted in zip(SPACES, (2, 1, 3, 4), strict=True):
        archs = list(moves.enumerate_all(space))[::5]
        assert all(len(space.stages(arch)) == wanted for arch in archs)
        assert all(space.illegal(arch) is None for arch in archs)


def test_no_legal_architecture_is_left_out() -> None:
    """`allowed` restricts to exactly the parameters that the width rule turns into two stages."""
    wanted = {
        (depth, w_0, w_a, w_m)
        for depth in range(6, 17)
        for w_0 in W_0
        for w_a in W_A
        for w_m in W_M
        if len(raw_stages(block_widths(w_a, w_0, w_m, depth))) == 2
    }
    found = [tuple(arch.values.values()) for arch in moves.enumerate_all(RegNet())]
    assert {values[:4] for values in found} == wanted
    assert len(found) == len(wanted) * len(GROUP_WIDTHS) == 11_640


def test_identity_is_the_network() -> None:
    """Architectures share an identity exactly when they are built with the same shapes."""
    space = RegNet(stages=1, max_depth=6)
    task = Task(kind=IMAGE_CLASSIFICATION, input_shape=(1, 8, 8), outputs=10)
    shapes: dict[str, set[tuple[object, ...]]] = {}
    archs = list(moves.enumerate_all(space))[::17]
    for arch in archs:
        with torch.device("meta"):
            model = space.build(arch, task, Size())
        groups = tuple(module.groups for module in model.modules() if isinstance(module, torch.nn.Conv2d))
        key = (groups, *(tuple(parameter.shape) for parameter in model.parameters()))
        shapes.setdefault(space.identity(arch), set()).add(key)
    assert all(len(keys) == 1 for keys in shapes.values())
    assert len({next(iter(keys)) for keys in shapes.values()}) == len(shapes)
    assert 1 < len(shapes) < len(archs)


def test_stages_are_resolutions() -> None:
    """Each stage halves the resolution once, also where two stages have the same built width."""
    stages = (Stage(2, 32, 32, 2), Stage(1, 32, 32, 2))
    task = Task(kind=IMAGE_CLASSIFICATION, input_shape=(3, 32, 32), outputs=10)
    model = build_network(stages, task, Size(stem_width=16), se=False)
    assert model.get_submodule("blocks")(torch.zeros(2, 16, 32, 32)).shape == (2, 32, 8, 8)


def test_width_scale_keeps_group_widths() -> None:
    assert scaled((Stage(2, 64, 64, 4),), 0.5) == (Stage(2, 32, 32, 2),)
    assert scaled((Stage(2, 64, 32, 4),), 0.5) == (Stage(2, 32, 16, 2),)
    assert scaled((Stage(2, 16, 16, 1),), 0.5) == (Stage(2, 8, 8, 1),)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stages": 9}, "has 9 stages; lower stages"),
        ({"bottleneck": 3}, "bottleneck is 3; use one of"),
        ({"min_depth": 20}, "use 1 <= min_depth <= max_depth"),
    ],
)
def test_impossible_arguments_are_explained(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RegNet(**arguments)  # type: ignore[arg-type]


def test_wrong_tasks_are_explained() -> None:
    space = RegNet()
    arch = moves.sample(space, generator(0))
    with pytest.raises(UsageError, match="needed are images"):
        space.costs(arch, Task(kind=IMAGE_CLASSIFICATION, input_shape=(64,), outputs=10), Size())
    with pytest.raises(UsageError, match=r"needed are images, .*'node-classification' has x"):
        space.build(arch, Task(kind="node-classification", input_shape=(64,), outputs=10), Size())
