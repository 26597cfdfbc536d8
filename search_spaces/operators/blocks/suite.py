"""The contract of a block: `check` yields what is wrong with one; no finding means that it holds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
from torch import nn

from nas_core.choice import Value
from search_spaces.counter import counts
from search_spaces.operators.blocks import choices_of
from search_spaces.operators.operator import Operator

SHAPES = ((8, 16, 2), (16, 16, 1), (8, 24, 1))  # inputs, outputs, stride
SIDES = (7, 6)


def check(block: Operator) -> Iterator[str]:
    """What is wrong with a block, with the first and the last values of its options, in a sentence each."""
    options = choices_of(block)
    for values in product(*(dict.fromkeys((values[0], values[-1])) for values in options.values())):
        chosen = dict(zip(options, values, strict=True))
        where = f"block '{block.reference}'" + (f" with {chosen}" if chosen else "")
        for shape in SHAPES:
            try:
                with torch.random.fork_rng(devices=[]):
                    found = list(_findings(block, shape, chosen))
            except Exception as error:
                found = [f"raises {type(error).__name__}: {error}"]
            if found:
                yield from (f"{where}, inputs, outputs and stride {shape}: {finding}" for finding in found)
                return
    yield from _export(block)


def made(block: Operator, shape: tuple[int, int, int], chosen: dict[str, Value]) -> nn.Module:
    torch.manual_seed(0)
    return block.make(*shape, **chosen)


def _findings(block: Operator, shape: tuple[int, int, int], chosen: dict[str, Value]) -> Iterator[str]:
    inputs, outputs, stride = shape
    module = made(block, shape, chosen)
    x = torch.randn(3, inputs, *SIDES, requires_grad=True)
    answer = module(x)
    wanted = (3, outputs, *(-(-side // stride) for side in SIDES))
    if tuple(answer.shape) != wanted:
        yield f"answers {tuple(answer.shape)} instead of {wanted}"
        return
    answer.square().sum().backward()
    for name, parameter in module.named_parameters():
        if parameter.grad is None or not torch.isfinite(parameter.grad).all():
            yield f"parameter '{name}' gets no finite gradient"
    if x.grad is None or not x.grad.abs().sum() > 0:
        yield "its input gets no gradient"
    with torch.no_grad():
        module.eval()
        if not torch.allclose(module(x)[:1], module(x[:1]), atol=1e-5):
            yield "in evaluation mode a sample alone has another answer than in a batch"
    counted, macs = counts(lambda: made(block, shape, chosen), (x.detach()[:1],))
    if counted != sum(parameter.numel() for parameter in module.parameters()) or macs < 0:
        yield f"its costs are counted as {counted} parameters and {macs} MACs"


def _export(block: Operator) -> Iterator[str]:
    if getattr(block.kind, "why_not_exportable", None) is not None:
        return
    options = {name: values[-1] for name, values in choices_of(block).items()}
    module, x = made(block, SHAPES[0], options).eval(), torch.randn(3, SHAPES[0][0], *SIDES)
    try:
        program = torch.export.export(module, (x,)).module()
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        yield f"block '{block.reference}': torch.export cannot trace it ({first}); if so, say why in why_not_exportable"
        return
    if not torch.allclose(program(x), module(x), atol=1e-5):
        yield f"block '{block.reference}': its exported program answers differently"
