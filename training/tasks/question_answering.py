"""Questions about a passage, whose answer is a span of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from nas_core.task import QUESTION_ANSWERING, Task, question_task
from training.inputs.questions import LONGEST, QuestionInputs
from training.metrics import PartMetric
from training.tasks.kind import Kind

if TYPE_CHECKING:
    from torch import Tensor

    from training.data.protocol import Source
    from training.data.split import Split
    from training.inputs.samples import Proof, Samples

_QUESTIONS = {"optimizer": "adamw", "lr": 2e-3, "weight_decay": 0.01, "grad_clip": 1.0, "batch_size": 64}

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "quick": {**_QUESTIONS, "epochs": 8, "schedule": "constant"},
    "standard": {**_QUESTIONS, "epochs": 40, "warmup_epochs": 1, "schedule": "cosine", "keep": "best"},
}


def spans(outputs: Tensor) -> Tensor:
    """First and last place [n, 2] of the likeliest span of at most `LONGEST` tokens, of logits [n, t, 2]."""
    import torch

    first, last = outputs.unbind(2)
    after = torch.nn.functional.pad(last, (0, LONGEST - 1), value=-torch.inf).unfold(1, LONGEST, 1)
    best = (first[:, :, None] + after).flatten(1).argmax(1)
    return torch.stack([best // LONGEST, best // LONGEST + best % LONGEST], 1)


def wanted(outputs: Tensor, targets: Tensor) -> Tensor:
    """First and last place [n, 2] of the answers, of targets [n]."""
    import torch

    length = outputs.shape[1]
    return torch.stack([targets // length, targets % length], 1)


def exact_match(outputs: Tensor, targets: Tensor) -> Tensor:
    """Whether the likeliest span of each sample [n] is its answer, first and last place."""
    return (spans(outputs) == wanted(outputs, targets)).all(1)


def f1(outputs: Tensor, targets: Tensor) -> Tensor:
    """For each sample [n] the harmonic mean of precision and recall of the places of its likeliest span (Rajpurkar et
    al., "SQuAD", EMNLP 2016, section 6.1, of places instead of words)."""
    import torch

    found, right = spans(outputs), wanted(outputs, targets)
    shared = torch.minimum(found[:, 1], right[:, 1]) - torch.maximum(found[:, 0], right[:, 0]) + 1
    both = (found[:, 1] - found[:, 0] + 1) + (right[:, 1] - right[:, 0] + 1)
    return 2 * shared.clamp(min=0).float() / both


class QuestionAnswering(Kind):
    """The input are tokens [b, t] int64, outputs logits [b, t, 2] of each place to be the first and the last one of the
    answer, targets first place times t plus last place [b]."""

    name = QUESTION_ANSWERING
    pipeline = "question-answering"
    example: ClassVar[Task] = question_task(61, 136, "exact_match")
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = RECIPES
    losses: ClassVar[Mapping[str, tuple[str, ...]]] = {"cross_entropy": ()}
    metrics: ClassVar[tuple[PartMetric, ...]] = (
        PartMetric("exact_match", exact_match, per_sample=True),
        PartMetric("f1", f1, per_sample=True),
    )
    samples: ClassVar[str] = "questions"
    answers: ClassVar[str] = "ends of a span"
    inputs_word: ClassVar[str] = "tokens"
    Inputs = QuestionInputs

    def examples(self) -> tuple[Task, ...]:
        return (question_task(19, 30, "exact_match"),)

    def loss(self, outputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        """The mean of the cross entropies of first and last place, in float32 under autocast too."""
        from torch.nn import functional

        ends = zip(outputs.float().unbind(2), wanted(outputs, targets).unbind(1), strict=True)
        first, last = (functional.cross_entropy(logits, place, reduction=reduction) for logits, place in ends)
        return (first + last) / 2

    def divergence(self, outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
        """The mean over both ends of `T^2 KL(softmax(taught / T) || softmax(outputs / T))`, softmax over places."""
        from torch.nn import functional

        soft, other = ((logits.float() / temperature).log_softmax(1) for logits in (outputs, taught))
        return temperature**2 * functional.kl_div(soft, other, reduction="batchmean", log_target=True) / 2

    def agreement(self, outputs: Tensor, others: Tensor) -> float:
        return float((spans(outputs) == spans(others)).all(1).double().mean())

    def embedded(self, split: Split) -> Source:
        from training.data import load

        return load("questions?pairs=2&samples=400", split)

    def describe(self, task: Task) -> str:
        return f"a question and its passage, {task.input_shape[0]} tokens"

    def read(self, inputs: QuestionInputs, argument: str) -> Samples:
        """`npz:FILE` with an array `tokens`."""
        from training.infer import questions

        return questions.read(inputs, argument)

    def proofs(self, source: Source) -> list[Proof]:
        from training.export import proof

        return proof.questions(source)

    def given(self, inputs: QuestionInputs) -> tuple[str, str]:
        return "npz:questions.npz", "numpy and onnxruntime"

    def card(self, inputs: QuestionInputs, where: str) -> list[tuple[str, str]]:
        return [
            ("tokens", f"[batch, {inputs.length}], int64 below {inputs.vocabulary}; 0 after the end"),
            (
                "output",
                f"of each place the logits to be the first and the last of the answer, {LONGEST} tokens at most",
            ),
        ]


KIND = QuestionAnswering()
