"""HESSO-CRIC: candidates are tried before they go, and the network is put back after every trial.

"HESSO" (arXiv 2409.09085, 2024), corrective redundant identification cycles: a saliency of one moment takes units for
redundant that are not, and the loss does not come back. After T steps all tensors of the network are cached, and every
step of what follows begins from them or ends in them. *Probes*: of each group, for each share of (1/4, 1/2, 3/4), the
units of least saliency are 0 for one step, whose loss over that of the cached network says how much the group matters.
*Cycles* of S steps: the violating units V, at first the K of least saliency, shrink on a line to 0 while everything
trains; after every step saliency is computed anew and kept, and units that are now among the K least, and never were
violating, are the next V. The cycles end when at most `tolerance` are left, or after `cycles` of them. The mean of all
saliencies, plus `loss` times the mean ratio of the losses of a group by its number of units, says which K units shrink
to 0 within H steps from the cached network, as in `compressors.hesso`.

Deviations. A probe takes one step, not two. Statistics of normalisations are cached with the parameters; what the
optimiser remembers is not, as in the reference code. Saliencies of probes do not count. All steps are those of the
recipe: the cycles end earlier where no further one fits before the last H steps. Where costs are the target, K of the
cycles is what they come to for the cached network; the final choice meets the target.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from pydantic import Field

from compressors.hesso import Scoring, Shrinking
from compressors.zeroing import Goal, Zeroing
from nas_core.config import Config as BaseConfig
from nas_core.errors import UsageError
from training.regimes.regime import Regime

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compressors.groups.groups import Groups
    from nas_core.batch import Batch
    from training.compute import Forward

SHARES = (0.25, 0.5, 0.75)
"""Of a group's units, 0 in a probe."""

UNENDED = -1


class Settings(Scoring):
    """HESSO-CRIC: what seems redundant is tried first."""

    loss: float = Field(default=1.0, ge=0, description="weight of what a group's units are worth to the loss")
    cycle: float = Field(default=0.05, gt=0, le=1, description="share of the steps of one cycle")
    cycles: int = Field(default=10, ge=1, description="at most")
    tolerance: int = Field(default=0, ge=0, description="units that a cycle may find too late")


class Phases(NamedTuple):
    """Steps: before the probes, of the probes, of a cycle, of the shrinking at the end."""

    start: int
    probes: int
    cycle: int
    shrinking: int

    @classmethod
    def of(cls, settings: Settings, steps: int, groups: int) -> Phases:
        """Raises UsageError where they are more than the training has."""
        found = cls(
            int(settings.start * steps),
            1 + len(SHARES) * groups,
            max(int(settings.cycle * steps), 1),
            max(int(settings.prune * steps), 1),
        )
        if sum(found) > steps:
            raise UsageError(
                f"a training of {steps} steps is too short for hesso-cric: {found.start} before it begins, "
                f"{found.probes} that probe {groups} groups, {found.cycle} of a cycle and {found.shrinking} in which "
                "units shrink; take more epochs"
            )
        return found


class Corrective(Shrinking):
    """Probes, cycles, then the shrinking."""

    def __init__(self, goal: Goal, settings: Settings) -> None:
        super().__init__(goal, settings)
        self._settings = settings

    def begin(self, network: nn.Module, forward: Forward, example: Batch, seed: int) -> None:
        import torch

        super().begin(network, forward, example, seed)
        units, groups = self.units, len(self._goal.choice.groups)
        self.cache: dict[str, Tensor] = {}
        masks = {name: units.none() for name in ("violating", "trial", "historical")}
        values = {name: torch.zeros(units.count, dtype=torch.float64) for name in ("first", "sum")}
        self.state = {
            **masks,
            **values,
            "ratios": torch.zeros(groups, dtype=torch.float64),
            "reference": torch.zeros((), dtype=torch.float64),
            "going": torch.tensor(0),
            "scored": torch.tensor(0),
            "ended": torch.tensor(UNENDED),
        }

    def before_step(self, step: int, steps: int) -> None:
        super().before_step(step, steps)
        self._phases = Phases.of(self._settings, steps, len(self._goal.choice.groups))
        self._losses: list[tuple[Tensor, int]] = []
        probe = self._n - self._phases.start - 1
        if probe == 0:
            self.cache = {name: tensor.detach().clone() for name, tensor in self.units.tensors.items()}
        elif 0 < probe < self._phases.probes:
            self.units.scale((~self.probed(probe)).float())

    def objective(self, loss: Tensor, piece: Batch, logits: Tensor) -> Tensor:
        self._losses.append((loss.detach(), piece.samples))
        return loss

    def after_step(self) -> None:
        phases, ended = self._phases, int(self.state["ended"])
        within = self._n - phases.start - 1
        if within < 0:
            return
        if within < phases.probes:
            self._probe(within)
        elif ended == UNENDED:
            self._cycle(within - phases.probes)
        else:
            t = min(self._n - ended - 1, phases.shrinking - 1)
            self.shrink((phases.shrinking - t - 1) / (phases.shrinking - t), t == phases.shrinking - 1)

    def probed(self, probe: int) -> Tensor:
        """The mask of the units that are 0 in a probe, from 1."""
        number, share = divmod(probe - 1, len(SHARES))
        mask, start = self.units.none(), sum(self.units.sizes[:number])
        size = self.units.sizes[number]
        order = self.state["first"][start : start + size].argsort(stable=True)
        mask[start + order[: max(int(size * SHARES[share]), 1)]] = True
        return mask

    def roll_back(self) -> None:
        """The network is the cached one, bit for bit."""
        import torch

        with torch.no_grad():
            for name, tensor in self.units.tensors.items():
                tensor.copy_(self.cache[name])

    def final(self) -> Tensor:
        """The saliency that decides [units]."""
        import torch

        sizes = torch.tensor(self.units.sizes)
        worth = (self.state["ratios"] / sizes).repeat_interleave(sizes)
        return self.state["sum"] / self.state["scored"] + self._settings.loss * worth

    def _probe(self, probe: int) -> None:
        state = self.state
        self.roll_back()
        samples = sum(count for _, count in self._losses)
        loss = sum(float(loss) * count for loss, count in self._losses) / samples
        if probe == 0:
            state["reference"].fill_(loss)
            state["first"] = self.saliency()
        else:
            state["ratios"][(probe - 1) // len(SHARES)] += loss / max(float(state["reference"]), 1e-12) / len(SHARES)
        if probe == self._phases.probes - 1:
            state["violating"] = self._goal.redundant(state["first"], self.units.none())
            state["going"] = state["violating"].sum()

    def _cycle(self, step: int) -> None:
        """Step `step`, from 0, of all cycles."""
        state, phases = self.state, self._phases
        number, t = divmod(step, phases.cycle)
        scores = self.saliency()
        state["sum"] += scores
        state["scored"] += 1
        least = Goal(self._goal.choice, int(state["going"])).redundant(scores, self.units.none())
        state["trial"] |= least & ~state["violating"] & ~state["historical"]
        factors = self.units.none().float() + 1
        factors[state["violating"]] = (phases.cycle - t - 1) / (phases.cycle - t)
        self.units.scale(factors)
        if t < phases.cycle - 1:
            return
        state["historical"] |= state["violating"]
        state["violating"] = state["trial"] & ~state["historical"]
        state["trial"] = self.units.none()
        self.roll_back()
        settled = int(state["violating"].sum()) <= self._settings.tolerance
        full = self._n + phases.cycle + phases.shrinking > self._steps
        if settled or full or number + 1 >= self._settings.cycles:
            self.redundant = self._goal.redundant(self.final(), self.units.none())
            state["ended"].fill_(self._n)
            self.cache = {}

    def tensors(self) -> Mapping[str, Tensor]:
        cache = {f"cache/{name}": tensor for name, tensor in self.cache.items()}
        return {**super().tensors(), **self.state, **cache}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        import torch

        super().restore(tensors)
        self.state = {name: tensors[name] for name in self.state}
        cached = {name.removeprefix("cache/"): one for name, one in tensors.items() if name.startswith("cache/")}
        self.cache = {name: torch.empty_like(self.units.tensors[name]).copy_(one) for name, one in cached.items()}


class HessoCric(Zeroing):
    """Try what seems redundant before it shrinks to 0, while the network trains; then remove it."""

    Config: ClassVar[type[BaseConfig]] = Settings

    def acting(self, network: nn.Module, groups: Groups, goal: Goal) -> Regime:
        return Corrective(goal, self.config)
