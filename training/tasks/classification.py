"""What kinds of classification share: logits, cross entropy, accuracy, scikit-learn's metrics by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from training.metrics import PartMetric
from training.tasks.kind import Kind

if TYPE_CHECKING:
    from torch import Tensor


def correct(outputs: Tensor, targets: Tensor) -> Tensor:
    """Whether the largest logit of each sample [n, classes] is that of its class [n]."""
    return outputs.argmax(1) == targets


class Classification(Kind):
    """Outputs are logits [n, classes], targets class numbers [n]."""

    losses: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "cross_entropy": ("class_weights", "label_smoothing"),
        "multi_margin_loss": ("class_weights",),
    }
    metrics: ClassVar[tuple[PartMetric, ...]] = (PartMetric("accuracy", correct, per_sample=True),)
    further: ClassVar[Mapping[str, str]] = {
        "f1": "training.metrics:f1",
        "balanced_accuracy": "training.metrics:balanced_accuracy",
        "roc_auc": "training.metrics:roc_auc",
        "average_precision": "training.metrics:average_precision",
    }

    def agreement(self, outputs: Tensor, others: Tensor) -> float:
        return float((outputs.argmax(1) == others.argmax(1)).double().mean())

    def reward(self, sums: Mapping[str, Tensor]) -> Tensor:
        """How many are right."""
        return sums["accuracy"]

    def divergence(self, outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
        """`T^2 KL(softmax(taught / T) || softmax(outputs / T))` (Hinton et al. 2015, section 2)."""
        from torch.nn import functional

        soft, wanted = ((logits.float() / temperature).log_softmax(1) for logits in (outputs, taught))
        return temperature**2 * functional.kl_div(soft, wanted, reduction="batchmean", log_target=True)
