"""A layer of experts: a router, the experts it chooses among, and some that every token passes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nas_core.errors import UsageError
from search_spaces.layers.assigned import Every, number_of
from search_spaces.layers.dispatch import Chosen, Routing


class MixtureOfExperts(nn.Module):
    """`[n, t, features]` to `[n, t, outputs]`: the experts that `router` chooses, by its weights, plus `shared` ones,
    which are an operator of the role `expert` with one expert. A row of a table is a sample of one token. Where
    sequences are padded, `real [n, t]` says which positions are tokens: no others are routed, computed or counted, and
    their answer is 0. A router that decides by the tokens of a sample together is given `real`, any other one each real
    token as a sample of its own.

    `capacity`: in training an expert computes at most `ceil(capacity * tokens * k / experts)` tokens of a batch, and
    the others pass it by; `capacity_eval`: so in evaluation too, where an answer depends on the other samples of a
    batch then. None: all are computed. The router computes in float32, under autocast too. Raises UsageError where a
    capacity that is not positive is given; ValueError in the first pass where one is and the router chooses no experts
    per token.

    Handed over in training (`nas_core.traits.Extra`): the terms of the router, and as statistics `load_ratio`, the
    largest load of an expert over the mean; `dead_share`, the share of experts without any; `router_entropy`, that of a
    token's probabilities over log(experts); `dropped_share`, of assignments beyond the capacity. `loads [experts]` are
    those of the last pass.
    """

    loads: Tensor

    def __init__(
        self,
        router: nn.Module,
        experts: nn.Module,
        shared: nn.Module | None = None,
        capacity: float | None = None,
        capacity_eval: float | None = None,
    ) -> None:
        super().__init__()
        for name, given in (("capacity", capacity), ("capacity_eval", capacity_eval)):
            if given is not None and not 0 < given < math.inf:
                raise UsageError(f"layer of experts: {name} is {given}; give a positive number, or None for no limit")
        self.router, self.experts, self.shared = router, experts, shared
        self.capacity, self.capacity_eval = capacity, capacity_eval
        self.register_buffer("loads", torch.zeros(number_of(experts)), persistent=False)
        self._held: tuple[Mapping[str, Tensor], Tensor, Tensor | None] | None = None

    def forward(self, x: Tensor, condition: Tensor | None = None, real: Tensor | None = None) -> Tensor:
        if real is None:
            return self._answer(x, condition)
        if not (self._by_sample or torch.compiler.is_exporting()):  # shapes of programs must not depend on values
            told = None if condition is None else condition[real.nonzero()[:, 0]]
            tokens = self._answer(x[real].unsqueeze(1), told).squeeze(1)
            return tokens.new_zeros(*real.shape, tokens.shape[-1]).masked_scatter(real.unsqueeze(-1), tokens)
        return self._answer(x, condition, real) * real.unsqueeze(-1)

    def _answer(self, x: Tensor, condition: Tensor | None, real: Tensor | None = None) -> Tensor:
        routing: Routing = self._routed(x if x.dtype is torch.float64 else x.float(), condition, real)
        capacity = self.capacity if self.training else self.capacity_eval
        if isinstance(routing, Chosen):
            routing = routing if real is None else routing.of(real)
            routing = routing if capacity is None else routing.within(capacity)
        elif (self.capacity, self.capacity_eval) != (None, None):
            given = self.capacity or self.capacity_eval
            raise ValueError(f"capacity {given}: {type(self.router).__name__} chooses no experts per token")
        if not torch.compiler.is_exporting():
            self.loads = routing.loads().detach()
        dropped = routing.dropped() if isinstance(routing, Chosen) else None
        self._held = (routing.terms, _of_real(routing.shares.detach(), real), dropped) if self.training else None
        answer: Tensor = routing.answer(self.experts, x)
        if self.shared is not None:
            answer = answer + self.shared(x.flatten(0, 1), Every()).view_as(answer)
        return answer

    @property
    def _by_sample(self) -> bool:
        return getattr(self.router, "by_sample", False)

    def _routed(self, x: Tensor, condition: Tensor | None, real: Tensor | None) -> Any:
        given = (x, condition, real) if self._by_sample else (x, condition)
        if not torch.is_autocast_enabled(x.device.type):  # a context would be an operation of its own in a program
            return self.router(*given)
        with torch.autocast(x.device.type, enabled=False):
            return self.router(*given)

    def take(self) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        held, self._held = self._held, None
        if held is None:
            return {}, {}
        terms, shares, dropped = held
        return terms, statistics(shares, self.loads, dropped)

    def idle_params(self) -> int:
        """Those of the experts that are not active for a token, the mean where they differ; the router says how many
        are active."""
        active: Any = self.router.active
        every = sum(parameter.numel() for parameter in self.experts.parameters())
        idle: int = (len(self.loads) - active) * every // len(self.loads)
        return idle

    def __getstate__(self) -> dict[str, Any]:
        # A copy meets no graph of gradients.
        return {**super().__getstate__(), "_held": None}


def _of_real(shares: Tensor, real: Tensor | None) -> Tensor:
    """Of tokens those that are real, of samples all."""
    return shares if real is None or shares.dim() == real.dim() else shares[real]


def statistics(shares: Tensor, loads: Tensor, dropped: Tensor | None) -> Mapping[str, Tensor]:
    """Of one pass, without gradients; `dropped` is None where nothing can be."""
    entropy = torch.special.entr(shares).sum(-1).mean() / math.log(max(2, shares.shape[-1]))
    found = {
        "load_ratio": loads.max() / loads.mean().clamp_min(1e-9),
        "dead_share": (loads == 0).float().mean(),
        "router_entropy": entropy,
    }
    return found if dropped is None else {**found, "dropped_share": dropped}
