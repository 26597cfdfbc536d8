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
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
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

    def mlp(self, x: Tensor, up: tuple[Tensor, Tensor | None], down: tuple[Tensor, Tensor | None]) -> Tensor:
        """Two such maps with a GELU between them, each of its weights and biases."""
        return self.linear(functional.gelu(self.linear(x, *up)), *down)

    def apart(self, x: Tensor, sizes: Sequence[int]) -> Sequence[tuple[Tensor, Assignment]]:
        """Rows, and the assignment of them, for the first `sizes[0]` experts, for the next `sizes[1]`, and so on. The
        parts' answers one after the other, along the first dimension, are those of all."""
        ...


class Split(Assignment):
    """Rows sorted by expert: `counts` of the first, the second, ...; `[rows, inputs]` to `[rows, outputs]`."""

    def __init__(self, counts: Sequence[int]) -> None:
        self.counts = list(counts)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        answer: Tensor = _EachProduct.apply(x, weight, bias, self.counts)
        return answer

    def each(self, values: Tensor) -> Tensor:
        repeats = torch.tensor(self.counts, device=values.device)
        return values.repeat_interleave(repeats, 0, output_size=sum(self.counts))

    def apart(self, x: Tensor, sizes: Sequence[int]) -> Sequence[tuple[Tensor, Assignment]]:
        ends = list(accumulate(sizes))
        counts = [self.counts[end - size : end] for end, size in zip(ends, sizes, strict=True)]
        rows = x.split([sum(each) for each in counts])
        return [(piece, self._of(each, x.device)) for piece, each in zip(rows, counts, strict=True)]

    def _of(self, counts: Sequence[int], device: torch.device) -> Split:
        return Split(counts)


class Grouped(Split):
    """The same by one grouped product."""

    def __init__(self, counts: Sequence[int], device: torch.device) -> None:
        super().__init__(counts)
        self._groups = _Groups.of(self.counts, device)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        answer: Tensor = _GroupedProduct.apply(x, weight, bias, self._groups)
        return answer

    def mlp(self, x: Tensor, up: tuple[Tensor, Tensor | None], down: tuple[Tensor, Tensor | None]) -> Tensor:
        answer: Tensor = _GroupedMlp.apply(x, *up, *down, self._groups)
        return answer

    def _of(self, counts: Sequence[int], device: torch.device) -> Split:
        return Grouped(counts, device) if len(counts) > 1 and any(counts) else Split(counts)


class Every(Assignment):
    """Every row by every expert: `[rows, inputs]` or `[experts, rows, inputs]` to `[experts, rows, outputs]`."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        answer = x @ weight.transpose(1, 2)
        return answer if bias is None else answer + bias.unsqueeze(1)

    def each(self, values: Tensor) -> Tensor:
        return values.unsqueeze(1)

    def apart(self, x: Tensor, sizes: Sequence[int]) -> Sequence[tuple[Tensor, Assignment]]:
        return [(piece, self) for piece in ([x] * len(sizes) if x.dim() == 2 else x.split(list(sizes)))]


class Merged(Assignment):
    """Rows of samples, `[samples, rows, inputs]` to `[samples, rows, outputs]`, each sample by one matrix: the mean of
    the experts' by its `shares [samples, experts]`; with `rows [samples]`, by that row of `shares`."""

    def __init__(self, shares: Tensor, rows: Tensor | None = None) -> None:
        self._shares, self._rows = shares, rows

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        answer = x @ self.mean(weight).transpose(1, 2)
        return answer if bias is None else answer + self.each(bias)

    def each(self, values: Tensor) -> Tensor:
        return self.mean(values).unsqueeze(1)

    def apart(self, x: Tensor, sizes: Sequence[int]) -> Sequence[tuple[Tensor, Assignment]]:
        """Raises ValueError: experts of several kinds have no mean."""
        raise ValueError("experts of several kinds cannot be merged; use a router that chooses or mixes them")

    def mean(self, values: Tensor) -> Tensor:
        """Of `[experts, ...]` the mean for each sample, `[samples, ...]`."""
        merged = torch.tensordot(self._shares.to(values.dtype), values, 1)
        return merged if self._rows is None else merged[self._rows]


def number_of(experts: nn.Module) -> int:
    """How many experts a module holds: what it says itself (`number`), else the first dimension of its parameters."""
    own: int | None = getattr(experts, "number", None)
    return next(experts.parameters()).shape[0] if own is None else own


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


class _Groups(NamedTuple):
    """Sorted rows of groups: how many of each, where each ends (`offsets`, int32) and starts, and all rows."""

    counts: list[int]
    offsets: Tensor
    starts: Tensor
    rows: Tensor

    @classmethod
    def of(cls, counts: list[int], device: torch.device) -> _Groups:
        sizes = torch.tensor(counts, device=device)
        offsets = sizes.cumsum(0, dtype=torch.int32)
        return cls(counts, offsets, offsets - sizes, torch.arange(sum(counts), device=device))

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """`x W + b`. A bias is added to whole groups: a row of them per row of `x` would cost as much memory as the
        answer."""
        answer: Tensor = functional.grouped_mm(x, weight, offs=self.offsets)
        if bias is not None:
            for rows, own in zip(answer.split(self.counts), bias, strict=True):
                rows += own
        return answer

    def by_weight(self, gradient: Tensor, x: Tensor) -> Tensor:
        return functional.grouped_mm(gradient.t(), x, offs=self.offsets)

    def by_bias(self, gradient: Tensor) -> Tensor:
        """The sums of the groups' rows, in one operation for all."""
        return functional.embedding_bag(self.rows, gradient, self.starts, mode="sum")


class _GroupedProduct(torch.autograd.Function):
    """`grouped_mm` and a bias per group. Its backward takes gradients of any strides: those of a sum are spread out of
    one number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, groups: _Groups) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.groups = groups
        return groups.product(x, weight.transpose(1, 2), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        by_x = by_weight = by_bias = None
        if ctx.needs_input_grad[0]:
            by_x = _GroupedProduct.apply(gradient, weight.transpose(1, 2), None, ctx.groups)
        if ctx.needs_input_grad[1]:
            by_weight = ctx.groups.by_weight(gradient, x)
        if ctx.needs_input_grad[2]:
            by_bias = ctx.groups.by_bias(gradient)
        return by_x, by_weight, by_bias, None


class _GroupedMlp(torch.autograd.Function):
    """Two of them with a GELU between, whose gradient overwrites that of its answer. Of a few hundred rows three
    functions of their own take longer than what they compute."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, up: Tensor, up_bias: Tensor | None, down: Tensor, down_bias: Tensor | None, groups: _Groups
    ) -> Tensor:
        hidden = groups.product(x, up.transpose(1, 2), up_bias)
        bent = functional.gelu(hidden)
        ctx.save_for_backward(x, up, up_bias, down, down_bias, hidden, bent)
        ctx.groups = groups
        return groups.product(bent, down.transpose(1, 2), down_bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        groups, (*given, hidden, bent) = ctx.groups, ctx.saved_tensors
        x, up, _, down, _ = given
        if torch.is_grad_enabled():  # to be differentiated again
            return _of_composed(given, ctx.needs_input_grad, gradients[0], groups)
        needed = ctx.needs_input_grad
        gradient = gradients[0].contiguous()
        by_down = groups.by_weight(gradient, bent) if needed[3] else None
        by_down_bias = groups.by_bias(gradient) if needed[4] else None
        inner = groups.product(gradient, down)
        torch.ops.aten.gelu_backward.grad_input(inner, hidden, grad_input=inner)
        by_up = groups.by_weight(inner, x) if needed[1] else None
        by_up_bias = groups.by_bias(inner) if needed[2] else None
        by_x = groups.product(inner, up) if needed[0] else None
        return by_x, by_up, by_up_bias, by_down, by_down_bias, None


def _of_composed(
    given: Sequence[Tensor | None], needed: Sequence[bool], gradient: Tensor, groups: _Groups
) -> tuple[Tensor | None, ...]:
    """The gradients of a grouped MLP, with a graph of their own, by those of its parts."""
    x, up, up_bias, down, down_bias = given
    bent = functional.gelu(_GroupedProduct.apply(x, up, up_bias, groups))
    answer = _GroupedProduct.apply(bent, down, down_bias, groups)
    wanted = [tensor for tensor, need in zip(given, needed, strict=False) if need and tensor is not None]
    found = iter(torch.autograd.grad(answer, wanted, gradient, create_graph=True))
    return *(next(found) if need else None for need in needed[:5]), None
