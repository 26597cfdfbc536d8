"""What the tables of structured compression share: a trained network, a method on it, its accuracy."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import compressors
from compressors.compressor import Change, HasRegime, Subject
from compressors.target import parse_targets
from nas_core import refs
from search_spaces.ae_cnn.space import AeCnn
from search_spaces.counter import macs, params
from training.checkpoint import write_tensors
from training.compute import Forward
from training.data import load
from training.data.loading import Loading
from training.data.split import Split
from training.fit import Training, fit
from training.networks import build, load_trained
from training.recalibration import first, recalibrate
from training.recipe import Recipe, recipe
from training.tasks import sample_inputs

SPACE = AeCnn()
ARCH = SPACE.from_text("R3-64,Pmax,R6-128,Pmax,R9-256,R6-256,Pmax")
SIZE = {"width_scale": 0.25, "depth_scale": 0.34}
CPU = torch.device("cpu")
RECALIBRATION = 32  # batches, as in a compression of the command line


def method(name: str, subject: Subject, **settings: Any) -> Any:
    kind = refs.find(name, compressors.BUILTIN, compressors.GROUP, "compression method")
    return kind(subject, kind.Config(**settings))


class Problem:
    """The data of Fashion-MNIST and, by seed, a network of an AE-CNN that was trained on them."""

    def __init__(self, data: Path, folder: Path, limit: int, epochs: int, tune: int) -> None:
        self.source = load(f"idx:{data}", Split(limit=limit))
        self.plan = recipe("quick", self.source.task, epochs=epochs, lr=0.01)
        self.tuning = None if not tune else recipe("quick", self.source.task, epochs=tune, lr=0.005)
        self.data = self.source.bind("cpu", Loading(batch_size=self.plan.batch_size, channels_last=True))
        self.size = SPACE.Size(**SIZE).fitted(self.source.task)
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def network(self, seed: int) -> nn.Module:
        """Trained once; its weights are in the folder."""
        weights = self._folder / f"dense-{seed}.safetensors"
        if not weights.exists():
            model = build(SPACE, ARCH, self.source.task, self.size, seed)
            list(fit(model, self.data, self.plan, device=CPU, seed=seed))
            write_tensors(weights, model.state_dict())
        return load_trained(SPACE, ARCH, self.source.task, self.size, weights).eval()

    def subject(self, network: nn.Module, seed: int, cache: dict[str, Any], *targets: str) -> Subject:
        one = sample_inputs(self.source.task)
        return Subject(
            self.source.task,
            self.data,
            CPU,
            seed,
            inputs=tuple(sample_inputs(self.source.task, 4)),
            recipe=self.plan,
            epochs=self.tuning.epochs if self.tuning else 0,
            targets=parse_targets(targets),
            base={"params": float(params(network)), "macs": float(macs(network, one))},
            cache=cache,
        )

    def accuracy(self, network: nn.Module) -> float:
        """On all test images."""
        training = Training(copy.deepcopy(network), self.data, self.plan, CPU, 0, None)
        return training.evaluate("test")["test_accuracy"]

    def recalibrated(self, network: nn.Module) -> nn.Module:
        """The network with the statistics of training batches."""
        forward = Forward(CPU, "float32", channels_last=True)
        recalibrate(
            forward.place(network), partial(forward, network), first(self.data.batches("train", 0, 0), RECALIBRATION)
        )
        return network


@dataclass(frozen=True)
class Compressed:
    """What a method has left: `raw` is the accuracy before statistics were made anew, `before` that before training."""

    network: nn.Module
    raw: float
    before: float
    change: Change


def compressed(problem: Problem, network: nn.Module, made: Any, seed: int, raw: bool = False) -> Compressed:
    """The rounds of a method, each with its training but for the last one's."""
    network = copy.deepcopy(network)
    for number, round in enumerate(made.rounds):
        change = made.compress(network, number)
        unlike = problem.accuracy(network) if raw else 0.0
        if change.recalibrate:
            problem.recalibrated(network)
        if number < len(made.rounds) - 1:
            tuned(problem, network, seed, round.epochs, made, number)
    return Compressed(network, unlike, problem.accuracy(network), change)


def tuned(
    problem: Problem, network: nn.Module, seed: int, epochs: int | None = None, made: Any = None, number: int = 0
) -> float:
    """The test accuracy after a training by the plan of the problem, in place, with the regime of a round; `epochs`: at
    most so many of it."""
    if epochs == 0:
        return problem.accuracy(network)
    plan: Recipe | None = problem.tuning
    if plan is None:
        raise SystemExit("no epochs of training were asked for")
    if epochs is not None:
        plan = plan.model_copy(update={"epochs": min(epochs, plan.epochs)})
    regime = made.regime(network, number) if isinstance(made, HasRegime) else None
    *_, last = fit(
        network, problem.data, plan, device=CPU, seed=seed, test=True, regimes=() if regime is None else (regime,)
    )
    return last.metrics["test_accuracy"]
