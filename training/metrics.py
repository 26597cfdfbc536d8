"""Metrics of all answers of a part: those of the kind of task, scikit-learn's by name, and the user's own.

A metric is a function `(outputs, targets) -> float`: outputs are what the network gives, float32 [samples, classes]
(logits, not probabilities), targets int64 [samples]; both are tensors on the CPU, of the whole validation or test part.
Where a number is predicted, both are float32 [samples, 1] in its own unit.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from nas_core import refs
from nas_core.errors import UsageError
from nas_core.evaluation import Goal

if TYPE_CHECKING:
    from torch import Tensor

GROUP = "nas.metrics"

LOSS = "loss"
_NAME = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class PartMetric:
    """A metric of a part; `name` is what follows `val_` and `test_`.

    One that is `per_sample` is the mean of what its function gives for each sample [n], on any device: what a network
    has answered need not be kept for it. `reference` and `file_hash` are of one that was asked for.
    """

    name: str
    function: Callable[[Tensor, Tensor], Any]
    goal: Goal = "max"
    per_sample: bool = False
    reference: str = ""
    file_hash: str | None = None

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        """Its value, nan where it is not finite. Raises TypeError for what is no number."""
        value = self.function(outputs, targets)
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise TypeError(f"metric '{self.reference}' returned a {type(value).__name__}, not a number") from error
        return number if math.isfinite(number) else math.nan


class HasMetrics(Protocol):
    """What a kind of task says of metrics (`training.tasks.kind.Kind`)."""

    metrics: ClassVar[tuple[PartMetric, ...]]
    further: ClassVar[Mapping[str, str]]


def load_metrics(references: Sequence[str], kind: HasMetrics) -> tuple[PartMetric, ...]:
    """The metrics that references (`f1`, `my.py:f1`) name, in their order, beside those that the kind always has.

    Raises UsageError for an unknown name, a name that is always reported, or two metrics of one name; NotFoundError.
    """
    found: dict[str, PartMetric] = {}
    always = (*(metric.name for metric in kind.metrics), LOSS)
    for reference in references:
        target = reference.partition("(")[0].strip()
        name = target.rpartition(":")[2]
        if name in always:
            raise UsageError(
                f"metric '{reference}': val_{name} is always reported"
                + ("; give the function another name" if ":" in target else "; leave it out")
            )
        loaded = refs.load_function(reference, kind.further, GROUP, "metric")
        if not _NAME.fullmatch(name):
            raise UsageError(f"metric '{reference}': val_{name} is no name that a constraint could use; rename it")
        if name in found:
            raise UsageError(f"two metrics are called '{name}': {found[name].reference} and {reference}; rename one")
        found[name] = PartMetric(name, loaded.object, reference=reference, file_hash=loaded.file_hash)
    return tuple(found.values())


def f1(outputs: Tensor, targets: Tensor) -> float:
    """`sklearn.metrics.f1_score`: of class 1 where there are two, else the mean over the classes (macro)."""
    from sklearn.metrics import f1_score

    average = "binary" if outputs.shape[1] == 2 else "macro"
    return float(f1_score(targets.numpy(), outputs.argmax(1).numpy(), average=average, zero_division=0.0))


def perplexity(outputs: Tensor, targets: Tensor) -> float:
    """The exponential of the mean cross entropy: among how many equally likely answers it is as good as guessing."""
    from torch.nn import functional

    return math.exp(min(float(functional.cross_entropy(outputs, targets)), 700.0))  # the largest that float64 holds


def balanced_accuracy(outputs: Tensor, targets: Tensor) -> float:
    """`sklearn.metrics.balanced_accuracy_score`: the mean recall over the classes of the part."""
    from sklearn.metrics import balanced_accuracy_score

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
        return float(balanced_accuracy_score(targets.numpy(), outputs.argmax(1).numpy()))


def roc_auc(outputs: Tensor, targets: Tensor) -> float:
    """`sklearn.metrics.roc_auc_score`: of class 1 where there are two, else the mean of every class against the rest.

    nan where a class has no sample in the part.
    """
    from sklearn.metrics import roc_auc_score

    classes = outputs.shape[1]
    if len(targets.unique()) < classes:
        return math.nan
    scores = outputs.softmax(1, dtype=outputs.double().dtype).numpy()
    if classes == 2:
        return float(roc_auc_score(targets.numpy(), scores[:, 1]))
    return float(roc_auc_score(targets.numpy(), scores, multi_class="ovr"))


def average_precision(outputs: Tensor, targets: Tensor) -> float:
    """`sklearn.metrics.average_precision_score`: of class 1 where there are two, else the mean of every class against
    the rest (macro). nan where a class has no sample in the part."""
    from sklearn.metrics import average_precision_score
    from sklearn.preprocessing import label_binarize

    classes = outputs.shape[1]
    if len(targets.unique()) < classes:
        return math.nan
    scores = outputs.softmax(1, dtype=outputs.double().dtype).numpy()
    if classes == 2:
        return float(average_precision_score(targets.numpy(), scores[:, 1]))
    answers = label_binarize(targets.numpy(), classes=range(classes))
    return float(average_precision_score(answers, scores, average="macro"))
