"""SGAS (Li et al., CVPR 2020): DARTS whose operations are decided one after the other while the rest is searched.

After the epochs of a warm-up a group of operations is decided in regular intervals: the one with the highest score
takes its strongest operation for good, and its other operations are no longer run. So the supernet becomes the network
that is derived, and what is weighed last is weighed among what was decided. With `p` the softmax of a group's logits
without those operations that add nothing (none), divided by its sum:

    importance  I = the sum of the softmax over all operations but none,               (SGAS, eq. 3)
    certainty   C = 1 - H(p) / log(number of these operations),                        (eq. 4)
    stability   S = the mean of sum_o min(p_o, p'_o) over the `window` epochs before,  (eq. 5)

and the score is the product of the first two (criterion 1, eq. 6), or of all three (criterion 2, eq. 7), each scaled to
[0, 1] over the undecided groups. A quantity that is the same for all of them decides nothing; as published it would
make all scores 0. A group that can no longer be part of what is derived, as a third edge into a node of a DARTS cell,
is out from then on: none of its operations is run. Where a space has groups of several kinds
(`nas_core.relax.HasGroupKinds`), each kind is scored and decided apart, one group of each at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from nas_core.architecture import Architecture
from nas_core.batch import Batch, Data
from nas_core.choice import Value
from nas_core.errors import UsageError
from nas_core.one_shot import Compute, Progress
from nas_core.relax import Group, Mix, group_kind
from nas_core.strategy import Setting
from search_spaces.supernet.supernet import Supernet, relaxable
from strategies.one_shot.alphas import Alphas, AlphasConfig, plain
from strategies.one_shot.bilevel import pairs
from strategies.one_shot.weights import SharedWeights, WeightsConfig, mean, unconstrained

WARM_UP = 10
OUT = -1


class Sgas:
    """Greedy decisions on any relaxable space (`nas_core.one_shot.OneShot`)."""

    class Config(WeightsConfig, AlphasConfig):
        """The defaults are those of DARTS, with the warm-up of SGAS."""

        warm_up_epochs: int | None = Field(
            default=None,
            ge=0,
            description=f"at the start, in which nothing is decided; default: {WARM_UP}, but at most 30% of all epochs",
        )
        decide_every: int | None = Field(
            default=None,
            ge=1,
            description="epochs from one decision to the next, as published 5; default: such that the last one is "
            "made in the last epoch",
        )
        criterion: Literal[1, 2] = Field(default=1, description="2: the stability of a group counts too")
        window: int = Field(default=4, ge=1, le=1_000, description="epochs before that stability looks at")
        bilevel: bool = Field(
            default=True, description="false: both levels learn from the same batches, of all the training data"
        )

        @model_validator(mode="after")
        def _fits(self) -> Self:
            if self.warm_up >= self.epochs:
                raise ValueError(f"warm_up_epochs {self.warm_up} leaves none of {self.epochs} epochs for decisions")
            return self

        @property
        def halves(self) -> bool:
            return self.bilevel

        @property
        def warm_up(self) -> int:
            return min(WARM_UP, 3 * self.epochs // 10) if self.warm_up_epochs is None else self.warm_up_epochs

    supernet: Supernet
    weights: SharedWeights
    alphas: Alphas

    def __init__(self, setting: Setting, config: Config) -> None:
        """Raises UsageError for a space that is not relaxable, and for constraints."""
        unconstrained(setting, "sgas")
        self._seed, self.config = setting.seed, config
        self.decided: dict[str, int] = {}  # per group the position of its operation, or `OUT`, in the order of decision
        self._before: list[dict[str, Tensor]] = []  # p of the epochs before, the newest last

    def start(self, make: Callable[[], Any], data: Data, compute: Compute) -> None:
        """Raises UsageError where the epochs do not suffice for a decision per group."""
        self.weights = SharedWeights(make(), data, self.config, compute)
        self.supernet = self.weights.supernet
        self.alphas = Alphas(self.supernet.groups, self.config, self.weights.device)
        self.kinds: dict[str, list[str]] = {}  # their groups
        for name in self.supernet.groups:
            self.kinds.setdefault(group_kind(self.supernet.space, name), []).append(name)
        self.totals = self._totals()
        every, total = self.config.decide_every, max(self.totals.values())
        if every is not None and self.decisions(self.config.epochs - 1, total) < total:
            needed = self.config.warm_up + (total - 1) * every + 1
            raise UsageError(
                f"{self.config.epochs} epochs are too few to decide {total} groups one by one every {every} "
                f"epochs; take -s strategy.epochs={needed}, or leave out decide_every"
            )

    def decisions(self, epoch: int, total: int) -> int:
        """How many of so many decisions are made by the end of an epoch."""
        since = epoch - self.config.warm_up
        if since < 0:
            return 0
        if self.config.decide_every is not None:
            return min(since // self.config.decide_every + 1, total)
        return total * (since + 1) // (self.config.epochs - self.config.warm_up)

    def step(self, epoch: int) -> Progress:
        self.weights.begin(epoch)
        losses = self._bilevel(epoch) if self.config.bilevel else self._single_level(epoch)
        distributions = {name: self._p(name) for name in self._undecided()}
        for kind, total in self.totals.items():
            while self._undecided(kind) and self.made(kind) < self.decisions(epoch, total):
                scores = self.scores(kind)
                self._decide(max(scores, key=scores.__getitem__))
        self._before = [*self._before, distributions][-self.config.window :]
        metrics = {**losses, "decisions": float(sum(map(self.made, self.kinds)))}
        strengths = self.strengths()
        return Progress(metrics, plain(strengths), self.supernet.derive(strengths), not self._undecided())

    def made(self, kind: str) -> int:
        """How many decisions there were on groups of a kind."""
        return sum(self.decided.get(name, OUT) != OUT for name in self.kinds[kind])

    def result(self) -> Sequence[Architecture]:
        return [self.supernet.derive(self.strengths())]

    def scores(self, kind: str) -> dict[str, float]:
        """Those of the undecided groups of a kind, in the order of the groups."""
        names = self._undecided(kind)
        criteria = [[self.importance(name) for name in names], [certainty(self._p(name)) for name in names]]
        if self.config.criterion == 2:
            before = [[one[name] for one in self._before if name in one] for name in names]
            criteria.append([stability(self._p(name), seen) for name, seen in zip(names, before, strict=True)])
        scaled = [scale(criterion) for criterion in criteria]
        return {name: math.prod(values) for name, values in zip(names, zip(*scaled, strict=True), strict=True)}

    def importance(self, name: str) -> float:
        """The part of a group's softmax that is not on operations that add nothing."""
        return 1.0 - float(self.alphas.vectors[name].detach().double().softmax(0)[~self._kept(name)].sum())

    def strengths(self) -> dict[str, Tensor]:
        """Mixing weights: of what is decided 1 on its operation, of what is out nothing on any that adds something."""
        found = {}
        for name, softmax in self.alphas.softmax().items():
            found[name] = softmax.detach()
            if name in self.decided:
                position = self.decided[name]
                found[name] = torch.zeros_like(found[name])
                if position != OUT:
                    found[name][position] = 1.0
                elif any(self.supernet.groups[name].zero):
                    found[name][self.supernet.groups[name].zero.index(True)] = 1.0
        return found

    def relaxed(self) -> Mix:
        """Decided groups run their operation alone, in full; the others all, weighted, differentiable in the logits."""
        softmax = self.alphas.softmax()
        active = {name: tuple(range(len(group.options))) for name, group in self.supernet.groups.items()}
        for name, position in self.decided.items():
            active[name] = () if position == OUT else (position,)
            del softmax[name]
        return Mix(active, softmax)

    def state_dict(self) -> dict[str, Any]:
        return {
            "weights": self.weights.state_dict(),
            "alphas": self.alphas.state_dict(),
            "decided": [[name, position] for name, position in self.decided.items()],
            "before": [{name: p.clone() for name, p in one.items()} for one in self._before],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.weights.load_state_dict(state["weights"])
        self.alphas.load_state_dict(state["alphas"])
        self.decided = {name: int(position) for name, position in state["decided"]}
        device = self.weights.device
        self._before = [{name: p.to(device) for name, p in one.items()} for one in state["before"]]

    def _undecided(self, kind: str | None = None) -> list[str]:
        """The groups of a kind, or all, that are neither decided nor out."""
        names = self.supernet.groups if kind is None else self.kinds[kind]
        return [name for name in names if name not in self.decided]

    def _kept(self, name: str) -> Tensor:
        """Which operations of a group can be decided on: those that add something, where there are any."""
        zero = torch.tensor(self.supernet.groups[name].zero, device=self.weights.device)
        return ~zero if not bool(zero.all()) else torch.ones_like(zero)

    def _p(self, name: str) -> Tensor:
        softmax = self.alphas.vectors[name].detach().double().softmax(0)[self._kept(name)]
        return softmax / softmax.sum()

    def _totals(self) -> dict[str, int]:
        """Per kind how many decisions there are at most: the groups that one architecture has, of those with operation
        0, 1, ... wherever there are so many."""
        groups = self.supernet.groups
        found = dict.fromkeys(self.kinds, 0)
        for position in range(max(len(group.options) for group in groups.values())):
            taken = self._taken(
                {name: _one_hot(len(one.options), position % len(one.options)) for name, one in groups.items()}
            )
            for kind, names in self.kinds.items():
                found[kind] = max(found[kind], sum(taken[name] is not None for name in names))
        return found

    def _decide(self, name: str) -> None:
        kept = torch.nonzero(self._kept(name)).flatten().tolist()
        self.decided[name] = kept[int(self._p(name).argmax())]
        strengths = {other: strength.tolist() for other, strength in self.strengths().items()}
        for other in self._undecided():
            strengths[other] = _nothing(self.supernet.groups[other])
        for other in self._undecided():
            if not self._possible(other, strengths):
                self.decided[other] = OUT

    def _possible(self, name: str, strengths: Mapping[str, Sequence[float]]) -> bool:
        """Whether a group can be part of what is derived, after what is decided; of what is not, nothing is strong."""
        count = len(self.supernet.groups[name].options)
        for position in torch.nonzero(self._kept(name)).flatten().tolist():
            if self._taken({**strengths, name: _one_hot(count, position, 0.5)})[name] is not None:
                return True
        return False

    def _taken(self, strengths: Mapping[str, Sequence[float]]) -> Mapping[str, Value | None]:
        """The operations of what is derived."""
        space = self.supernet.space
        return space.assignment(relaxable(space).derive(strengths))

    def _bilevel(self, epoch: int) -> dict[str, float]:
        weights_loss = alphas_loss = torch.zeros((), device=self.weights.device)
        count = 0
        for train, valid in pairs(self._batches("weights", epoch), self._batches("alphas", epoch)):
            alphas_loss = alphas_loss + self._alpha_step(valid)
            with torch.no_grad():
                fixed = self.relaxed()
            weights_loss = weights_loss + self.weights.step(train, fixed)
            count += 1
        return {
            "train_loss": mean(weights_loss, count, "training loss"),
            "alpha_loss": mean(alphas_loss, count, "architecture's loss"),
        }

    def _alpha_step(self, valid: Batch) -> Tensor:
        self.alphas.zero_grad()
        with self.weights.frozen():
            loss = self.weights.loss(valid, self.relaxed())
            if loss.requires_grad:  # once all is decided nothing is left to learn
                loss.backward()
                self.alphas.step()
        return loss.detach()

    def _single_level(self, epoch: int) -> dict[str, float]:
        total, count = torch.zeros((), device=self.weights.device), 0
        for batch in self._batches("train", epoch)():
            self.alphas.zero_grad()
            total = total + self.weights.step(batch, self.relaxed())
            self.alphas.step()
            count += 1
        return {"train_loss": mean(total, count, "training loss")}

    def _batches(self, part: str, epoch: int) -> Callable[[], Any]:
        return lambda: self.weights.data.batches(part, epoch, self._seed)


def certainty(p: Tensor) -> float:
    """One minus the entropy of a distribution over that of the uniform one: 0 where nothing is decided, 1 where all is.
    Of one operation it is 1."""
    return 1.0 if len(p) == 1 else 1.0 - float(torch.special.entr(p).sum()) / math.log(len(p))


def stability(p: Tensor, before: Sequence[Tensor]) -> float:
    """The mean intersection of a distribution with those before, which is 1 for equal ones; 1 without any before."""
    return sum(float(torch.minimum(p, one).sum()) for one in before) / len(before) if before else 1.0


def scale(values: Sequence[float]) -> list[float]:
    """To [0, 1] by the smallest and the largest of them; all 1 where these are equal."""
    low, high = min(values), max(values)
    return [1.0 if high == low else (value - low) / (high - low) for value in values]


def _one_hot(count: int, position: int, strength: float = 1.0) -> list[float]:
    return [strength if index == position else 0.0 for index in range(count)]


def _nothing(group: Group) -> list[float]:
    """Strengths of a group that shall not be part of what is derived, where that can be."""
    zero = group.zero.index(True) if any(group.zero) else -1
    return _one_hot(len(group.options), zero, 0.1)
