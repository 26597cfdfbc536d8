"""REINFORCE: a recurrent controller that learns to propose good architectures.

Zoph and Le, "Neural Architecture Search with Reinforcement Learning", ICLR 2017, section 3.2; the controller is that of
NASNet (`strategies/reinforcement/controller.py`); Williams, "Simple Statistical Gradient-Following Algorithms", 1992.
After every `batch` of children one step of Adam goes down the mean over the children of

    -(R - b) log pi(a) - beta H(pi(. | a)),        b <- d b + (1 - d) R.

R is the reward, b its exponential moving average (it starts with the first reward, and each child is compared with
the average before it), log pi(a) the joint log-probability of the child's softmaxes and H the sum of their
entropies. The entropy is part of the loss; ENAS adds it to the reward instead, which is another gradient. Reused
outcomes give gradient like all others; failed trials get the worst reward.

The textbook values (learning rate 0.00035, entropy weight 0.0001, reward = accuracy) learn from tens of thousands of
children; within a hundred they do not beat random search. The defaults here are for hundreds of children: ranks as
rewards (`strategies/reinforcement/rewards.py`), a step after every child, ten times the learning rate, and so much
entropy that the policy stays broad until the ranks agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


class Reinforce:
    """A policy that is sampled independently for every proposal and learns from every finished batch."""

    class Config(BaseConfig):
        """Ranges are wide; the papers' values are in the descriptions."""

        batch: int = Field(1, ge=1, le=10_000, description="children per step of the optimiser")
        learning_rate: float = Field(0.004, gt=0, le=1, description="of Adam (NASNet: 0.00035, ENAS: 0.0035)")
        entropy: float = Field(0.05, ge=0, le=10, description="weight of the entropy in the loss (NASNet: 0.00001)")
        decay: float = Field(0.9, ge=0, lt=1, description="d of the baseline's moving average (NASNet: 0.95)")
        reward: Kind = Field(
            "rank", description='"rank" among all candidates so far; "value": the objective itself (the papers)'
        )
        units: int = Field(UNITS, ge=1, le=4096, description="units of the controller's LSTM")

    def __init__(self, setting: Setting, config: Config) -> None:
        self._setting = setting
        self._config = config
        self._controller = Controller(
            setting.space, generator(setting.seed, "controller"), config.units, config.learning_rate
        )
        self._rewards = Rewards(setting, config.reward)
        self._baseline = Baseline(config.decay)
        self._children: list[tuple[Architecture, float]] = []  # with their rewards

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal:
        arch, _ = self._controller.sample(generator(self._setting.seed, number, "sample"))
        return Proposal(arch)

    def tell(self, outcome: Outcome) -> None:
        self._children.append((outcome.proposal.arch, self._rewards.add(outcome)))
        if len(self._children) < self._config.batch:
            return
        scripts = [self._controller.script(arch) for arch, _ in self._children]
        advantages = [self._baseline.advantage(reward) for _, reward in self._children]
        entropy = self._config.entropy
        self._controller.learn(scripts, lambda log_pi, entropies: loss(log_pi, entropies, advantages, entropy))
        self._children.clear()

    def state_dict(self) -> dict[str, Any]:
        space = self._setting.space
        return {
            "controller": self._controller.state_dict(),
            "rewards": self._rewards.state_dict(),
            "baseline": self._baseline.value,
            "children": [[tokens.encode(space, arch).tolist(), reward] for arch, reward in self._children],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        space = self._setting.space
        self._controller.load_state_dict(state["controller"])
        self._rewards.load_state_dict(state["rewards"])
        self._baseline.value = state["baseline"]
        self._children = [(tokens.decode(space, encoded), reward) for encoded, reward in state["children"]]


def loss(log_pi: Tensor, entropies: Tensor, advantages: Sequence[float], weight: float) -> Tensor:
    """The mean of -(R - b) log pi - weight * H over the children, all `[B]`."""
    return -(log_pi * log_pi.new_tensor(advantages) + weight * entropies).mean()
