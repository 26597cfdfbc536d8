"""What a router decides, and how tokens come to experts and back by it.

A routing is computed by `answer(experts, x)`: `[n, t, features]` to `[n, t, outputs]`, where `experts` is an operator
of the role `expert`. Chosen experts alone are computed; a program that is traced (`torch.export`, ONNX) computes all of
them and multiplies by 0 what was not chosen: the same answers, at the costs of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_spaces.layers.assigned import Every, Grouped, Merged, Split, groupable


class Routing(Protocol):
    """`shares` are a token's (or a sample's) probabilities of experts, `[..., experts]`; `terms` are what the router
    has to minimise, by name."""

    @property
    def shares(self) -> Tensor: ...

    @property
    def terms(self) -> Mapping[str, Tensor]: ...

    def answer(self, experts: nn.Module, x: Tensor) -> Tensor: ...

    def loads(self) -> Tensor:
        """How much of all work each expert does, `[experts]`."""
        ...


@dataclass(frozen=True)
class Chosen:
    """Every token its `k` experts: `chosen` and `weights [n, t, k]`. An assignment that is not `kept` (all are, where
    that is None) is not computed; the token passes that expert by."""

    chosen: Tensor
    weights: Tensor
    shares: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    kept: Tensor | None = None

    def of(self, real: Tensor) -> Chosen:
        """Those of the tokens that are `real [n, t]` alone."""
        there = real.unsqueeze(-1).expand_as(self.chosen)
        return replace(self, kept=there if self.kept is None else self.kept & there)

    def within(self, capacity: float) -> Chosen:
        """With at most `ceil(capacity * tokens * k / experts)` tokens per expert: first choices before second ones, and
        among those the tokens that come first (Fedus et al. 2021, section 2.2; Lepikhin et al. 2021, algorithm 1). What
        is not kept takes no place, and tokens are those whose first choice is."""
        experts, (tokens, k) = self.shares.shape[-1], self.chosen.flatten(0, 1).shape
        counted = tokens if self.kept is None else self.kept[..., 0].sum()
        most = -(-capacity * counted * k // experts)
        by_rank = self._placed().flatten(0, 1).t().flatten()  # first choices of all tokens, then second ones
        order = by_rank.argsort(stable=True)
        starts = by_rank.bincount(minlength=experts + 1).cumsum(0).roll(1)
        starts[0] = 0
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device) - starts[by_rank[order]]
        fits = (place < most).view(k, tokens).t().reshape(self.chosen.shape)
        return replace(self, kept=fits if self.kept is None else self.kept & fits)

    @cached_property
    def counts(self) -> Tensor:
        """How many assignments each expert computes, `[experts]`."""
        counted = self.chosen if self.kept is None else self.chosen[self.kept]
        return counted.flatten().bincount(minlength=self.shares.shape[-1])

    def loads(self) -> Tensor:
        return self.counts.float()

    def dropped(self) -> Tensor:
        """The share of assignments that are not kept."""
        return self.weights.new_zeros(()) if self.kept is None else 1 - self.kept.float().mean()

    def answer(self, experts: nn.Module, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            return Mixed(self._spread(), self.shares).answer(experts, x)
        n, t, k = self.chosen.shape
        order = self._placed().flatten().argsort(stable=True)
        places = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        counts: list[int] = self.counts.tolist()
        computed = order[: sum(counts)]
        sorting = _Sorting(computed, computed.div(k, rounding_mode="floor"), places.view(n * t, k))
        answers = _computed(experts, _Dispatched.apply(x.flatten(0, 1), sorting), counts)
        weights = self.weights.view(n * t, k).to(answers.dtype)
        answer: Tensor = _Combined.apply(answers, weights, sorting)
        return answer.view(n, t, -1)

    def _placed(self) -> Tensor:
        """The chosen experts, and after the last of all where an assignment is not kept."""
        return self.chosen if self.kept is None else self.chosen.masked_fill(~self.kept, self.shares.shape[-1])

    def _spread(self) -> Tensor:
        """The weights of all experts, 0 of those that are not chosen."""
        weights = self.weights if self.kept is None else self.weights * self.kept
        return torch.zeros_like(self.shares).scatter(-1, self.chosen, weights.to(self.shares.dtype))


@dataclass(frozen=True)
class Mixed:
    """Every token by all experts, with `weights [n, t, experts]`."""

    weights: Tensor
    shares: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)

    def loads(self) -> Tensor:
        return self.weights.detach().flatten(0, -2).sum(0)

    def answer(self, experts: nn.Module, x: Tensor) -> Tensor:
        every = experts(x.flatten(0, 1), Every())  # [experts, n * t, outputs]
        weights = self.weights.flatten(0, 1).to(every.dtype)
        return torch.einsum("ero,re->ro", every, weights).unflatten(0, x.shape[:2])


@dataclass(frozen=True)
class Averaged:
    """Every sample by one expert, whose weights are the mean of all by its `shares [n, experts]`. `of_tasks`, where
    those are the same for all samples of a task: those of all tasks, `[tasks, experts]`, and the samples' tasks."""

    shares: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    of_tasks: tuple[Tensor, Tensor] | None = None

    def loads(self) -> Tensor:
        return self.shares.detach().sum(0)

    def answer(self, experts: nn.Module, x: Tensor) -> Tensor:
        merged = Merged(self.shares) if self.of_tasks is None else Merged(*self.of_tasks)
        answer: Tensor = experts(x, merged)
        return answer


@dataclass(frozen=True)
class Taken:
    """Every expert its tokens: of each sample those of numbers `tokens [n, experts, c]`, with `weights` of the same
    shape. A token may be taken by several, or by none; one of weight 0 is not."""

    tokens: Tensor
    weights: Tensor
    shares: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)

    def loads(self) -> Tensor:
        return (self.weights > 0).sum((0, 2)).float()

    def answer(self, experts: nn.Module, x: Tensor) -> Tensor:
        n, t, features = x.shape
        number, c = self.tokens.shape[1:]
        samples = torch.arange(n, device=x.device).view(n, 1, 1)
        places = (self.tokens + samples * t).transpose(0, 1).flatten()  # by expert, sample and token
        answers = experts(x.flatten(0, 1).index_select(0, places).view(number, n * c, features), Every())
        weighted = answers * self.weights.transpose(0, 1).reshape(number, n * c, 1).to(answers.dtype)
        rows, into = weighted.flatten(0, 1), places.unsqueeze(1).expand(-1, answers.shape[-1])
        return answers.new_zeros(n * t, answers.shape[-1]).scatter_add(0, into, rows).view(n, t, -1)


def _computed(experts: nn.Module, rows: Tensor, counts: list[int]) -> Tensor:
    """The answers of rows sorted by expert, in the type that autocast asks for: it does not know grouped products."""
    kind = rows.device.type
    if torch.is_autocast_enabled(kind) and rows.dtype is torch.float32:
        rows = rows.to(torch.get_autocast_dtype(kind))
    widths = {width for parameter in experts.parameters() if parameter.dim() == 3 for width in parameter.shape[1:]}
    if len(counts) > 1 and groupable(rows.dtype, rows.device, sorted(widths)):
        answer: Tensor = experts(rows, Grouped(counts, rows.device))
        return answer
    return experts(rows, Split(counts))


class _Sorting(NamedTuple):
    """`order [rows]`: which assignment, counted token by token, each row is; `tokens [rows]`: whose it is; `places
    [tokens, k]`: which row each assignment is, from `rows` on where it is not computed."""

    order: Tensor
    tokens: Tensor
    places: Tensor

    def collected(self, rows: Tensor, weights: Tensor | None = None) -> Tensor:
        """The sum of the rows of each token, `[tokens, features]`, by `weights [tokens, k]`, in one pass: without a
        copy of the rows in the order of the tokens."""
        places = self.places
        if len(rows) < places.numel():  # a row of zeros for those that are not computed
            rows, places = torch.cat([rows, rows.new_zeros(1, rows.shape[1])]), places.clamp_max(len(rows))
        return functional.embedding_bag(places, rows.contiguous(), mode="sum", per_sample_weights=weights)


class _Dispatched(torch.autograd.Function):
    """Tokens `[tokens, features]` to their rows, sorted by expert. The gradient is gathered, not added up by index."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sorting: _Sorting) -> Tensor:
        ctx.sorting = sorting
        return x.index_select(0, sorting.tokens)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Collected.apply(gradients[0], ctx.sorting), None


class _Collected(torch.autograd.Function):
    """Rows to the sums of each token's."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sorting: _Sorting) -> Tensor:
        ctx.sorting = sorting
        return sorting.collected(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Dispatched.apply(gradients[0], ctx.sorting), None


class _Combined(torch.autograd.Function):
    """Rows to the sums of each token's by `weights [tokens, k]`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weights: Tensor, sorting: _Sorting) -> Tensor:
        ctx.save_for_backward(rows, weights)
        ctx.sorting = sorting
        return sorting.collected(rows, weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        rows, weights = ctx.saved_tensors
        order, _, places = ctx.sorting
        by_row = _Dispatched.apply(gradients[0], ctx.sorting)
        by_weight = None
        if ctx.needs_input_grad[1]:
            products = torch.linalg.vecdot(by_row, rows)
            by_weight = torch.zeros_like(weights).flatten().scatter(0, order, products).view_as(places)
        each = weights.flatten().index_select(0, order).unsqueeze(1)
        by_row = by_row * each if torch.is_grad_enabled() else by_row.mul_(each)
        return by_row, by_weight, None
