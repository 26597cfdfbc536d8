"""Low rank by truncated singular value decompositions: the best factors of a layer's weight (Eckart and Young, 1936).

Every linear map and convolution W [n, m] becomes two layers with the factors of its `rank` largest singular values,
where these are smaller than W (`compressors.factors`). All layers are cut by one rule: what is kept of the squares of
the singular values (`energy`), a share of the rank (`share`), or, with a target, the highest energy, the same
everywhere, at which the costs are met. The last layer, the classifier, stays.

`data_aware`: what matters is the output on the data. With C the covariance of what a layer reads (patches of a
convolution), the error E|(W - W') (x - E x)|^2 = |(W - W') C^(1/2)|^2 is least where W' C^(1/2) is the truncation of W
C^(1/2); W' has its factors, one of them times C^(-1/2), and (W - W') E x goes to the bias. Where a layer has none, C is
E[x x^T]. C is of a few batches: a thousandth of its mean eigenvalue is added to its diagonal, so that directions that
they have not shown still count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from compressors.compressor import ONE_SHOT, Change, Plan, Round, Subject
from compressors.factors import (
    Matrix,
    Ranks,
    Truncation,
    factors,
    inputs_of,
    matrices,
    put,
    said,
    split,
    tails,
    watched,
)
from nas_core.config import Config
from nas_core.errors import UsageError
from search_spaces.counter import counted

ENERGY = 0.95
DAMPING = 1e-3  # of the mean eigenvalue of C


class Settings(Config):
    """How far layers are cut."""

    energy: float | None = Field(
        default=None, gt=0, lt=1, description="share of the squared singular values that is kept [default: 0.95]"
    )
    share: float | None = Field(default=None, gt=0, le=1, description="share of the rank of every layer that is kept")
    data_aware: bool = Field(default=False, description="keep what matters for the outputs on training data")
    batches: int = Field(default=8, ge=1, description="training batches that data_aware looks at")
    classifier: bool = Field(default=False, description="cut the last layer too")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.energy is not None and self.share is not None:
            raise ValueError("energy and share both say how much is kept; give one of them")
        return self


class Svd:
    """One round: all layers at once."""

    Config = Settings
    needs = ("linear",)
    rounds: ClassVar[Sequence[Round]] = ONE_SHOT

    def __init__(self, subject: Subject, config: Settings) -> None:
        if subject.targets and (config.energy, config.share) != (None, None):
            raise UsageError("svd: a target says how much is kept; leave out energy and share, or the target")
        self._subject, self._config = subject, config

    def plan(self, network: nn.Module) -> Plan:
        found = Decomposed(network, self._subject, self._config)
        return found.truncation.plan(found.ranks(), found.fixed, "rank")

    def compress(self, network: nn.Module, round: int) -> Change:
        found = Decomposed(network, self._subject, self._config)
        ranks, report = found.ranks(), {}
        for matrix in found.truncation.matrices:
            if matrix.name in ranks:
                rank = ranks[matrix.name]
                put(network, matrix.name, found.factors(matrix, rank))
                kept = 1 - float(tails(found.truncation.values[matrix.name])[rank]) ** 2
                report[matrix.name] = {**said(matrix.rows, matrix.columns, rank), "energy": kept}
        return Change(recalibrate=True, report=report)


class Decomposed:
    """The layers of a network, decomposed."""

    def __init__(self, network: nn.Module, subject: Subject, config: Settings) -> None:
        self._subject, self._config = subject, config
        found, self.fixed = matrices(network, subject, classifier=config.classifier)
        self._seen = moments(network, found, subject, config.batches) if config.data_aware else {}
        self._parts: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        for one in found:
            weight = one.weight() @ self._seen[one.name].root if self._seen else one.weight()
            self._parts[one.name] = torch.linalg.svd(weight, full_matrices=False)
        values = {name: parts[1] for name, parts in self._parts.items()}
        costs = counted(network, inputs_of(network, subject))
        self.truncation = Truncation(found, values, costs, round_to=subject.round_to)

    def ranks(self) -> Ranks:
        """By the settings or targets. Raises UsageError where no layer gets smaller."""
        truncation, share = self.truncation, self._config.share
        if self._subject.targets:
            return truncation.within(truncation.limits(self._subject))
        if share is None:
            energy = ENERGY if self._config.energy is None else self._config.energy
            found, rule = truncation.ranks((1 - energy) ** 0.5), f"energy {energy:g}"
        else:
            ranks = {one.name: int(share * min(one.rows, one.columns)) for one in truncation.matrices}
            rule = f"share {share:g}"
            found = truncation.smaller(ranks)
        if not found:
            raise UsageError(f"svd: {rule} leaves every layer a rank whose factors are no smaller; take a lower one")
        return found

    def factors(self, matrix: Matrix, rank: int) -> nn.Sequential:
        """The layers that stand for one."""
        rows, values, columns = self._parts[matrix.name]
        seen = self._seen.get(matrix.name)
        if seen is None:
            return factors(matrix.layer, *split(values, rows, columns, rank))
        low, high = split(values, rows, columns @ seen.inverse, rank)
        made = factors(matrix.layer, low, high)
        if matrix.layer.bias is not None:
            with torch.no_grad():
                made[1].bias += ((matrix.weight() - high @ low) @ seen.mean).to(made[1].bias)
        return made


@dataclass(frozen=True, slots=True)
class Moments:
    """Of what a layer reads, float64: C^(1/2) and C^(-1/2) [m, m], and E x [m], which C is around where it has a
    bias."""

    root: Tensor
    inverse: Tensor
    mean: Tensor


def moments(network: nn.Module, found: Sequence[Matrix], subject: Subject, batches: int) -> dict[str, Moments]:
    """Those of each layer, by its name, over some training batches.

    Raises UsageError where the network's answers to its data are no numbers.
    """
    squares: dict[str, Tensor] = {}
    sums: dict[str, Tensor] = {}
    counts: Counter[str] = Counter()

    def seen(name: str, layer: Any, x: Tensor, output: Tensor) -> None:
        read = patches(layer, x).double()
        squares[name] = squares.get(name, 0) + read.T @ read
        sums[name] = sums.get(name, 0) + read.sum(0)
        counts[name] += len(read)

    with watched(network, {one.name: one.layer for one in found}, seen):
        for batch in islice(subject.data.batches("train", 0, subject.seed), batches):
            network(*batch.inputs)
    made = {}
    for one in found:
        mean = sums[one.name] / counts[one.name]
        second = squares[one.name] / counts[one.name]
        if not bool(torch.isfinite(second).all()):
            raise UsageError(f"svd: what '{one.name}' reads of the data is not all numbers; data_aware cannot be")
        if one.layer.bias is not None:
            second = second - torch.outer(mean, mean)
        values, vectors = torch.linalg.eigh(second)
        values = values.clamp(min=0)
        scales = (values + DAMPING * values.mean().clamp(min=torch.finfo(torch.float64).tiny)).sqrt()
        made[one.name] = Moments((vectors * scales) @ vectors.T, (vectors / scales) @ vectors.T, mean)
    return made


def patches(layer: Any, x: Tensor) -> Tensor:
    """What the weight of a layer is multiplied with at every position, [positions, m]."""
    if isinstance(layer, nn.Linear):
        return x.flatten(0, -2) if x.dim() > 1 else x[None]
    width = layer.weight[0].numel()
    # A convolution with a filter for each entry of a patch.
    filters = torch.eye(width, dtype=x.dtype, device=x.device).reshape(width, *layer.weight.shape[1:])
    over = functional.conv1d if isinstance(layer, nn.Conv1d) else functional.conv2d
    read: Tensor = over(x, filters, None, layer.stride, layer.padding, layer.dilation)
    return read.movedim(1, -1).flatten(0, -2)
