"""What a router decides, and how tokens come to experts and back by it.

A routing is computed by `answer(experts, x)`: `[n, t, features]` to `[n, t, outputs]`, where `experts` is an operator
of the role `expert`. Chosen experts alone are computed; a program that is traced (`torch.export`, ONNX) computes all of
them and multiplies by 0 what was not chosen: the same answers, at the costs of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

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

    def within(self, capacity: float) -> Chosen:
        """With at most `ceil(capacity * tokens * k / experts)` tokens per expert: first choices before second ones, and
        among those the tokens that come first (Fedus et al. 2021, section 2.2; Lepikhin et al. 2021, algorithm 1)."""
        experts, (tokens, k) = self.shares.shape[-1], self.chosen.flatten(0, 1).shape
        most = -int(-capacity * tokens * k // experts)
        by_rank = self.chosen.flatten(0, 1).t().flatten()  # first choices of all tokens, then second ones
        order = by_rank.argsort(stable=True)
        starts = by_rank.bincount(minlength=experts).cumsum(0).roll(1)
        starts[0] = 0
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device) - starts[by_rank[order]]
        fits = (place < most).view(k, tokens).t().reshape(self.chosen.shape)
        return replace(self, kept=fits if self.kept is None else self.kept & fits)

    def loads(self) -> Tensor:
        counted = self.chosen if self.kept is None else self.chosen[self.kept]
        return counted.flatten().bincount(minlength=self.shares.shape[-1]).float()

    def dropped(self) -> Tensor:
        """The share of assignments that are not kept."""
        return self.weights.new_zeros(()) if self.kept is None else 1 - self.kept.float().mean()

    def answer(self, experts: nn.Module, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            return Mixed(self._spread(), self.shares).answer(experts, x)
        n, t, k = self.chosen.shape
        number = self.shares.shape[-1]
        chosen = self.chosen if self.kept is None else self.chosen.masked_fill(~self.kept, number)
        order = chosen.flatten().argsort(stable=True)
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        counts = chosen.flatten().bincount(minlength=number + 1).tolist()[:number]
        rows = _Dispatch.apply(x.flatten(0, 1), order, back, k)[: sum(counts)]
        answers = _computed(experts, rows, counts)
        if len(answers) < len(order):
            answers = torch.cat([answers, answers.new_zeros(len(order) - len(answers), answers.shape[1])])
        by_token = _Permuted.apply(answers, back, order).view(n * t, k, -1)
        weights = self.weights.view(n * t, 1, k).to(by_token.dtype)
        return (weights @ by_token).view(n, t, -1)

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
        every = experts(x.flatten(0, 1), Every()).unflatten(1, x.shape[:2])  # [experts, n, t, outputs]
        return torch.einsum("ento,nte->nto", every, self.weights.to(every.dtype))


@dataclass(frozen=True)
class Averaged:
    """Every sample by one expert, whose weights are the mean of all by its `shares [n, experts]`."""

    shares: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)

    def loads(self) -> Tensor:
        return self.shares.detach().sum(0)

    def answer(self, experts: nn.Module, x: Tensor) -> Tensor:
        answer: Tensor = experts(x, Merged(self.shares))
        return answer


@dataclass(frozen=True)
class Taken:
    """Every expert its tokens: of each sample those of numbers `tokens [n, experts, c]`, with `weights` of the same
    shape. A token may be taken by several, or by none."""

    tokens: Tensor
    weights: Tensor
    shares: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)

    def loads(self) -> Tensor:
        return self.tokens.new_full(self.tokens.shape[1:2], self.tokens.shape[0] * self.tokens.shape[2]).float()

    def answer(self, experts: nn.Module, x: Tensor) -> Tensor:
        n, t, features = x.shape
        number, c = self.tokens.shape[1:]
        places = self.tokens.flatten(1).unsqueeze(2)  # [n, experts * c, 1]
        rows = x.gather(1, places.expand(-1, -1, features)).unflatten(1, (number, c)).transpose(0, 1)
        answers = experts(rows.reshape(number, n * c, features), Every())
        weighted = answers.unflatten(1, (n, c)).transpose(0, 1) * self.weights.unsqueeze(3).to(answers.dtype)
        empty = answers.new_zeros(n, t, answers.shape[-1])
        return empty.scatter_add(1, places.expand(-1, -1, answers.shape[-1]), weighted.flatten(1, 2))


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


class _Permuted(torch.autograd.Function):
    """`rows[order]` of a permutation; the gradient is gathered by the inverse one, not added up."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(order, back)
        return rows.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        order, back = ctx.saved_tensors
        return _Permuted.apply(gradients[0], back, order), None, None


class _Dispatch(torch.autograd.Function):
    """Tokens `[tokens, features]` to their assignments, sorted by expert: `x[order // k]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, back: Tensor, k: int) -> Tensor:
        ctx.save_for_backward(order, back)
        ctx.k = k
        return x.index_select(0, order.div(k, rounding_mode="floor"))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        order, back = ctx.saved_tensors
        by_token = _Permuted.apply(gradients[0], back, order).unflatten(0, (-1, ctx.k))
        return by_token.sum(1), None, None, None
