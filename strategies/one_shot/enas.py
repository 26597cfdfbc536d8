"""ENAS: a recurrent controller that is rewarded with the accuracy of its architectures under shared weights.

Pham, Guan, Zoph, Le and Dean, "Efficient Neural Architecture Search via Parameter Sharing", ICML 2018, section 2.2.
Every epoch has two phases:

1. One pass over the half "weights", every batch through the path of a freshly sampled architecture: only the weights
   of that path move.
2. `controller_steps` steps of the controller with the weights as they are. Each averages the policy gradient over
   `aggregate` sampled architectures, every one on a batch of its own of the half "alphas":

       -(R - b) log pi(a),        R = accuracy + beta H(pi(. | a)),        b <- d b + (1 - d) R.

   The entropy is part of the reward, as published, and so a number without a gradient; `reinforce` has it in the
   loss, which is another gradient. The baseline is a number too; it starts with the first reward.

An architecture's accuracy is measured in evaluation mode, but batch normalisation uses the statistics of the batch:
running ones are averages over all paths and right for none. They are neither read nor changed.

At the end `candidates` different architectures are sampled, and the one that is most accurate on `derive_batches`
batches of "alphas" is the result (the smaller loss decides between equals).

The weights' recipe is that of the published search of cells (scripts/cifar10_micro_search.sh): SGD with Nesterov's
momentum, batches of 160, a cosine from 0.05 to 0.0005 with warm restarts after 10, 30 and 70 of 150 epochs, an L2 term
of 1e-4 |w|^2 (here its gradient, a weight decay of 2e-4), paths other than skips dropped with a probability that rises
to 0.4, a second classifier where the size asks for one (`--size auxiliary=true` in the space `darts`). It differs in
that paths are dropped alike in all cells, where the published code drops fewer in the first ones, with a probability
that changes by the epoch; that there is no dropout before the classifier (0.1); and that the second classifier stands
where the space has it. The published code means to clip gradients and applies what it has not clipped: neither is done
here.

The controller is the one of `strategies/reinforcement/controller.py`, which knows any space. Left out are what the
published code does to its logits: the tanh constant of 1.10 with temperature, the bias of +10 on the two separable
convolutions and the fixed +-0.25 of the first cell, which prefer operations of one space by hand.

On NAS-Bench-201 it collapses to skips, as published (54.30% on CIFAR-10; Dong and Yang, ICLR 2020): in the first epochs
paths of skips are ahead under shared weights, and the policy is certain before convolutions have learnt. Neither a
faster baseline nor 200 times the entropy in the reward changes that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.batch import Batch, Data
from nas_core.one_shot import Compute, Progress
from nas_core.seeds import derive, generator
from nas_core.strategy import Setting
from search_spaces.supernet.supernet import Supernet
from strategies.one_shot.weights import SharedWeights, WeightsConfig, mean, unconstrained
from strategies.reinforcement.controller import UNITS, Controller, Reader
from strategies.reinforcement.reinforce import loss
from strategies.reinforcement.rewards import Baseline
from training.tasks import kind_of

if TYPE_CHECKING:
    from numpy.random import Generator

WEIGHTS, ALPHAS = "weights", "alphas"
TRIES = 20  # draws per candidate, before a policy counts as too narrow for so many different ones


@dataclass(frozen=True, slots=True)
class Drawn:
    """A sampled architecture with its log-probability and the summed entropy of the softmaxes it was drawn from."""

    arch: Architecture
    log_probability: float
    entropy: float


class Enas:
    """A controller that learns on a supernet (`nas_core.one_shot.OneShot`).

    Raises UsageError for a space that is not relaxable, and for constraints, of which the reward knows nothing.
    """

    one_path: ClassVar[bool] = True  # what a pass needs of memory

    class Config(WeightsConfig):
        """The defaults are the published ones, except `candidates` (about 1,000)."""

        when_absent: ClassVar[Mapping[str, Any]] = {"restart_epochs": None, "drop_path": 0.0, "auxiliary": False}

        epochs: int = Field(default=150, ge=1, le=100_000, description="of the supernet's training")
        batch_size: int = Field(default=160, ge=2, le=65_536, description="of images; a graph is always one batch")
        lr: float = Field(default=0.05, gt=0, le=10, description="of the weights, at the start of the schedule")
        lr_end: float = Field(default=0.0005, ge=0, le=10, description="of the weights, at the end")
        restart_epochs: int | None = Field(
            default=10,
            ge=1,
            description="warm restarts: epochs after which the schedule starts over for the first time",
        )
        nesterov: bool = True
        weight_decay: float = Field(default=2e-4, ge=0, le=1)
        grad_clip: float | None = Field(
            default=None, gt=0, description="largest norm of the weights' gradient; null: any"
        )
        drop_path: float = Field(
            default=0.4, ge=0, lt=1, description="of images: probability of dropping a path that is no skip, at the end"
        )
        auxiliary: bool = Field(default=True, description="a second classifier, where the size asks for one")

        controller_steps: int = Field(default=30, ge=1, le=100_000, description="of the controller in every epoch")
        aggregate: int = Field(default=10, ge=1, le=10_000, description="architectures per step of the controller")
        controller_lr: float = Field(default=0.0035, gt=0, le=1, description="of the controller (Adam)")
        entropy: float = Field(default=1e-4, ge=0, le=10, description="weight of the entropy in the reward")
        decay: float = Field(default=0.999, ge=0, lt=1, description="of the baseline's moving average")
        units: int = Field(default=UNITS, ge=1, le=4096, description="units of the controller's LSTM")
        candidates: int = Field(default=100, ge=1, le=100_000, description="sampled at the end; the best is the result")
        derive_batches: int = Field(default=1, ge=1, le=100_000, description="that the candidates are compared on")

    supernet: Supernet

    def __init__(self, setting: Setting, config: Config) -> None:
        unconstrained(setting, "enas")
        self.setting, self.config = setting, config
        rng = generator(setting.seed, "controller")
        self.controller = Controller(setting.space, rng, config.units, config.controller_lr)
        self.baseline = Baseline(config.decay)

    def start(self, make: Callable[[], nn.Module], data: Data, compute: Compute) -> None:
        supernet = make()
        assert isinstance(supernet, Supernet)
        self.data = data
        self.weights = SharedWeights(supernet, data, self.config, compute)
        self.supernet = self.weights.supernet

    def step(self, epoch: int) -> Progress:
        train_loss = self._train_weights(epoch)
        with self._measuring():
            steps = list(self._train_controller(epoch))
        drawn = [one for step, _ in steps for one in step]
        accuracies = [accuracy for _, found in steps for accuracy in found]
        metrics = {
            "train_loss": train_loss,
            "reward": sum(accuracies) / len(accuracies),
            "entropy": sum(one.entropy for one in drawn) / len(drawn),
        }
        last = zip(*steps[-1], strict=True)
        best, _ = max(last, key=lambda pair: (pair[1], pair[0].log_probability))
        return Progress(metrics, self._frequencies(drawn), best.arch, done=epoch + 1 >= self.config.epochs)

    def result(self) -> Sequence[Architecture]:
        """The most accurate of the candidates; depends on the state and the seed alone."""
        rng = generator(self.setting.seed, "derive")
        found: dict[Architecture, None] = {}
        for _ in range(TRIES * self.config.candidates):
            found.setdefault(self._draw(rng).arch)
            if len(found) == self.config.candidates:
                break
        passes = self.data.batches(ALPHAS, 0, derive(self.setting.seed, "derive"))
        batches = list(islice(passes, self.config.derive_batches))
        scores, reward = {}, kind_of(self.data.task).reward
        with self._measuring():
            for arch in found:
                sums = [self._measure(arch, batch) for batch in batches]
                scores[arch] = (sum(float(reward(one)) for one in sums), -sum(float(one["loss"]) for one in sums))
        return [max(scores, key=lambda arch: scores[arch])]

    def state_dict(self) -> dict[str, Any]:
        controller = self.controller.state_dict()
        return {
            "weights": self.weights.state_dict(),
            "controller": {
                "weights": torch.from_numpy(controller["weights"]),
                "moments": torch.from_numpy(controller["moments"]),
                "steps": controller["steps"],
            },
            "baseline": self.baseline.value,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.weights.load_state_dict(state["weights"])
        controller = state["controller"]
        self.controller.load_state_dict(
            {
                "weights": controller["weights"].cpu().numpy(),
                "moments": controller["moments"].cpu().numpy(),
                "steps": controller["steps"],
            }
        )
        self.baseline.value = state["baseline"]

    def dropped(self, epoch: int) -> float:
        """The probability of dropping a path in an epoch: linear, 0 in the first one."""
        images = len(self.data.task.input_shape) == 3
        return self.config.drop_path * epoch / max(self.config.epochs - 1, 1) if images else 0.0

    def _draw(self, rng: Generator) -> Drawn:
        reader = Reader(self.controller)
        arch = moves.complete(self.setting.space, {}, lambda choice, options: reader.write(choice, options, rng))
        return Drawn(arch, reader.log_probability, reader.entropy)

    def _train_weights(self, epoch: int) -> float:
        """One pass over the weights' half; the mean loss."""
        self.weights.begin(epoch)
        rng = generator(self.setting.seed, epoch, "paths")
        dropped = self.dropped(epoch)
        total, batches = torch.zeros((), device=self.weights.device), 0
        for batch in self.data.batches(WEIGHTS, epoch, self.setting.seed):
            mix = replace(self.supernet.mix_of(self._draw(rng).arch), drop_path=dropped)
            total += self.weights.step(batch, mix)
            batches += 1
        return mean(total, batches, "training loss")

    def _train_controller(self, epoch: int) -> Iterator[tuple[list[Drawn], list[float]]]:
        """The controller's steps of an epoch: what was sampled, and how accurate it was."""
        config = self.config
        rng = generator(self.setting.seed, epoch, "rewards")
        batches, reward = self._endless(epoch), kind_of(self.data.task).reward
        for _ in range(config.controller_steps):
            drawn = [self._draw(rng) for _ in range(config.aggregate)]
            sums = [self._measure(one.arch, next(batches)) for one in drawn]
            # One transfer per step: the device is not waited for after every architecture.
            accuracies = torch.stack([reward(one) / one["count"] for one in sums]).tolist()
            self.learn(drawn, accuracies)
            yield drawn, accuracies

    def learn(self, drawn: Sequence[Drawn], accuracies: Sequence[float]) -> None:
        """One step of the controller."""
        rewards = [
            accuracy + self.config.entropy * one.entropy for one, accuracy in zip(drawn, accuracies, strict=True)
        ]
        advantages = [self.baseline.advantage(reward) for reward in rewards]
        scripts = [self.controller.script(one.arch) for one in drawn]
        self.controller.learn(scripts, lambda log_pi, entropies: loss(log_pi, entropies, advantages, 0.0))

    def _endless(self, epoch: int) -> Iterator[Batch]:
        """Batches of the controller's half, pass after pass."""
        seed = derive(self.setting.seed, epoch, "rewards")
        for lap in count():
            yield from self.data.batches(ALPHAS, lap, seed)

    def _measure(self, arch: Architecture, batch: Batch) -> Mapping[str, Tensor]:
        with torch.no_grad():
            return self.data.metrics(self.weights.forward(batch, self.supernet.mix_of(arch)), batch)

    def _measuring(self) -> AbstractContextManager[None]:
        """How the supernet is while architectures are measured. Entering takes as long as a small network's pass."""
        return batch_statistics(self.supernet)

    def _frequencies(self, drawn: Sequence[Drawn]) -> dict[str, tuple[float, ...]]:
        """Per group how often each candidate was sampled, as a part of all."""
        assignments = [self.setting.space.assignment(one.arch) for one in drawn]
        strengths = {}
        for name, group in self.supernet.groups.items():
            taken = Counter(assignment[name] for assignment in assignments)
            strengths[name] = tuple(taken[option] / len(drawn) for option in group.options)
        return strengths


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, in which batch normalisation takes the statistics of the batch and leaves its running ones
    alone; at the end all modes are as before."""
    modes = {module: module.training for module in network.modules()}
    tracking = {module: module.track_running_stats for module in modes if isinstance(module, _BatchNorm)}
    network.eval()
    for norm in tracking:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for norm, tracked in tracking.items():
            norm.track_running_stats = tracked
