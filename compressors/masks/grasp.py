"""GraSP: weights whose absence hinders the gradient of an untrained network least.

Wang, Zhang and Grosse, "Picking Winning Tickets Before Training by Preserving Gradient Flow", ICLR 2020, equation 8 and
algorithm 2: S(-theta) = -theta * (H g) with the gradient g and the Hessian H of the loss; the *largest* S are masked,
because without them the gradient flow shrinks least, or grows. The loss is that of logits divided by a temperature of
200, of as many samples of every class (10).

Deviations: a class of which there are fewer samples gives what it has; where outputs are no classes, or samples cannot
be taken apart, one batch of the training is taken, at temperature 1. Batch normalisation goes by the batch, dropout is
off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from compressors.compressor import Subject
from compressors.importance.passes import Loss, drawn, gradients, hessian_product
from compressors.masks.masking import Masks
from compressors.masks.start import AtStart, StartMasking, starting
from nas_core.batch import Batch, Data
from nas_core.seeds import derive
from training.tasks import kind_of


class GraspSettings(AtStart):
    """The defaults are the paper's."""

    temperature: float = Field(default=200.0, gt=0, description="that logits are divided by")
    per_class: int = Field(default=10, ge=1, description="samples of every class")


class Grasp(StartMasking):
    """Masks the largest S, in one step."""

    Config: ClassVar[type[Masks]] = GraspSettings
    needs = ("linear", "data")
    kept = True

    def scores(self, network: nn.Module, weights: Mapping[str, nn.Parameter], round: int) -> Mapping[str, Tensor]:
        """-S: what stays has the least S."""
        classes = is_classification(self.subject.data)
        batch = balanced(self.subject, self.config.per_class) if classes else next(drawn(self.subject, round, 1))
        with starting(network, self.subject) as (copied, parameters):
            chosen, loss = {name: parameters[name] for name in weights}, Loss(copied, self.subject)
            value = loss.of(loss.output(batch) / (self.config.temperature if classes else 1.0), batch)
            flow = {name: one.detach() for name, one in gradients(value, chosen, second=True).items()}
            product = hessian_product(value, chosen, flow)
        return {name: weights[name].detach() * one for name, one in product.items()}


def is_classification(data: Data) -> bool:
    """Whether every sample has one class, and can be taken apart from the others."""
    apart = kind_of(data.task).apart and data.task.positions is None
    return apart and not data.targets("train").is_floating_point()


def balanced(subject: Subject, per_class: int) -> Batch:
    """The first `per_class` samples of every class in the order of a training, fewer where there are no more."""
    data = subject.data
    lacking = dict.fromkeys(range(data.task.outputs), per_class)

    def parts() -> Iterator[Batch]:
        for batch in data.batches("train", 0, derive(subject.seed, "masks")):
            rows = []
            for row, label in enumerate(batch.target.tolist()):
                if lacking[label]:
                    lacking[label] -= 1
                    rows.append(row)
            if rows:
                chosen = torch.tensor(rows, device=batch.target.device)
                inputs = tuple(tensor.index_select(0, chosen) for tensor in batch.inputs)
                yield replace(batch, inputs=inputs, target=batch.target.index_select(0, chosen))
            if not any(lacking.values()):
                return

    found = list(parts())
    columns = zip(*(batch.inputs for batch in found), strict=True)
    target = torch.cat([batch.target for batch in found])
    return replace(found[0], inputs=tuple(map(torch.cat, columns)), target=target)
