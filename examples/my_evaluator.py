"""An evaluator of your own in one file: how well a ridge regression tells classes by what an untrained network answers.

nas search --evaluator examples/my_evaluator.py:RandomFeatures -s evaluator.ridge=0.1
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nas_core.architecture import Architecture
from nas_core.config import Config
from nas_core.evaluation import Budget, Context, Metric, Report
from nas_core.strategy import Proposal
from training.data import load
from training.data.loading import Loading
from training.data.split import Split
from training.evaluators.settings import Problem
from training.networks import build


class RandomFeatures:
    """Nothing is trained: weights are drawn from the candidate's seed."""

    class Settings(Config):
        """What `-s evaluator.KEY=VALUE` may say."""

        data: str = "digits"
        split: Split = Split()
        ridge: float = 1.0

    metrics = (Metric("val_accuracy"), Metric("params", "min", cost=True))
    fidelity = None  # there is one way to evaluate, not a longer and a shorter one
    deterministic = True
    in_process = True

    @classmethod
    def open(cls, settings: Settings, problem: Problem) -> tuple[RandomFeatures, str]:
        """The evaluator, and the hash of what it reads: a study goes on only while that is the same."""
        source = load(settings.data, settings.split)
        return cls(settings, problem, source), source.split_hash

    def __init__(self, settings: Settings, problem: Problem, source: Any) -> None:
        self.settings, self.problem, self.task = settings, problem, source.task
        self.data = source.bind("cpu", Loading(batch_size=256))

    def identity(self, arch: Architecture) -> str | None:
        return None  # the space decides which candidates are the same

    def costs(self, arch: Architecture, names: Sequence[str]) -> Mapping[str, float]:
        if "params" not in names:
            return {}
        size = self.problem.final_size or self.problem.size
        network = build(self.problem.space, arch, self.task, size, seed=0)
        return {"params": float(sum(parameter.numel() for parameter in network.parameters()))}

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        network = build(self.problem.space, proposal.arch, self.task, self.problem.size, context.seed)
        features, targets = self._answers(network, "train")
        wanted = torch.nn.functional.one_hot(targets, self.task.outputs).double()
        gram = features.T @ features + self.settings.ridge * torch.eye(features.shape[1], dtype=torch.float64)
        weights = torch.linalg.solve(gram, features.T @ wanted)
        features, targets = self._answers(network, "valid")
        right = ((features @ weights).argmax(1) == targets).double().mean()
        yield Report(1, {"val_accuracy": float(right), **self.costs(proposal.arch, ["params"])})

    @torch.no_grad()
    def _answers(self, network: torch.nn.Module, part: str) -> tuple[Tensor, Tensor]:
        """Standardised answers of the network with a column of ones, [n, outputs + 1], and classes, [n]."""
        network.eval()
        pairs = [(network(*batch.inputs), batch.target) for batch in self.data.batches(part, 0, 0)]
        answers = torch.cat([answer for answer, _ in pairs]).double()
        answers = (answers - answers.mean(0)) / answers.std(0).clamp_min(1e-12)
        return torch.cat([answers, torch.ones(len(answers), 1)], 1), torch.cat([target for _, target in pairs])
