"""What kinds of task on tables share: rows [b, width] of fields, read from the cells of a csv file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nas_core.task import Task, table_task
from training.inputs.tables import TableInputs
from training.tasks.kind import Kind

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from training.data.protocol import Source
    from training.data.split import Split
    from training.inputs.samples import Proof, Samples

_TABLE = {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 1e-4, "schedule": "cosine", "batch_size": 256}

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "quick": {**_TABLE, "epochs": 8},
    "standard": {**_TABLE, "epochs": 40, "warmup_epochs": 1, "keep": "best"},
    # Gorishniy et al., NeurIPS 2021, section 4.4: AdamW, and the epoch that is best on the validation part.
    "paper": {**_TABLE, "epochs": 100, "schedule": "constant", "weight_decay": 1e-5, "keep": "best"},
}
EXAMPLE = (1, 1, 1, 1, 1, 1, 7, 16, 7, 14, 6, 5, 2, 41)  # fields, about as of Adult


class Table(Kind):
    """The input is one row of float32 numbers per sample: fields side by side, a number or a one-hot block each."""

    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = RECIPES
    samples: ClassVar[str] = "rows"
    inputs_word: ClassVar[str] = "rows"
    Inputs = TableInputs

    def task(self, fields: Sequence[int], outputs: int) -> Task:
        """Of rows whose fields have these widths."""
        return table_task(self.name, fields, outputs, self.metrics[0].name)

    def light(self, task: Task) -> bool:
        return True

    def sample_inputs(self, task: Task, batch: int, generator: Generator) -> tuple[Tensor, ...]:
        """Numbers normally distributed, one level of every one-hot block."""
        import torch

        fields = []
        for width in task.table():
            if width == 1:
                fields.append(torch.randn(batch, 1, generator=generator))
            else:
                levels = torch.randint(width, (batch,), generator=generator)
                fields.append(torch.nn.functional.one_hot(levels, width).float())
        return (torch.cat(fields, 1),)

    def bunch(self) -> Any:
        """The table that is embedded, as scikit-learn gives it with frames."""
        raise NotImplementedError

    def embedded(self, split: Split) -> Source:
        """A table of scikit-learn's, as if it were read from a file."""
        from training.data import csv
        from training.data.cells import Cells

        frame = self.bunch().frame
        columns = {str(name): [str(value) for value in frame[name]] for name in frame}
        cells = Cells(Path(self.name), columns, range(2, len(frame) + 2))
        return csv.source_of(self.name, cells, "target", split)

    def describe(self, task: Task) -> str:
        return f"a row of {len(task.table())} fields, {task.input_shape[0]} numbers"

    def read(self, inputs: TableInputs, argument: str) -> Samples:
        """`csv:FILE`, with or without its target."""
        from training.infer import tables

        return tables.read(inputs, argument)

    def proofs(self, source: Source) -> list[Proof]:
        from training.export import proof

        return proof.table(source)

    def given(self, inputs: TableInputs) -> tuple[str, str]:
        return "csv:table.csv", "numpy and onnxruntime"

    def script(self, inputs: TableInputs, file: str, raw: bool) -> str:
        from training.export import script

        return script.tables(inputs, file)

    def card(self, inputs: TableInputs, where: str) -> list[tuple[str, str]]:
        return [
            ("rows", f"[batch, {sum(inputs.widths)}], float32: the columns' fields side by side"),
            ("columns", ", ".join(f"{column.name} ({column.type})" for column in inputs.columns)),
            ("numbers", "(value - mean) / deviation; missing: the median"),
            ("categories", "one-hot in the order of their levels; others: zeros"),
            ("target", inputs.target),
            *self.predicts(inputs),
        ]

    def predicts(self, inputs: TableInputs) -> list[tuple[str, str]]:
        """Rows for the model card: what the outputs are, where they are no classes."""
        return []

    def facts(self, inputs: TableInputs) -> dict[str, Any]:
        return {"COLUMNS": tuple(column.name for column in inputs.columns)}
