"""Texts, of which each character is predicted from those before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from nas_core.task import LANGUAGE_MODELLING, Task, text_task
from training.inputs.base import Tensors
from training.inputs.texts import TextInputs
from training.metrics import PartMetric
from training.tasks.classification import Classification, correct

if TYPE_CHECKING:
    from torch import Tensor, nn

    from training.data.protocol import Source
    from training.data.split import Split
    from training.inputs.samples import Proof, Samples

_TEXT = {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.01, "schedule": "cosine", "grad_clip": 1.0}

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "quick": {**_TEXT, "epochs": 4, "batch_size": 32},
    "standard": {**_TEXT, "epochs": 20, "batch_size": 64, "warmup_epochs": 1, "keep": "best"},
}
STRINGS, LENGTH, WINDOW = 1000, 24, 16  # of the embedded text


def bits(outputs: Tensor, targets: Tensor) -> Tensor:
    """The cross entropy of each character [n], in bits: -log2 of the probability that it was given."""
    from torch.nn import functional

    return functional.cross_entropy(outputs.float(), targets, reduction="none") / math.log(2)


class LanguageModelling(Classification):
    """The input are the numbers of characters [b, t] int64, outputs logits [b, t, characters] of the one that follows
    each of them. Losses and metrics are means over all characters; of losses the usual one is in nats."""

    name = LANGUAGE_MODELLING
    pipeline = "text-generation"
    example: ClassVar[Task] = text_task(128, 66, "bpc")  # as of tiny Shakespeare
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = RECIPES
    metrics: ClassVar[tuple[PartMetric, ...]] = (
        PartMetric("bpc", bits, "min", per_sample=True),
        PartMetric("accuracy", correct, per_sample=True),
    )
    losses: ClassVar[Mapping[str, tuple[str, ...]]] = {"cross_entropy": ("class_weights", "label_smoothing")}
    further: ClassVar[Mapping[str, str]] = {"perplexity": "training.metrics:perplexity"}
    samples: ClassVar[str] = "windows"
    answers: ClassVar[str] = "characters"
    inputs_word: ClassVar[str] = "text"
    Inputs = TextInputs

    def examples(self) -> tuple[Task, ...]:
        return text_task(16, 9, "bpc"), text_task(12, 30, "bpc")

    def check(self, network: nn.Module, task: Task) -> None:
        """Raises TrialError where an answer depends on characters that come later: it would be given the next one."""
        from training.causal import check_causal

        check_causal(network, task)

    def reward(self, sums: Mapping[str, Tensor]) -> Tensor:
        """By the loss: which character is the likeliest says little of a text."""
        return -sums["loss"]

    def embedded(self, split: Split) -> Source:
        """Strings of the Reber grammar, a line each: what may follow a character is known."""
        from training.data import reber
        from training.data.text import text_source

        lines = (line for line in reber.strings(2 * STRINGS, LENGTH, 0) if reber.grammatical(line))
        return text_source("reber text", "\n".join(lines), WINDOW, split)

    def describe(self, task: Task) -> str:
        return f"a window of {task.input_shape[0]} characters"

    def read(self, inputs: TextInputs, argument: str) -> Samples:
        """`text:FILE` or a path."""
        from training.infer import texts

        return texts.read(inputs, argument)

    def proofs(self, source: Source) -> list[Proof]:
        from training.export import proof

        return proof.text(source)

    def given(self, inputs: TextInputs) -> tuple[str, str]:
        return "text:begun.txt", "numpy and onnxruntime"

    def continued(
        self,
        inputs: TextInputs,
        run: Callable[[Tensors], Any],
        argument: str,
        count: int,
        seed: int,
        temperature: float,
    ) -> str:
        from training.infer import texts

        return texts.continued(inputs, run, argument, count, seed, temperature)

    def script(self, inputs: TextInputs, file: str, raw: bool) -> str:
        from training.export import script

        return script.texts(inputs, file)

    def card(self, inputs: TextInputs, where: str) -> list[tuple[str, str]]:
        return [
            (
                "tokens",
                f"[batch, {inputs.window}], int64: the place of each character among the classes; 0 is any other",
            ),
            ("output", "at every position the logits of the character that follows it"),
        ]

    def python(self, inputs: TextInputs) -> Mapping[str, str]:
        from training.export.python import inputs as source

        return source.text(inputs)


KIND = LanguageModelling()
