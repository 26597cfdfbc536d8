"""Rankings over a pool of architectures: several scores joined by their ranks within the pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy

from nas_core.architecture import Architecture
from predictors.surrogate import Score

if TYPE_CHECKING:
    from predictors.surrogate import Floats


@dataclass(frozen=True, slots=True)
class Ranking:
    """`scores` whose ranks are joined, and whether it is their logarithms that are added."""

    scores: tuple[str, ...]
    logarithms: bool = False


RANKINGS: Mapping[str, Ranking] = {
    # Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021. Deviation: the mean rank
    # instead of the majority over pairs, which need not be an order.
    "vote": Ranking(("synflow", "jacob_cov", "snip")),
    # Lee and Ham, "AZ-NAS", CVPR 2024: sum of log(rank / number).
    "az_nas": Ranking(
        ("az_nas.expressivity", "az_nas.progressivity", "az_nas.trainability", "az_nas.complexity"), logarithms=True
    ),
}


def ranking(name: str, archs: Sequence[Architecture], score: Score) -> list[float]:
    """One number per architecture, higher is better: a ranking of `RANKINGS`, whose numbers hold within `archs` only,
    or any score as it is, such as `naswot` or `az_nas.trainability`."""
    found = RANKINGS.get(name)
    if not archs:
        return []
    if found is None:
        return [float(value) for value in score(name, archs)]
    columns = [score(part, archs) for part in found.scores]
    if not found.logarithms:
        return rank_mean(columns)
    return [float(value) for value in numpy.log([ranks(column) for column in columns]).sum(0)]


def rank_mean(columns: Sequence[Sequence[float]]) -> list[float]:
    """The mean over columns of the ranks of `ranks`: in (0, 1], 1 for what is best by all of them."""
    return [float(value) for value in numpy.mean([ranks(column) for column in columns], axis=0)]


def ranks(column: Sequence[float]) -> Floats:
    """Rank over number, in (0, 1]: the best has 1; equal values share the mean of their ranks. NaN counts as minus
    infinity, which is the worst."""
    from scipy.stats import rankdata

    values = numpy.asarray(column, dtype=numpy.float64)
    found: Floats = rankdata(numpy.where(numpy.isnan(values), -numpy.inf, values)) / max(len(values), 1)
    return found
