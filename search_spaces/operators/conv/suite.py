"""The contract of operations on feature maps: `check` yields what is wrong with one; no finding means that it holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from nas_core.relax import Style
from search_spaces.counter import counts
from search_spaces.layers.drop_path import DropPath
from search_spaces.layers.features import Features
from search_spaces.operators.conv import CELL, EDGE
from search_spaces.operators.operator import Operator

CHANNELS, SHAPE = 4, (7, 6)


class OnMap(nn.Module):
    """An operation as a network of a map; what adds nothing answers zeros."""

    def __init__(self, operator: Operator, operation: nn.Module) -> None:
        super().__init__()
        self.operation = operation
        self.on_node = operator.role in (EDGE, CELL)

    def forward(self, x: Tensor) -> Tensor:
        node = Features(x)
        answer: Tensor | None = self.operation(node if self.on_node else x)
        return self.operation.zeros(node) if answer is None else answer


def made(operator: Operator, stride: int, style: Style = Style.STANDALONE, drop_path: DropPath | None = None) -> OnMap:
    """The operation for maps of `CHANNELS`."""
    further = {"style": style, "drop_path": drop_path}
    arguments = [CHANNELS, stride, *(further[name] for name in operator.role.made_by if name in further)]
    return OnMap(operator, operator.make(*arguments))


def counted(operator: Operator, stride: int, shape: tuple[int, int] = SHAPE) -> tuple[int, int]:
    """Parameters and multiply-accumulates for one map."""
    return counts(lambda: made(operator, stride), (torch.ones(1, CHANNELS, *shape),))


def check(operator: Operator, strides: Sequence[int] = (1, 2)) -> Iterator[str]:
    """What is wrong with an operation, in a sentence each."""
    with torch.random.fork_rng(devices=[]):
        for stride in strides:
            for style in Style if "style" in operator.role.made_by else (Style.STANDALONE,):
                for finding in _findings(operator, stride, style):
                    yield f"{operator.role.name} '{operator.reference}', stride {stride}, {style}: {finding}"


def _findings(operator: Operator, stride: int, style: Style) -> Iterator[str]:
    torch.manual_seed(0)
    module = made(operator, stride, style)
    x = torch.randn(3, CHANNELS, *SHAPE, requires_grad=True)
    answer = module(x)
    wanted = (3, CHANNELS, *(-(-side // stride) for side in SHAPE))
    if tuple(answer.shape) != wanted:
        yield f"answers {tuple(answer.shape)} instead of {wanted}"
        return
    if operator.zero != (not answer.any()):
        yield f"zero is {operator.zero}, but its answer says otherwise"
    if operator.skip and stride == 1 and not torch.equal(answer, x):
        yield "skip is True, but it does not hand its input on"
    if not operator.zero:
        answer.square().sum().backward()
        if x.grad is None or not x.grad.abs().sum() > 0:
            yield "its input gets no gradient"
        for name, parameter in module.named_parameters():
            if parameter.grad is None or not torch.isfinite(parameter.grad).all():
                yield f"parameter '{name}' gets no finite gradient"
    if counted(operator, stride)[0] != sum(one.numel() for one in made(operator, stride).parameters()):
        yield "its parameters are counted wrongly"
    yield from _weighted(module, x.detach())
    yield from _dropped(operator, stride, style, x.detach())
    if style == Style.STANDALONE:
        module.eval()
        program = torch.export.export(module, (x.detach(),)).module()
        if not torch.allclose(program(x.detach()), module(x.detach()), atol=1e-5):
            yield "its exported program answers differently"


def _weighted(module: OnMap, x: Tensor) -> Iterator[str]:
    """What is cheaper than to multiply the answer is the same."""
    operation, weight = module.operation, torch.tensor(0.3)
    if hasattr(operation, "weighted"):
        cheap = operation.weighted(weight, Features(x))
        if not torch.allclose(cheap, weight * module(x), atol=1e-5):
            yield "weighted(w, x) is not w times its answer"


def _dropped(operator: Operator, stride: int, style: Style, x: Tensor) -> Iterator[str]:
    """All paths but skips are dropped, a sample at a time."""
    if "drop_path" not in operator.role.made_by or operator.zero:
        return
    drop = DropPath(0.999)
    drop.set_progress(1.0)
    nothing = not made(operator, stride, style, drop).train()(x).any()
    if nothing == operator.skip:
        yield "a path that is dropped is there" if not operator.skip else "a skip is dropped"
