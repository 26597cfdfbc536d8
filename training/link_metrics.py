"""Metrics of links: how far scores of pairs with an edge are above those of pairs without.

`outputs` [p, 1] are scores, `targets` [p, 1] are 1 where there is an edge and 0 elsewhere, of a whole part. Ranks are
among all pairs without an edge of that part, as those of OGB's Hits@K are (Hu et al., NeurIPS 2020); of equal scores
the worst rank counts, so that a network which answers alike for all pairs is the worst.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nas_core.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


def auc(outputs: Tensor, targets: Tensor) -> float:
    """`sklearn.metrics.roc_auc_score`: the share of (edge, no edge) in which the edge scores higher; nan without one of
    both."""
    from sklearn.metrics import roc_auc_score

    if len(targets.unique()) < 2:
        return math.nan
    return float(roc_auc_score(targets[:, 0].numpy(), outputs[:, 0].numpy()))


def average_precision(outputs: Tensor, targets: Tensor) -> float:
    """`sklearn.metrics.average_precision_score`; nan without an edge, or without another pair."""
    from sklearn.metrics import average_precision_score

    if len(targets.unique()) < 2:
        return math.nan
    return float(average_precision_score(targets[:, 0].numpy(), outputs[:, 0].numpy()))


def ranks(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of each edge [e] its rank, from 1, among it and all pairs without an edge."""
    import torch

    edge = targets[:, 0] > 0
    scores = outputs[:, 0].double()
    others = scores[~edge].sort().values
    below = torch.searchsorted(others, scores[edge])  # how many others score lower
    return 1 + len(others) - below


def mrr(outputs: Tensor, targets: Tensor) -> float:
    """The mean of 1 / rank over the edges, as `torch_geometric.metrics.LinkPredMRR` of every edge as its own query; nan
    without one."""
    found = ranks(outputs, targets)
    return float((1 / found.double()).mean()) if len(found) else math.nan


class Hits:
    """Hits@k: the share of edges whose rank is at most `k`, those that score above the k-th best pair without an edge
    (Hu et al., NeurIPS 2020); as `torch_geometric.metrics.LinkPredHitRatio`. Raises UsageError."""

    def __init__(self, k: int = 50) -> None:
        if not isinstance(k, int) or k < 1:
            raise UsageError(f"hits: k={k!r}; at least 1 is needed")
        self.k = k

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        found = ranks(outputs, targets)
        return float((found <= self.k).double().mean()) if len(found) else math.nan
