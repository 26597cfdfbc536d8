"""Polarised gates: units that are used for some inputs only become units that are used for all of them, or for none.

"Learning a Consensus Sub-Network with Polarization Regularization and One Pass Training" (arXiv 2302.10798). There is
no public code, and what follows where the abstract ends is ours. While the network trains, every unit of a width is
multiplied by a gate in {0, 1} that depends on the input: the mean over the positions of what the layer reads goes
through two linear maps to logits s, forward g = 1 where s > 0, backward the derivative of sigmoid(s). With a the mean
of g over a batch, the loss gets

    sparsity * units * (cost(a) / cost(1) - budget)^2 + polarization * sum a (1 - a),

where the second term is the variance of the gates over the inputs: it is least where all inputs agree, the *consensus*.
Its weight rises from 0, and the budget falls from 1 to the target, on a line over the first `ramp` of the steps. The
cost is exact for the units that are mostly on, and linear in a around that. After the share `settle` of the steps a is
taken over all training data; what is on for less than half of them is off from then on, and what else must go to meet
the target, the least a first. The rest is on, and trains for the steps that are left without gates and terms. In the
end what is off is set to 0, and statistics of batch normalisations are computed anew.

Gated are whole blocks, and widths that one layer makes, inner ones: those of a sum, which several layers make, would
need one gate for all of them. The gate is behind the last normalisation of a unit, so that 0 is exactly 0. At least as
many units of a width as must stay are on for every input, those with the greatest logits. Both terms are sums over the
units, so that a gate's gradient does not depend on their number.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from compressors.blocks import Block, blocks
from compressors.blocks import replace as replace_block
from compressors.calls import calls
from compressors.comparison import difference
from compressors.compressor import Change, Check, Part, Plan, Round, Subject
from compressors.groups.groups import Group, Groups
from compressors.groups.trace import trace
from compressors.prices import Prices
from compressors.proof import SAME
from compressors.units import Units
from compressors.zeroing import Goal, Zeroing
from compressors.zeroing import Settings as Zeroed
from nas_core.batch import Batch, Data
from nas_core.config import Config as BaseConfig
from nas_core.errors import UsageError
from nas_core.seeds import derive
from training.compute import Forward
from training.regimes.regime import Regime

AGREED = 0.05  # of the inputs may have a gate otherwise than all others
DECAY = 0.9  # of the moving average of activities, per step
LAST = 2  # the round in which blocks go
REFRESH = 10  # steps between two linearisations of the cost


class Settings(Zeroed):
    """Polarised gates."""

    weight: float = Field(default=20.0, gt=0, description="of the term that holds the budget")
    polarization: float = Field(default=0.5, ge=0, description="weight of the disagreement of inputs, in the end")
    ramp: float = Field(default=0.5, gt=0, le=1, description="share of the steps in which budget and weight come to it")
    settle: float = Field(
        default=0.7, gt=0, le=1, description="share of the steps after which every gate stays on or off for all inputs"
    )
    reduction: int = Field(
        default=16, ge=1, description="inputs of a gate by its hidden features, of which 8 are least"
    )
    bias: float = Field(default=2.0, description="logit of all gates at the beginning; above 0 they are on")
    blocks: bool = Field(default=True, description="gates on whole blocks too, where costs are the target")


def polarization(activity: Tensor) -> Tensor:
    """The sum of a (1 - a)."""
    return (activity * (1 - activity)).sum()


class Gates(nn.Module):
    """Of one width: from what its layer reads, a gate per sample and unit."""

    def __init__(self, features: int, units: int, least: int, settings: Settings, seed: int) -> None:
        super().__init__()
        self.least = least
        hidden = max(features // settings.reduction, 8)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.first, self.last = nn.Linear(features, hidden), nn.Linear(hidden, units)
        nn.init.constant_(self.last.bias, settings.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """[n, features] to [n, units], zeros and ones; gradients are those of the sigmoid."""
        logits = self.last(self.first(pooled).relu())
        hard = logits > 0
        hard = hard | torch.zeros_like(hard).scatter(1, logits.topk(self.least, 1).indices, value=True)
        soft = logits.sigmoid()
        return hard.to(soft) + soft - soft.detach()


@dataclass(frozen=True, slots=True)
class Site:
    """Where the gates of a width are: what `reads` reads decides, and what each of `ends` answers is multiplied.

    `ends`: by module, per channel of its output its unit; the number of units for a channel that is none. `features`:
    what a sample has at `reads`. Channels are dimension 1 of maps, the last one of what linear maps read and answer.
    """

    reads: str
    ends: Mapping[str, tuple[int, ...]]
    features: int


def sites(network: nn.Module, groups: Sequence[Group], inputs: Sequence[Tensor]) -> dict[str, Site]:
    """By group, for the widths that exactly one layer makes. The network, in evaluation mode, is run once."""
    makers = {group.name: _makers(group) for group in groups}
    modules = {name: network.get_submodule(name) for makers in makers.values() for name in makers}
    called = calls(network, modules, inputs)
    found = {}
    for group in groups:
        made = makers[group.name]
        mine = [call for call in called if call.name in made]
        dense = [call for call in mine if _dense(modules[call.name])]
        if len(dense) != 1 or any(len(call.answer) != len(dense[0].given[0]) for call in mine):
            continue
        inner = {id(call.given[0]) for call in mine}  # what another one of them reads is gated behind that one
        ends = {
            call.name: tuple(
                made[call.name].get(one, len(group.units)) for one in range(_width(modules[call.name], call.answer))
            )
            for call in mine
            if id(call.answer) not in inner
        }
        (only,) = dense
        found[group.name] = Site(only.name, ends, _pooled(modules[only.name], only.given[0]).shape[1])
    return found


def _makers(group: Group) -> dict[str, dict[int, int]]:
    """The modules that produce the units of a group, and by channel of each its unit."""
    owners: dict[str, dict[int, int]] = {}
    for number, unit in enumerate(group.units):
        for piece in unit.produced:
            name, _, kind = piece.tensor.rpartition(".")
            if kind == "weight":
                owners.setdefault(name, {}).update(dict.fromkeys(piece.indices, number))
    return owners


def _width(module: nn.Module, answer: Tensor) -> int:
    """Channels of what a module answers."""
    return answer.shape[-1 if _linear(module) else 1]


def _dense(module: nn.Module) -> bool:
    """Whether a unit of its output depends on all of its inputs."""
    return _linear(module) or (isinstance(module, nn.modules.conv._ConvNd) and module.groups == 1)


def _linear(module: nn.Module) -> bool:
    """Whether it is a linear map, of torch or of a package of its own."""
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.dim() == 2 and not isinstance(module, nn.Embedding)


def _pooled(module: nn.Module, given: Tensor) -> Tensor:
    """The means over all positions of each sample, [n, features]."""
    if _linear(module):
        return given.mean(tuple(range(1, given.dim() - 1))) if given.dim() > 2 else given
    return given.flatten(2).mean(2)


class Polarizing(Regime):
    """The gates, the two terms, and what is set to 0 in the end."""

    last = True

    def __init__(
        self,
        goal: Goal,
        sites: Mapping[str, Site],
        settings: Settings,
        data: Data,
        remember: Callable[[Mapping[str, Any]], None],
        blocks: Sequence[Block] = (),
    ) -> None:
        """`sites`: of all groups and blocks. `remember` is told of the activities in the end."""
        self._goal, self._sites, self._settings, self._data, self._remember = goal, sites, settings, data, remember
        self._prices, self._blocks = Prices(goal, blocks), blocks
        self._gated = [*((one, max(one.least, 1)) for one in goal.choice.groups), *((one.group, 0) for one in blocks)]

    def begin(self, network: nn.Module, forward: Forward, example: Batch, seed: int) -> None:
        self._network, self._forward, self._seed = network, forward, seed
        self.gates = forward.place(
            nn.ModuleList(
                Gates(
                    *(self._sites[one.name].features, len(one.units), least, self._settings),
                    derive(seed, "gates", one.name),
                )
                for one, least in self._gated
            )
        )
        self._open: list[Tensor] = [torch.zeros(0)] * len(self._gated)
        self._handles = [handle for number, (one, _) in enumerate(self._gated) for handle in self._hooked(number, one)]
        self._kept: Tensor | None = None  # which units and blocks are on, once that is settled
        self._around = self._activity = torch.ones(sum(self._prices.sizes))
        self._lines = self._prices.lines(self._around)
        self._passed: list[tuple[Tensor, int]] = []

    def _hooked(self, number: int, group: Group) -> list[torch.utils.hooks.RemovableHandle]:
        site, modules = self._sites[group.name], dict(self._network.named_modules())

        def decide(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            if self._kept is None:
                self._open[number] = self.gates[number](_pooled(module, given[0]))
            else:
                mine = self._kept.split(self._prices.sizes)[number]
                self._open[number] = mine.to(given[0]).expand(len(given[0]), -1)

        def gated(owners: Tensor) -> Callable[[nn.Module, Any, Tensor], Tensor]:
            def multiplied(module: nn.Module, _: Any, answer: Tensor) -> Tensor:
                padded = torch.cat([self._open[number], self._open[number].new_ones(len(answer), 1)], 1)[:, owners]
                last = _linear(module)
                others = (1,) * (answer.dim() - 2)
                shape = (len(answer), *others, -1) if last else (len(answer), -1, *others)
                return answer * padded.view(shape).to(answer)

            return multiplied

        device = self._forward.device
        return [
            modules[site.reads].register_forward_pre_hook(decide),
            *(
                modules[name].register_forward_hook(gated(torch.tensor(owners, device=device)))
                for name, owners in site.ends.items()
            ),
        ]

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.gates.parameters()), "weight_decay": 0.0}]

    def before_step(self, step: int, steps: int) -> None:
        self._passed = []
        if self._kept is None and step >= self._settings.settle * steps:
            self._settle()
        if self._kept is not None:
            return
        self._ramp = min(1.0, (step + 1) / (self._settings.ramp * steps))
        if step % REFRESH == 0:
            self._around = self._activity.clone()
            self._lines = self._prices.lines(self._around)

    def objective(self, loss: Tensor, piece: Batch, logits: Tensor) -> Tensor:
        if self._kept is not None:
            return loss
        activity = torch.cat([gates.float().mean(0) for gates in self._open])
        self._passed.append((activity.detach(), piece.samples))
        settings, count = self._settings, len(activity)
        loss = loss + settings.polarization * self._ramp * polarization(activity)
        for name, (share, slopes) in self._lines.items():
            cost = share + (slopes.to(activity) * (activity - self._around.to(activity))).sum()
            budget = 1 - self._ramp * (1 - self._prices.budgets[name])
            loss = loss + settings.weight * count * (cost - budget).square()
        return loss

    def after_step(self) -> None:
        if self._kept is not None:
            return
        samples = sum(count for _, count in self._passed)
        mean = torch.stack([activity * (count / samples) for activity, count in self._passed]).sum(0)
        self._activity = DECAY * self._activity + (1 - DECAY) * mean.cpu()

    def end(self) -> None:
        if self._kept is None:
            self._settle()
        assert self._kept is not None
        for handle in self._handles:
            handle.remove()
        units, whole = self._kept.split([sum(self._goal.choice.everything), len(self._blocks)])
        Units(self._goal.choice.groups, self._network).scale(units.float())
        Units([one.group for one in self._blocks], self._network).scale(whole.float())
        names = [one.name for one, _ in self._gated]
        parts = zip(names, self._activity.split(self._prices.sizes), strict=True)
        said = {"consensus": consensus(self._activity), "activity": {name: part.tolist() for name, part in parts}}
        self._remember(said)

    def _settle(self) -> None:
        """Find out what stays on, of all training data."""
        training = self._network.training
        self._activity = self._measured("train")
        self._network.train(training)
        units, whole = self._activity.split([sum(self._goal.choice.everything), len(self._blocks)])
        off = (whole < 0.5).nonzero().flatten().tolist()
        choice = replace(self._goal.choice, costs=self._prices.without(off))
        gone = Goal(choice, self._goal.limits).redundant(units, units < 0.5)
        self._kept = torch.cat([~gone, whole >= 0.5])

    def _measured(self, part: str) -> Tensor:
        """The mean of every gate over a part of the data, in evaluation mode [units], float64."""
        total, rows = torch.zeros(len(self._activity), dtype=torch.float64), 0
        self._network.eval()
        with torch.no_grad():
            for batch in self._data.batches(part, 0, self._seed):
                self._forward(self._network, batch)
                total += torch.cat([gates.double().sum(0) for gates in self._open]).cpu()
                rows += len(self._open[0])
        return total / rows

    def tensors(self) -> Mapping[str, Tensor]:
        gates = {f"gates/{name}": tensor for name, tensor in self.gates.state_dict().items()}
        kept = {} if self._kept is None else {"kept": self._kept}
        return {"activity": self._activity, "around": self._around, **kept, **gates}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self._activity, self._around, self._kept = tensors["activity"], tensors["around"], tensors.get("kept")
        self._lines = self._prices.lines(self._around)
        prefix = "gates/"
        self.gates.load_state_dict(
            {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}
        )


def consensus(activity: Tensor) -> float:
    """The share of units whose gates all but a few inputs agree on."""
    return float(((activity < AGREED) | (activity > 1 - AGREED)).double().mean())


class Polarization(Zeroing):
    """Let the network find out which units and blocks no input needs, and remove those."""

    Config: ClassVar[type[BaseConfig]] = Settings
    needs = ("groups", "data")
    recalibrate = True

    def __init__(self, subject: Subject, config: Any) -> None:
        super().__init__(subject, config)
        if config.blocks and config.sparsity is None:
            self.rounds = (*self.rounds, Round(epochs=0))

    def acting(self, network: nn.Module, groups: Groups, goal: Goal) -> Regime:
        def remember(found: Mapping[str, Any]) -> None:
            self.subject.cache[self._key()] = found

        inputs, whole = self.subject.inputs, self._blocks(network, groups)
        gated = sites(network, [*goal.choice.groups, *(one.group for one in whole)], inputs)
        return Polarizing(goal, gated, self.config, self.subject.data, remember, whole)

    def plan(self, network: nn.Module) -> Plan:
        """As of all methods of the kind, with the blocks; the least that is reachable is without any of them gone."""
        copied = copy.deepcopy(network).to(self.subject.device).eval()
        found = super().plan(copied)
        groups = trace(copied, self.subject.inputs, self.subject.ignored)
        parts = (Part(one.name, 1, 0, one.saves, "a whole block") for one in self._blocks(copied, groups))
        return replace(found, parts=(*found.parts, *parts))

    def compress(self, network: nn.Module, round: int) -> Change:
        """In the last round, blocks whose gates were off are replaced by what they have come to. Raises as `plan`."""
        if round < LAST:
            return super().compress(network, round)
        inputs = self.subject.inputs
        groups = trace(copy.deepcopy(network), inputs, self.subject.ignored)
        gone = [one for one in self._blocks(network, groups) if bool(Units([one.group], network).zero().all())]
        if not gone:
            return Change()
        with torch.no_grad():
            before = network(*inputs)
            for one in gone:
                replace_block(network, one.name, one.layer)
            apart = difference(before, network(*inputs))
        report = {one.name: {"block": f"replaced by {one.layer.__name__}"} for one in gone}
        return Change(checks=(Check("the network with blocks and without", apart, SAME),), report=report)

    def _blocks(self, network: nn.Module, groups: Groups) -> tuple[Block, ...]:
        """Those that get gates: one layer adds to what they read."""
        if not self.config.blocks or self.config.sparsity is not None:
            return ()
        found = blocks(network, groups, self.subject.sample)
        gated = sites(network, [one.group for one in found], self.subject.inputs)
        ignored = self.subject.ignored
        return tuple(
            one
            for one in found
            if one.name in gated and not any(f"{one.name}.".startswith(f"{name}.") for name in ignored)
        )

    def eligible(self, network: nn.Module, groups: tuple[Group, ...]) -> tuple[Group, ...]:
        gated = sites(network, groups, self.subject.inputs)
        if not gated:
            raise UsageError("no width of the network is made by one layer alone; there is nothing to put gates on")
        return tuple(group for group in groups if group.name in gated)

    def noted(self) -> tuple[Mapping[str, Mapping[str, Any]], tuple[str, ...]]:
        found = self.subject.cache.get(self._key())
        if found is None:
            return {}, ()
        said = {name: {"activity": activity} for name, activity in found["activity"].items()}
        return said, (f"{found['consensus']:.1%} of the units were on for all inputs or for none",)

    def _key(self) -> str:
        """Of what the gates came to, which the network does not hold."""
        subject = self.subject
        recipe = None if subject.recipe is None else subject.recipe.model_dump(mode="json")
        asked = [self.config.model_dump(mode="json"), list(map(str, subject.targets)), recipe, subject.epochs]
        return f"polarization/{json.dumps([*asked, subject.ignored, subject.round_to], sort_keys=True)}"
