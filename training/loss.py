"""What a training minimises: the data's own loss, another of torch's, or a function of the user's."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy
import torch
from torch import Tensor
from torch.nn import functional

from nas_core import refs
from nas_core.batch import Batch, Data
from training.recipe import Recipe, losses
from training.tasks import kind_of

GROUP = "nas.losses"


def load_loss(reference: str) -> refs.Loaded:
    """The function `(outputs [b, classes], targets [b]) -> scalar` that a recipe's `loss` names: the mean over a batch.

    Outputs are float32 on the device, targets int64. A class is made first; `FILE.py:Focal(gamma=2)` gives it
    arguments. Raises UsageError or NotFoundError.
    """
    if reference in losses():
        return refs.Loaded(getattr(functional, reference), reference)
    return refs.load_function(reference, {}, GROUP, "loss")


class Criterion:
    """The loss of a recipe, on a kind of data.

    What is minimised has the recipe's class weights and label smoothing and, of mixed batches, both targets. What is
    reported of other parts is the loss alone, so that recipes can be compared.
    """

    def __init__(self, recipe: Recipe, data: Data) -> None:
        self._data = data
        self._own = recipe.loss != next(iter(kind_of(data.task).losses))
        self._reference = recipe.loss
        self._function: Callable[..., Tensor] = load_loss(recipe.loss).object
        self._options: dict[str, object] = {}
        if recipe.label_smoothing:
            self._options["label_smoothing"] = recipe.label_smoothing
        self._complement = recipe.class_weights == "complement"
        if recipe.class_weights == "balanced":
            self._options["weight"] = balanced_weights(data.targets("train").flatten(), data.task.outputs)

    def __call__(self, output: Tensor, batch: Batch) -> Tensor:
        """The scalar mean over a training batch."""
        if batch.mixed is None:
            return self._loss(output, batch)
        second, share = batch.mixed
        other = Batch(batch.inputs, second, batch.index)
        return share * self._loss(output, batch) + (1 - share) * self._loss(output, other)

    def metrics(self, output: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """Sums over the samples of a batch: those of the data, with this loss where it is not the data's."""
        sums = self._data.metrics(output, batch)
        if not self._own:
            return sums
        return {**sums, "loss": self._called(*batch.scored(output.detach())) * sums["count"]}

    def _loss(self, output: Tensor, batch: Batch) -> Tensor:
        if not self._own and not self._options and not self._complement:
            return self._data.loss(output, batch)
        outputs, targets = batch.scored(output)
        more = {"weight": complement_weights(targets, outputs.shape[1])} if self._complement else {}
        return self._called(outputs, targets, **self._options, **more)

    def _called(self, output: Tensor, target: Tensor, **options: object) -> Tensor:
        loss = self._function(output.float(), target, **options)
        if not isinstance(loss, Tensor) or loss.dim() or not loss.is_floating_point():
            got = f"shape {list(loss.shape)}" if isinstance(loss, Tensor) and loss.dim() else type(loss).__name__
            raise TypeError(f"loss '{self._reference}' returned {got}, not a scalar tensor, the mean over the batch")
        return loss


def balanced_weights(targets: Tensor, classes: int) -> Tensor:
    """A weight per class [classes], inversely to its samples among `targets`; 1 for a class that has none."""
    from sklearn.utils.class_weight import compute_class_weight

    labels = targets.cpu().numpy()
    present = numpy.unique(labels)
    weights = torch.ones(classes)
    weights[torch.from_numpy(present)] = torch.from_numpy(
        compute_class_weight("balanced", classes=present, y=labels)
    ).float()
    return weights.to(targets.device)


def complement_weights(targets: Tensor, classes: int) -> Tensor:
    """A weight per class [classes]: (N - N_c) / N of N_c of the N targets, 0 for a class that has none (Dwivedi et al.,
    "Benchmarking graph neural networks", JMLR 2023, section 4.2)."""
    counts = torch.bincount(targets, minlength=classes)
    return torch.where(counts > 0, (len(targets) - counts) / len(targets), 0.0)
