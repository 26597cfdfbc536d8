"""A trained feed-forward layer as a mixture of experts: its own hidden units in groups, of which a token passes a few
(CMoE, arXiv 2502.04416, section 3; how the groups are found is `compressors.cmoe`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "silu": functional.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
"""What may lie between the two linear maps, by name."""

TIE = 1e-6
"""What an expert is put back by behind the one before it: scores of ReLU are often 0 for several of them, and rounding
must not decide between those, which differs from one batch size and one program to the next."""

GATE, UP, DOWN = "gate", "up", "down"


class CarvedFeedForward(nn.Module):
    """`down(act(gate(x)) * up(x))`, or `down(act(gate(x)))` where it is not `gated`: `[..., features]` to `[...,
    outputs]`, of whose `hidden` units each token passes those of the shared experts and of the `active` routed ones
    with the highest score.

    Rows of `gate` and `up` and columns of `down` are ordered: `shared` experts first, then each routed one; all experts
    have `hidden / experts` units. A routed expert's score is the softmax over experts of the absolute hidden value of
    its representative unit with weights of norm 1 (`router_gate`, `router_up`, which stay as they are), plus `balance`,
    which no gradient changes (of scores that are equal up to `TIE` the first is taken); its answer is weighted by `1 +
    softmax * scale`. `load` counts in training mode how often each routed expert was chosen, until whoever balances
    them sets it to 0. `biases`: which of the three maps have one; `dropout`: of hidden values.

    Only the chosen experts are computed, and counted. A program that is traced of it (`torch.export`, ONNX) computes
    all of them and multiplies by 0 what was not chosen: its answers are the same, its costs are those of the dense
    layer. Raises ValueError for sizes that do not fit.
    """

    balance: Tensor
    load: Tensor

    def __init__(
        self,
        features: int,
        hidden: int,
        outputs: int,
        experts: int,
        shared: int,
        active: int,
        activation: str,
        gated: bool = False,
        biases: Iterable[str] = (GATE, UP, DOWN),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        routed = experts - shared
        if hidden % experts or not 0 <= shared < experts or not 1 <= active <= routed:
            raise ValueError(f"{hidden} units, {experts} experts, {shared} of them shared, {active} active")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation '{activation}' is none of {', '.join(ACTIVATIONS)}")
        self.features, self.hidden, self.outputs = features, hidden, outputs
        self.experts, self.shared, self.active = experts, shared, active
        self.activation, self.gated, self.dropout = activation, gated, dropout
        self.biases = tuple(name for name in (GATE, UP, DOWN) if name in biases and (gated or name != UP))
        self.gate = nn.Linear(features, hidden, GATE in self.biases)
        self.router_gate = nn.Linear(features, routed, GATE in self.biases).requires_grad_(False)
        self.up = nn.Linear(features, hidden, UP in self.biases) if gated else None
        self.router_up = nn.Linear(features, routed, UP in self.biases).requires_grad_(False) if gated else None
        self.down = nn.Linear(hidden, outputs, DOWN in self.biases)
        self.scale = nn.Parameter(torch.zeros(routed))
        self.register_buffer("balance", torch.zeros(routed))
        self.register_buffer("load", torch.zeros(routed, dtype=torch.long), persistent=False)

    @property
    def width(self) -> int:
        """Hidden units of one expert."""
        return self.hidden // self.experts

    @property
    def routed(self) -> int:
        """Experts of which `active` are chosen."""
        return self.experts - self.shared

    def no_decay(self) -> Iterable[nn.Parameter]:
        return (self.scale,)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(-1, self.features)
        chosen, weights = self.route(tokens)
        if self.training:
            self.load += chosen.flatten().bincount(minlength=self.routed)
        if self.active == self.routed or torch.compiler.is_exporting():
            answer = self._all(tokens, chosen, weights)
        else:
            common = self.shared * self.width
            answer = functional.linear(self._inner(tokens, 0, common), self.down.weight[:, :common], self.down.bias)
            answer = answer + self._chosen(tokens, chosen, weights)
        return answer.reshape(*x.shape[:-1], self.outputs)

    def route(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Of tokens `[n, features]` the chosen routed experts and their weights, both `[n, active]`."""
        score = ACTIVATIONS[self.activation](self.router_gate(tokens))
        if self.router_up is not None:
            score = score * self.router_up(tokens)
        share = score.abs().softmax(-1, dtype=torch.promote_types(score.dtype, torch.float32))
        later = torch.arange(self.routed, device=share.device, dtype=share.dtype)
        chosen = (share + self.balance - TIE * later).topk(self.active).indices
        return chosen, 1 + share.gather(1, chosen) * self.scale[chosen]

    def _inner(self, tokens: Tensor, start: int, stop: int) -> Tensor:
        """The hidden units `start` to `stop` of tokens `[n, features]`: `[n, stop - start]`."""

        def mapped(linear: nn.Linear) -> Tensor:
            bias = None if linear.bias is None else linear.bias[start:stop]
            return functional.linear(tokens, linear.weight[start:stop], bias)

        inner = ACTIVATIONS[self.activation](mapped(self.gate))
        inner = inner if self.up is None else inner * mapped(self.up)
        return functional.dropout(inner, self.dropout, self.training)

    def _all(self, tokens: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """All experts are computed, those that were not chosen count 0."""
        inner = self._inner(tokens, 0, self.hidden)
        factors = torch.zeros_like(inner[:, : self.routed]).scatter(1, chosen, weights.to(inner.dtype))
        common = torch.ones_like(inner[:, : self.shared])
        factors = torch.cat([common, factors], 1).repeat_interleave(self.width, 1)
        answer: Tensor = self.down(inner * factors)
        return answer

    def _chosen(self, tokens: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """The routed experts' answers: the tokens of each are one matrix."""
        by_expert = chosen.flatten().argsort(stable=True)
        counts = chosen.flatten().bincount(minlength=self.routed).tolist()
        answers = []
        for expert, rows in enumerate(tokens[by_expert // self.active].split(counts), self.shared):
            start, stop = expert * self.width, (expert + 1) * self.width
            answers.append(functional.linear(self._inner(rows, start, stop), self.down.weight[:, start:stop]))
        answer = torch.cat(answers)[by_expert.argsort()].unflatten(0, (-1, self.active))  # [n, active, outputs]
        return (answer * weights.unsqueeze(-1).to(answer.dtype)).sum(1)
