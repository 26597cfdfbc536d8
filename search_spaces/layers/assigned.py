"""Linear maps of which every row of a matrix has its own: the one of the expert that it is assigned to.

An expert is written once, over an *assignment*: `linear` maps each row by its expert's matrix, `each` gives each row
its expert's vector. What an assignment is decides how it is computed:
- `Grouped`: rows sorted by expert, one grouped product (`torch.nn.functional.grouped_mm`) for all of them;
- `Split`: rows sorted by expert, a product for each; any type, width and version of torch;
- `Every`: every expert computes every row, as exported programs do, whose shapes must not depend on values;
- `Merged`: one expert per sample, the mean of all by the sample's shares (SMEAR).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

ALIGNED = 16  # bytes: what strides of rows must be multiples of in grouped products


class Assignment(Protocol):
    """Which expert each row belongs to."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """`x W^T + b` with the matrix and bias of each row's expert; `weight [experts, outputs, inputs]`, `bias
        [experts, outputs]`, in the type of `x`."""
        ...

    def each(self, values: Tensor) -> Tensor:
        """Of `values [experts, ...]` those of each row's expert, in a shape that spreads to the rows' own."""
        ...


class Split:
    """Rows sorted by expert: `counts` of the first, the second, ...; `[rows, inputs]` to `[rows, outputs]`."""

    def __init__(self, counts: Sequence[int]) -> None:
        self.counts = list(counts)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        answer: Tensor = _EachProduct.apply(x, weight, bias, self.counts)
        return answer

    def each(self, values: Tensor) -> Tensor:
        repeats = torch.tensor(self.counts, device=values.device)
        return values.repeat_interleave(repeats, 0, output_size=sum(self.counts))


class Grouped(Split):
    """The same by one grouped product."""

    def __init__(self, counts: Sequence[int], device: torch.device) -> None:
        super().__init__(counts)
        self._offsets = torch.tensor(self.counts, device=device).cumsum(0, dtype=torch.int32)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        answer: Tensor = _GroupedProduct.apply(x, weight.transpose(1, 2), bias, self._offsets, self.counts)
        return answer


class Every:
    """Every row by every expert: `[rows, inputs]` or `[experts, rows, inputs]` to `[experts, rows, outputs]`."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        answer = x @ weight.transpose(1, 2)
        return answer if bias is None else answer + bias.unsqueeze(1)

    def each(self, values: Tensor) -> Tensor:
        return values.unsqueeze(1)


class Merged:
    """Rows of samples, `[samples, rows, inputs]` to `[samples, rows, outputs]`, each sample by one matrix: the mean of
    the experts' by its `shares [samples, experts]`; with `rows [samples]`, by that row of `shares`."""

    def __init__(self, shares: Tensor, rows: Tensor | None = None) -> None:
        self._shares, self._rows = shares, rows

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        answer = x @ self.mean(weight).transpose(1, 2)
        return answer if bias is None else answer + self.each(bias)

    def each(self, values: Tensor) -> Tensor:
        return self.mean(values).unsqueeze(1)

    def mean(self, values: Tensor) -> Tensor:
        """Of `[experts, ...]` the mean for each sample, `[samples, ...]`."""
        merged = torch.tensordot(self._shares.to(values.dtype), values, 1)
        return merged if self._rows is None else merged[self._rows]


def groupable(kind: torch.dtype, device: torch.device, widths: Sequence[int]) -> bool:
    """Whether there is a grouped product of this type on this device, for rows of all these widths."""
    if getattr(functional, "grouped_mm", None) is None or torch.compiler.is_compiling():
        return False
    if any(width * kind.itemsize % ALIGNED for width in widths):
        return False
    if device.type == "cpu":
        return kind in (torch.float32, torch.bfloat16) and _version() >= (2, 11)
    return device.type == "cuda" and kind is torch.bfloat16 and torch.cuda.get_device_capability(device) >= (8, 0)


def _version() -> tuple[int, int]:
    major, minor, *_ = torch.__version__.split(".")
    return int(major), int(minor)


class _EachProduct(torch.autograd.Function):
    """`x W^T + b` group by group, into one tensor: what is put together of the groups' own answers is written twice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, counts: Sequence[int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.counts = counts
        answer = x.new_empty(len(x), weight.shape[1])
        for number, (rows, into) in enumerate(zip(x.split(counts), answer.split(counts), strict=True)):
            if bias is None:
                torch.mm(rows, weight[number].t(), out=into)
            else:
                torch.addmm(bias[number], rows, weight[number].t(), out=into)
        return answer

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (gradient,) = gradients
        by_x = by_weight = by_bias = None
        if ctx.needs_input_grad[0]:
            by_x = _EachProduct.apply(gradient, weight.transpose(1, 2), None, ctx.counts)
        if ctx.needs_input_grad[1]:
            pieces = zip(gradient.split(ctx.counts), x.split(ctx.counts), strict=True)
            by_weight = torch.stack([rows.t() @ inputs for rows, inputs in pieces])
        if ctx.needs_input_grad[2]:
            by_bias = torch.stack([rows.sum(0) for rows in gradient.split(ctx.counts)])
        return by_x, by_weight, by_bias, None


class _GroupedProduct(torch.autograd.Function):
    """`grouped_mm` and a bias per group. Its backward takes gradients of any strides: those of a sum are spread out of
    one number. Biases are added to, and gathered from, whole groups: a row of them per row of `x` would cost as much
    memory as the answer."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, offsets: Tensor, counts: Sequence[int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight, offsets)
        ctx.counts = counts
        answer = functional.grouped_mm(x, weight, offs=offsets)
        if bias is not None:
            for rows, own in zip(answer.split(counts), bias, strict=True):
                rows += own
        return answer

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, offsets = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        by_x = by_weight = by_bias = None
        if ctx.needs_input_grad[0]:
            by_x = _GroupedProduct.apply(gradient, weight.transpose(1, 2), None, offsets, ctx.counts)
        if ctx.needs_input_grad[1]:
            by_weight = functional.grouped_mm(gradient.t(), x, offs=offsets).transpose(1, 2)
        if ctx.needs_input_grad[2]:
            by_bias = torch.stack([rows.sum(0) for rows in gradient.split(ctx.counts)])
        return by_x, by_weight, by_bias, None, None
