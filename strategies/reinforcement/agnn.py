"""Auto-GNN's reinforced conservative controller.

Zhou, Song, Huang and Hu, "Auto-GNN: Neural Architecture Search of Graph Neural Networks", arXiv 1909.03184, section 3.3
and Algorithm 1. Every kind of choice (the paper's classes: hidden dimension, attention, heads, aggregation,
combination, activation) has an encoder of its own, an LSTM controller (`strategies/reinforcement/controller.py`). The
best architecture so far is kept, and per proposal one kind of choice is decided anew, at all of its positions:

1. Encoder c reads the best architecture's decisions of all other kinds, then writes those of kind c. The entropy
   of what it writes is E_c = -sum_l sum_k P_cl(k) log P_cl(k) over the positions l of the kind.
2. Guide: a kind is drawn with probability softmax(E)_c, or the one with the largest E is taken (`guide`).
3. The child is the best architecture with what encoder c writes.
4. REINFORCE on encoder c alone, loss -(R - b) log P_c(child) - beta E_c, with one moving average b for all kinds.
5. Conservative update: a child that is better becomes the best architecture.

E_c is that of one draw from the encoder, renewed when the encoder or the best architecture changes: its expectation
is the entropy of the joint distribution. Choices of other kinds that are legal no longer, or that come into being,
are drawn uniformly. "Better" is feasibility first, then Pareto dominance. The paper begins with one architecture and
takes the accuracy as reward and 0.00035 as learning rate, over 1,000 children; the defaults here begin with the best
of `founders` and learn faster from ranks (`strategies/reinforcement/rewards.py`).

With `sharing` (section 3.4, "constrained parameter sharing") a child begins with the weights of the trial, among the
last `ancestors` that were trained, with most layers that are homogeneous with its own: of the same shapes, with the
same attention and activation, as the space and its layers say (`nas_core.space.HasLayerSignatures`). It is then
trained for `warm_up` only. All else begins anew: other layers, batch normalisation, maps of skip connections. A child
that is homogeneous with none, and every founder, is trained as without sharing. The paper keeps every layer's weights
apart; here all of a child's are those of one trial.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy
from pydantic import Field

from nas_core import moves, tokens
from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value
from nas_core.config import Config as BaseConfig
from nas_core.errors import UsageError
from nas_core.pareto import better
from nas_core.seeds import generator
from nas_core.strategy import Outcome, Pending, Proposal, Setting, State
from strategies.reinforcement.controller import UNITS, Controller, Reader
from strategies.reinforcement.reinforce import loss
from strategies.reinforcement.rewards import Baseline, Kind, Rewards
from strategies.reinforcement.sharing import Sharing

if TYPE_CHECKING:
    from numpy.random import Generator


class AutoGNN:
    """One kind of choice at a time, from the best architecture so far. Notes say which kind, of which trial.

    Raises UsageError for a space with a single kind of choice, and for sharing where layers do not say whose weights
    they may take, or where a training cannot be ended before.
    """

    class Config(BaseConfig):
        """Ranges are wide; the values of the paper's reimplementation in AutoGL are in the descriptions."""

        founders: int = Field(20, ge=1, le=100_000, description="uniform draws at the start (AutoGL: 1)")
        guide: Literal["softmax", "argmax"] = Field(
            "softmax", description='how a kind is picked: "softmax" of the entropies, or "argmax"'
        )
        learning_rate: float = Field(0.003, gt=0, le=1, description="of Adam (AutoGL: 0.00035)")
        entropy: float = Field(0.06, ge=0, le=10, description="weight of the entropy in the loss (AutoGL: 0.0001)")
        decay: float = Field(0.95, ge=0, lt=1, description="of the baseline's moving average (AutoGL: 0.95)")
        reward: Kind = Field(
            "rank", description='"rank" among all candidates so far; "value": the objective itself (the paper)'
        )
        units: int = Field(UNITS, ge=1, le=4096, description="units of each encoder's LSTM (AutoGL: 100)")
        sharing: bool = Field(False, description="children begin with the weights of homogeneous layers")
        warm_up: float | None = Field(
            None, gt=0, description="with sharing: epochs of a child that begins with weights, or other budget (20)"
        )
        ancestors: int | None = Field(
            None, ge=1, le=100_000, description="with sharing: how many trials' weights are kept, the last ones (20)"
        )

    def __init__(self, setting: Setting, config: Config) -> None:
        self._setting = setting
        self._config = config
        self._kinds = kinds(setting.space.choices)
        if len(self._kinds) < 2:
            raise UsageError(
                f"agnn-rl alters one kind of choice at a time, but all choices of space '{setting.space.name}' are of "
                f"kind '{next(iter(self._kinds), '')}'; use reinforce or ppo, or a space with several kinds such as "
                "nasbench_graph"
            )
        self.encoders = {
            kind: Controller(
                setting.space, generator(setting.seed, "encoder", kind), config.units, config.learning_rate
            )
            for kind in self._kinds
        }
        self._rewards = Rewards(setting, config.reward)
        self._baseline = Baseline(config.decay)
        self._told = 0
        self.best: Outcome | None = None
        self._bases: dict[int, Architecture] = {}  # every architecture that was the best, by its trial's number
        self._entropies: dict[str, tuple[tuple[int, int], float]] = {}  # by kind, with what they were computed for
        self._sharing = Sharing.of(setting, config.warm_up, config.ancestors, config.sharing)

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal:
        if self.best is None or self._told + len(pending) < self._config.founders:
            return Proposal(
                moves.sample(self._setting.space, generator(self._setting.seed, number, "founder")),
                note={"role": "founder"},
            )
        rng = generator(self._setting.seed, number, "child")
        entropies = self.entropies()
        chosen = int(rng.choice(len(entropies), p=guide(list(entropies.values()), self._config.guide)))
        kind = list(entropies)[chosen]
        child, _ = self._write(kind, self.best.proposal.arch, rng)
        note: dict[str, Value] = {"role": "child", "kind": kind, "of": self.best.number}
        if self._sharing is not None:
            ancestor = self._sharing.ancestor(child)
            if ancestor is not None:
                return Proposal(child, self._sharing.warm_up, note=note, transfer=ancestor)
        return Proposal(child, note=note)

    def tell(self, outcome: Outcome) -> None:
        self._told += 1
        if self._sharing is not None:
            self._sharing.learn(outcome)
        advantage = self._baseline.advantage(self._rewards.add(outcome))
        note, arch = outcome.proposal.note, outcome.proposal.arch
        if note["role"] == "child":
            kind = str(note["kind"])
            script = self.encoders[kind].script(
                arch, self._given(kind, self._bases[int(note["of"])]), self._kinds[kind]
            )
            weight = self._config.entropy
            if len(script.tokens):
                self.encoders[kind].learn([script], lambda log, entropy: loss(log, entropy, [advantage], weight))
        measured = outcome.values is not None or outcome.violations
        if measured and (self.best is None or better(outcome, self.best)):
            self.best = outcome
            self._bases[outcome.number] = arch

    def donors(self) -> Collection[int] | None:
        return None if self._sharing is None else self._sharing.trials

    def entropies(self) -> dict[str, float]:
        """E_c of the kinds of which the best architecture has active choices. None before there is a best one."""
        if self.best is None:
            return {}
        found = {}
        for kind, names in self._kinds.items():
            if self.best.proposal.arch.values.keys().isdisjoint(names):
                continue
            state = (self.best.number, self.encoders[kind].steps)
            known = self._entropies.get(kind)
            if known is None or known[0] != state:
                rng = generator(self._setting.seed, *state, "entropy", kind)
                known = (state, self._write(kind, self.best.proposal.arch, rng)[1].entropy)
                self._entropies[kind] = known
            found[kind] = known[1]
        return found

    def _write(self, kind: str, base: Architecture, rng: Generator) -> tuple[Architecture, Reader]:
        """`base` with the choices of a kind as its encoder writes them."""
        given = self._given(kind, base)
        reader = Reader(self.encoders[kind])
        for choice in self._setting.space.choices:
            if choice.name in given:
                reader.read(choice, given[choice.name])

        def pick(choice: Choice, options: tuple[Value, ...]) -> Value:
            if choice.name in self._kinds[kind]:
                return reader.write(choice, options, rng)
            return moves.uniformly(rng)(choice, options)

        return moves.complete(self._setting.space, given, pick), reader

    def _given(self, kind: str, base: Architecture) -> dict[str, Value]:
        """The decisions of the other kinds."""
        return {name: value for name, value in base.values.items() if name not in self._kinds[kind]}

    def state_dict(self) -> dict[str, Any]:
        """Encoders that have not learned yet are left out: the seed makes them."""
        space, best = self._setting.space, self.best
        return {
            "encoders": {kind: encoder.state_dict() for kind, encoder in self.encoders.items() if encoder.steps},
            "rewards": self._rewards.state_dict(),
            "baseline": self._baseline.value,
            "told": self._told,
            "sharing": None if self._sharing is None else self._sharing.state_dict(),
            "bases": [[number, tokens.encode(space, arch).tolist()] for number, arch in self._bases.items()],
            "best": best
            and {
                "number": best.number,
                "state": str(best.state),
                "values": None if best.values is None else list(best.values),
                "violations": list(best.violations),
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        space, best = self._setting.space, state["best"]
        for kind, encoder in state["encoders"].items():
            self.encoders[kind].load_state_dict(encoder)
        self._rewards.load_state_dict(state["rewards"])
        self._baseline.value = state["baseline"]
        self._told = int(state["told"])
        if self._sharing is not None:
            self._sharing.load_state_dict(state["sharing"])
        self._bases = {number: tokens.decode(space, encoded) for number, encoded in state["bases"]}
        self.best = best and Outcome(
            best["number"],
            Proposal(self._bases[best["number"]]),
            State(best["state"]),
            None if best["values"] is None else tuple(best["values"]),
            tuple(best["violations"]),
        )


def kinds(choices: Sequence[Choice]) -> dict[str, frozenset[str]]:
    """The names of the choices of every kind; a choice without a kind is a kind by its name."""
    found: dict[str, set[str]] = {}
    for choice in choices:
        found.setdefault(choice.kind or choice.name, set()).add(choice.name)
    return {kind: frozenset(names) for kind, names in found.items()}


def guide(entropies: Sequence[float], how: Literal["softmax", "argmax"]) -> list[float]:
    """The probability with which each kind is altered; "argmax": 1 for the (first) largest entropy."""
    found = numpy.array(entropies)
    if how == "argmax":
        return [float(position == found.argmax()) for position in range(len(found))]
    weights = numpy.exp(found - found.max())
    return (weights / weights.sum()).tolist()
