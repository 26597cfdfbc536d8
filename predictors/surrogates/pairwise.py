"""Pairwise ranking: a network that says which of two architectures is better.

Dudziak et al., "BRP-NAS: Prediction-based NAS using GCNs", NeurIPS 2020, section 4: a graph network embeds both, a
binary relation predictor compares them, and candidates are ranked by how many others they beat.

Deviations: a graph isomorphism network embeds; the relation is antisymmetric by construction, so that
P(A > B) + P(B > A) = 1; others are the observed architectures, which gives wins a scale: the normal score of the
part of them that is beaten, and from that a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from nas_core.architecture import Architecture
from nas_core.config import Config as BaseConfig
from nas_core.errors import UsageError
from nas_core.seeds import derive
from predictors.surrogate import Problem
from predictors.surrogates.gin import GIN, Graphing, Labels
from predictors.surrogates.graph_network import GraphConfig
from predictors.surrogates.neural import CHUNK, Fitted, Outputs, batches, steps_for, train
from training.threads import thread_count

if TYPE_CHECKING:
    from predictors.surrogate import Floats

CERTAIN = 1e-6  # what is beaten by everything, or by nothing, is beaten with this probability less


class PairwiseConfig(GraphConfig):
    """Also how the two are compared, and with how many."""

    relation: int = Field(32, ge=1, le=1024, description="units that compare two embeddings")
    opponents: int = Field(
        128, ge=2, description="observed architectures, evenly over the ranks, that are to be beaten"
    )


class Pairwise:
    """Ranks by wins; the mean is the value that has as many wins, the uncertainty is that of the ensemble."""

    Config: ClassVar[type[BaseConfig]] = PairwiseConfig

    def __init__(self, problem: Problem, config: Any) -> None:
        self._graphs, self._config = Graphing(problem.space), config
        self._seed = derive(problem.seed, "pairwise")
        self._fitted: Fitted | None = None
        self._labels: Labels | None = None
        self._network: Relation | None = None

    def fit(self, archs: Sequence[Architecture], values: Sequence[float]) -> None:
        self._network = self._labels = None
        self._fitted = Fitted.to(archs, values, self._config.members, self._seed, self._learn)

    def predict(self, archs: Sequence[Architecture]) -> tuple[Floats, Floats]:
        """Raises UsageError before `fit`."""
        if self._fitted is None:
            raise UsageError("the pairwise ranking has not been fitted")
        return self._fitted.predict(archs)

    def better(self, some: Sequence[Architecture], others: Sequence[Architecture]) -> Floats:
        """P(one of `some` is better than one of `others`), shape [some, others]: the mean over the members.

        Without a network, fitted to constant values, all are 1/2. Raises UsageError before `fit`.
        """
        if self._fitted is None:
            raise UsageError("the pairwise ranking has not been fitted")
        network = self._network
        if network is None or not some or not others:
            return numpy.full((len(some), len(others)), 0.5)
        with thread_count(1), torch.no_grad():
            ours, theirs = self._embedded(network, some), self._embedded(network, others)
            found = torch.sigmoid(network.compare(ours, theirs)).double().mean(0)
        return numpy.asarray(found.numpy())

    def _embedded(self, network: Relation, archs: Sequence[Architecture]) -> Tensor:
        """[members, architectures, 2 * hidden]"""
        assert self._labels is not None
        graphs = self._graphs(archs)
        parts = [network.embed(self._labels.batch(graphs[at : at + CHUNK])) for at in range(0, len(graphs), CHUNK)]
        return torch.cat(parts, 1)

    def _learn(self, archs: Sequence[Architecture], targets: Tensor, learned: Tensor) -> Outputs:
        config = self._config
        graphs = self._graphs(archs)
        labels = self._labels = Labels(graphs)
        observed = labels.batch(graphs)
        network = self._network = Relation(config, labels.width, self._seed)

        def loss(chosen: Tensor) -> Tensor:
            embedded, target = network.embed(observed[chosen]), targets[chosen]
            wins = (target[:, None] > target[None, :]).float() + 0.5 * (target[:, None] == target[None, :]).float()
            off = binary_cross_entropy_with_logits(
                network.compare(embedded, embedded), wins.expand(config.members, -1, -1), reduction="none"
            )
            both = learned[:, chosen, None] * learned[:, None, chosen]
            return (off * both).sum() / both[0].numel()

        steps = steps_for(len(archs), config.steps, config.batch)
        positions = batches(len(archs), config.batch, steps, self._seed)
        train(network, loss, positions, steps, config.rate, config.decay)
        ranked = torch.argsort(targets, stable=True)
        evenly = torch.linspace(0, len(archs) - 1, min(config.opponents, len(archs))).round().long()
        with torch.no_grad():
            opponents = network.embed(observed[ranked[evenly]])

        def outputs(wanted: Sequence[Architecture]) -> Tensor:
            with torch.no_grad():
                beaten = torch.sigmoid(network.compare(self._embedded(network, wanted), opponents).double()).mean(2)
            return torch.special.ndtri(beaten.clamp(CERTAIN, 1 - CERTAIN))

        return outputs


class Relation(GIN):
    """The logit of "better than" for pairs of embeddings: g(a, b) - g(b, a), with one hidden layer in g."""

    def __init__(self, config: PairwiseConfig, features: int, seed: int) -> None:
        super().__init__(config.members, features, config.hidden, config.layers, seed)
        self.first, self.second = (self.weight(2 * config.hidden, config.relation, 1.0) for _ in range(2))
        self.bias_inner, self.outer = self.bias(config.relation), self.weight(config.relation, 1, 0.3)

    def compare(self, ours: Tensor, theirs: Tensor) -> Tensor:
        """[members, ours, theirs]"""
        return self._scored(ours, theirs) - self._scored(theirs, ours).transpose(1, 2)

    def _scored(self, one: Tensor, other: Tensor) -> Tensor:
        left, right = torch.baddbmm(self.bias_inner, one, self.first), torch.bmm(other, self.second)
        inner = torch.relu(left[:, :, None] + right[:, None])
        return (inner @ self.outer[:, None])[..., 0]
