"""Proximal policy optimisation of the NASNet controller.

Zoph, Vasudevan, Shlens and Le (NASNet), CVPR 2018, appendix A.1; Schulman, Wolski, Dhariwal, Radford and Klimov,
"Proximal Policy Optimization Algorithms", 2017, equation 7. Whenever a minibatch of children is finished, several
steps of Adam go down the mean over the children of

    -min(r A, clip(r, 1 - eps, 1 + eps) A) - beta H,        r = pi(a) / pi_old(a),   A = R - b.

pi_old(a) is the joint probability with which the child was sampled: its logarithm travels in the proposal's note, so
children that were in flight while the policy moved on are weighted rightly. b is the exponential moving average of
the rewards, which each child meets before it enters. With one epoch r would be 1 and this would be REINFORCE;
`drift` holds the mean |r - 1| of every epoch of the last update.

The paper's minibatch of 20, learning rate 0.00035 and entropy weight 0.00001 are made for 20,000 children. The defaults
here are for hundreds: small minibatches, ranks as rewards, and more entropy (see
`strategies/reinforcement/reinforce.py`). Clipping at 0.2 and several epochs are the values of Schulman et al.; NASNet
does not state them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import Field

from nas_core import tokens
from nas_core.architecture import Architecture
from nas_core.config import Config as BaseConfig
from nas_core.seeds import generator
from nas_core.strategy import Outcome, Pending, Proposal, Setting
from strategies.reinforcement.controller import UNITS, Controller
from strategies.reinforcement.rewards import Baseline, Kind, Rewards

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Child:
    """A finished architecture, its reward, and the log-probability with which it was sampled."""

    arch: Architecture
    reward: float
    log_probability: float


class PPO:
    """A policy that learns from every minibatch of finished children for several epochs, within a trust region."""

    class Config(BaseConfig):
        """Ranges are wide; the papers' values are in the descriptions."""

        batch: int = Field(5, ge=1, le=10_000, description="finished children per update (NASNet: 20)")
        epochs: int = Field(5, ge=1, le=1000, description="steps of the optimiser per update")
        clip: float = Field(0.2, gt=0, lt=1, description="eps, how far the ratio may move (Schulman et al.: 0.2)")
        learning_rate: float = Field(0.003, gt=0, le=1, description="of Adam (NASNet: 0.00035)")
        entropy: float = Field(0.02, ge=0, le=10, description="weight of the entropy in the loss (NASNet: 0.00001)")
        decay: float = Field(0.95, ge=0, lt=1, description="of the baseline's moving average (NASNet: 0.95)")
        reward: Kind = Field(
            "rank", description='"rank" among all candidates so far; "value": the objective itself (the papers)'
        )
        units: int = Field(UNITS, ge=1, le=4096, description="units of the controller's LSTM (NASNet: 100)")

    def __init__(self, setting: Setting, config: Config) -> None:
        self._setting = setting
        self._config = config
        self._controller = Controller(
            setting.space, generator(setting.seed, "controller"), config.units, config.learning_rate
        )
        self._rewards = Rewards(setting, config.reward)
        self._baseline = Baseline(config.decay)
        self._children: list[Child] = []
        self.drift: list[float] = []

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal:
        arch, log_probability = self._controller.sample(generator(self._setting.seed, number, "sample"))
        return Proposal(arch, note={"log_probability": log_probability})

    def adopt(self, proposal: Proposal, arch: Architecture) -> Proposal:
        """With the probability that the policy gives to `arch`."""
        note = {**proposal.note, "log_probability": self._controller.log_probability(arch)}
        return replace(proposal, arch=arch, note=note)

    def tell(self, outcome: Outcome) -> None:
        log_probability = float(outcome.proposal.note["log_probability"])
        self._children.append(Child(outcome.proposal.arch, self._rewards.add(outcome), log_probability))
        if len(self._children) == self._config.batch:
            self._update()
            self._children.clear()

    def _update(self) -> None:
        scripts = [self._controller.script(child.arch) for child in self._children]
        old = [child.log_probability for child in self._children]
        advantages = [self._baseline.advantage(child.reward) for child in self._children]
        self.drift = []

        def loss(log_pi: Tensor, entropies: Tensor) -> Tensor:
            ratios = (log_pi - log_pi.new_tensor(old)).exp()
            self.drift.append(float((ratios.detach() - 1).abs().mean()))
            gains = clipped(ratios, ratios.new_tensor(advantages), self._config.clip)
            return -(gains + self._config.entropy * entropies).mean()

        for _ in range(self._config.epochs):
            self._controller.learn(scripts, loss)

    def state_dict(self) -> dict[str, Any]:
        space = self._setting.space
        return {
            "controller": self._controller.state_dict(),
            "rewards": self._rewards.state_dict(),
            "baseline": self._baseline.value,
            "children": [
                [tokens.encode(space, child.arch).tolist(), child.reward, child.log_probability]
                for child in self._children
            ],
            "drift": list(self.drift),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        space = self._setting.space
        self._controller.load_state_dict(state["controller"])
        self._rewards.load_state_dict(state["rewards"])
        self._baseline.value = state["baseline"]
        self._children = [Child(tokens.decode(space, encoded), *rest) for encoded, *rest in state["children"]]
        self.drift = list(state["drift"])


def clipped(ratios: Tensor, advantages: Tensor, eps: float) -> Tensor:
    """min(r A, clip(r, 1 - eps, 1 + eps) A) of each child, `[B]`: what PPO maximises (equation 7)."""
    return (ratios * advantages).minimum(ratios.clamp(1 - eps, 1 + eps) * advantages)
