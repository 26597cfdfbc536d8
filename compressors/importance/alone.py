"""What the loss really does when one unit goes alone: what scores are held against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from compressors.compressor import Subject
from compressors.groups.groups import Groups, Unit
from compressors.importance.passes import Loss
from compressors.importance.score import Scores
from nas_core.batch import Batch


def loss_changes(network: nn.Module, groups: Groups, subject: Subject, batches: Sequence[Batch]) -> Scores:
    """By group the change of the mean loss on `batches` where one unit is removed and all else stays: what makes it is
    0 meanwhile, which is its removal where the group is exact. The network, in evaluation mode, stays as it is. Takes a
    pass over the batches per unit.
    """
    loss, tensors = Loss(network, subject), {**dict(network.named_parameters()), **dict(network.named_buffers())}
    samples = sum(batch.samples for batch in batches)

    def mean() -> float:
        return sum(float(loss(batch)) * batch.samples for batch in batches) / samples

    found = {}
    with torch.no_grad():
        whole = mean()
        for group in groups.groups:
            changes = numpy.empty(len(group.units))
            for number, unit in enumerate(group.units):
                kept = _switched_off(unit, tensors)
                changes[number] = mean() - whole
                for tensor, value in kept:
                    tensor.copy_(value)
            found[group.name] = changes
    return found


def agreement(scores: Scores, changes: Scores) -> tuple[float, dict[str, float]]:
    """Spearman's correlation of scores with changes: over all units, and by group, those of fewer than three units left
    out. A group that the scores say nothing of counts nowhere."""
    names = [name for name in changes if name in scores]
    together = spearmanr(*(numpy.concatenate([one[name] for name in names]) for one in (scores, changes)))
    within = {name: float(spearmanr(scores[name], changes[name])[0]) for name in names if len(changes[name]) > 2}
    return float(together[0]), within


def _switched_off(unit: Unit, tensors: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Sets what makes a unit to 0; the tensors and what they were, the last change first."""
    kept: list[tuple[Tensor, Tensor]] = []
    for one in unit.produced:
        tensor = tensors[one.tensor]
        kept.insert(0, (tensor, tensor.clone()))
        tensor.index_fill_(one.dim, torch.tensor(one.indices, device=tensor.device), 0)
    return kept
