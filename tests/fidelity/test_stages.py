"""Stages: the published sizes of ResNeXt-50 and SKNet-50, and what their papers say of their blocks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.errors import UsageError
from nas_core.seeds import generator
from nas_core.task import image_task
from nas_core.testing.space import check as check_space
from search_spaces.operators.blocks import BLOCK
from search_spaces.operators.blocks.bottleneck import Bottleneck
from search_spaces.operators.blocks.resnext import resnext
from search_spaces.operators.blocks.selective_kernel import SelectiveKernel
from search_spaces.operators.blocks.suite import check
from search_spaces.regnet.space import RegNet
from search_spaces.stages.space import Size, Stages
from training import cost

SPACE = Stages()
IMAGENET = image_task((3, 224, 224), 1000)
OWN = """
from torch import nn


class Plain(nn.Sequential):
    choices = {"kernel": (1, 3)}

    def __init__(self, inputs, outputs, stride, kernel):
        super().__init__(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2), nn.ReLU())


class Wrong(Plain):
    choices = {"kernel": [1, 3]}


class Even(Plain):
    choices = {"kernel": (2,)}
"""


@pytest.mark.parametrize(
    ("name", "params", "gmacs"), [("ResNeXt-50", 25_028_904, 4.23), ("SKNet-50", 27_479_784, 4.46)]
)
def test_published_sizes(name: str, params: int, gmacs: float) -> None:
    """SKNet-50: 27.5 M and 4.47 G in its paper."""
    found = cost.costs(SPACE, SPACE.named[name], IMAGENET, Size.preset("full"), ("params", "macs"))
    assert found["params"] == params
    assert found["macs"] / 1e9 == pytest.approx(gmacs, abs=0.005)


@pytest.mark.parametrize("block", BLOCK.table)
def test_blocks_keep_their_contract(block: str) -> None:
    assert list(check(BLOCK.operator(block))) == []


def test_the_bottleneck_is_that_of_regnet() -> None:
    regnet = RegNet()
    built = regnet.build(moves.sample(regnet, generator(0)), image_task((3, 8, 8), 2), regnet.Size.preset("search"))
    block = BLOCK.operator("bottleneck").make(8, 16, 2, ratio=1, group_width=8, squeeze=0.25)
    assert type(built.blocks[0]) is type(block) is Bottleneck
    assert (block.grouped[0].groups, block.gate.squeeze.out_channels) == (2, 2)


def test_a_group_width_that_does_not_divide_is_lowered() -> None:
    block = BLOCK.operator("bottleneck").make(8, 24, 1, ratio=1, group_width=32, squeeze=0.0)
    assert block.grouped[0].groups == 3  # of 8


@pytest.mark.parametrize(
    ("cardinality", "base_width", "inner"), [(1, 64, 64), (2, 40, 80), (4, 24, 96), (8, 14, 112), (32, 4, 128)]
)
def test_templates_of_equal_cost(cardinality: int, base_width: int, inner: int) -> None:
    """Xie et al., table 2: the first stage of the templates C x d."""
    block = resnext(64, 256, 1, cardinality, base_width)
    assert (block.grouped[0].in_channels, block.grouped[0].groups) == (inner, cardinality)


def test_the_grouped_form_is_the_sum_of_the_paths() -> None:
    """Xie et al., figure 3: (c) is (a), a sum of C bottlenecks of width d."""
    torch.manual_seed(0)
    block = resnext(16, 64, 1, 4, 16).double().eval()
    x = torch.randn(2, 16, 5, 5, dtype=torch.float64)
    narrow, width = block.expand(x), block.grouped[0].in_channels // 4
    total = torch.zeros(2, 64, 5, 5, dtype=torch.float64)
    for path in range(4):
        own = slice(path * width, (path + 1) * width)
        y = nn.functional.conv2d(narrow[:, own], block.grouped[0].weight[own], padding=1)
        y = torch.relu(y / torch.sqrt(torch.ones((), dtype=torch.float64) + block.grouped[1].eps))
        total = total + nn.functional.conv2d(y, block.project[0].weight[:, own])
    expected = torch.relu(block.shortcut(x) + block.project[1](total))
    torch.testing.assert_close(block(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("branches", [2, 3])
def test_equal_logits_weigh_all_branches_alike(branches: int) -> None:
    """The weights are a softmax over the branches, for every channel by itself."""
    torch.manual_seed(0)
    unit = SelectiveKernel(8, 1, 2, branches, 4, 3).eval()
    x = torch.randn(2, 8, 7, 7)
    maps = torch.stack([branch(x) for branch in unit.branches])
    assert unit.squeeze[0].out_channels == 3  # the smallest
    for logits in unit.logits:
        nn.init.zeros_(logits.weight)
    torch.testing.assert_close(unit(x), maps.mean(0))
    assert unit.squeeze(maps.sum(0).mean((2, 3), keepdim=True)).sum((1, 2, 3)).min() > 0
    with torch.no_grad():
        unit.logits[1].weight[5] = 1e4
    answer = unit(x)
    torch.testing.assert_close(answer[:, 5], maps[1, :, 5])
    torch.testing.assert_close(answer[:, :5], maps.mean(0)[:, :5])


def test_kernels_grow_from_branch_to_branch() -> None:
    """A pixel sees as far as 3x3, 5x5, 7x7 kernels do."""
    unit = SelectiveKernel(4, 1, 1, 3, 2, 2).eval()
    for reach, branch in enumerate(unit.branches, 1):
        x = torch.zeros(1, 4, 9, 9, requires_grad=True)
        branch[0](x)[0, :, 4, 4].sum().backward()
        assert x.grad is not None
        seen = x.grad.abs().sum((0, 1)).nonzero()
        assert (seen.min(), seen.max(), len(seen)) == (4 - reach, 4 + reach, 9)


def test_widths_never_fall() -> None:
    for number in range(50):
        arch = moves.sample(SPACE, generator("stages", number))
        widths = [int(arch.values[f"stage{stage}/width"]) for stage in range(1, 5)]
        assert widths == sorted(widths)
    values = {**SPACE.named["ResNeXt-50"].values, "stage2/width": 128}
    assert "not allowed" in (SPACE.illegal(Architecture("stages", values)) or "")


def test_named_networks_are_where_they_can_be() -> None:
    assert set(SPACE.named) == {"ResNeXt-50", "SKNet-50"}
    assert set(Stages(blocks=("resnext",)).named) == {"ResNeXt-50"}
    assert Stages(stages=3).named == Stages(stages=5).named == {}


def test_a_block_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "my_blocks.py"
    file.write_text(OWN)
    space = Stages(stages=2, blocks=("resnext(base_width=4)", f"{file}:Plain"))
    assert [choice.name for choice in space.choices if choice.name.startswith("stage1/")] == [
        *("stage1/block", "stage1/depth", "stage1/width"),
        *("stage1/resnext(base_width=4)/cardinality", "stage1/Plain/kernel"),
    ]
    task = image_task((1, 8, 8), 3)
    assert list(check_space(space, {task: (torch.rand(4, 1, 8, 8),)}, samples=12)) == []
    for name, message in (
        ("Wrong", r"its choices of 'kernel' are \[1, 3\]; list them in a tuple"),
        ("Absent", "no object"),
    ):
        with pytest.raises(UsageError if name == "Wrong" else Exception, match=message):
            Stages(blocks=(f"{file}:{name}",))
    assert "answers (3, 16, 4, 4) instead of (3, 16, 4, 3)" in next(check(BLOCK.operator(f"{file}:Even")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"stages": 0}, "use 1 to 8"), ({"blocks": ("resnet",)}, "unknown block 'resnet'; did you mean 'resnext'")],
)
def test_errors(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Stages(**arguments)  # type: ignore[arg-type]
