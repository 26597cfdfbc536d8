"""Tables as a deployed network gets them: the texts of a file's cells become one row of float32 numbers per sample.

The values (medians, means, levels) are those of the training part, kept as plain data; numpy is all that is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from nas_core.config import Config
from nas_core.errors import UsageError
from training.inputs.base import Inputs

if TYPE_CHECKING:
    from numpy.typing import NDArray


class NumberColumn(Config):
    """A column of numbers: `(value - mean) / deviation`, where a missing value is the median.

    With `indicator` a second field follows, 1 where the value is missing and 0 elsewhere.
    """

    type: Literal["number"] = "number"
    name: str
    median: float = Field(allow_inf_nan=False, description="of the values that are there")
    mean: float = Field(allow_inf_nan=False, description="after missing values became the median")
    deviation: float = Field(gt=0, allow_inf_nan=False, description="standard deviation, likewise; 1 of a constant")
    indicator: bool = False

    @property
    def widths(self) -> tuple[int, ...]:
        """Of its fields, in order."""
        return (1, 1) if self.indicator else (1,)

    def encode(self, cells: Sequence[str], missing: Sequence[str]) -> NDArray[np.float64]:
        """[n, 1 or 2] of n texts. Raises UsageError for a text that is no finite number."""
        values, absent = np.full(len(cells), self.median), np.zeros(len(cells))
        for row, cell in enumerate(cells):
            text = cell.strip()
            if text in missing:
                absent[row] = 1.0
                continue
            try:
                values[row] = float(text)
            except ValueError:
                values[row] = math.nan
            if not math.isfinite(values[row]):
                raise UsageError(f"column '{self.name}': '{text}' in row {row} is no number")
        scaled = (values - self.mean) / self.deviation
        return np.stack([scaled, absent], axis=1) if self.indicator else scaled[:, None]


class CategoryColumn(Config):
    """A column of texts: one of `levels` is 1, the others are 0. A missing value is the text "".

    A text that is none of them, such as one that the training part has not seen, leaves all 0; with `rare` it is 1 in
    a last field, which stands for the rare texts of the training part.
    """

    type: Literal["category"] = "category"
    name: str
    levels: tuple[str, ...] = Field(min_length=1, description="in order")
    rare: bool = False

    @property
    def widths(self) -> tuple[int, ...]:
        """Of its fields: one."""
        return (len(self.levels) + self.rare,)

    def encode(self, cells: Sequence[str], missing: Sequence[str]) -> NDArray[np.float64]:
        """[n, width] of n texts."""
        place = {level: number for number, level in enumerate(self.levels)}
        others = len(self.levels) if self.rare else None
        encoded = np.zeros((len(cells), *self.widths))
        for row, cell in enumerate(cells):
            text = cell.strip()
            if (found := place.get("" if text in missing else text, others)) is not None:
                encoded[row, found] = 1.0
        return encoded


Column = Annotated[NumberColumn | CategoryColumn, Field(discriminator="type")]


class TableInputs(Inputs):
    """How rows of a table become the input of a network, and what its outputs are.

    The network's input is the columns' fields side by side, float32 [n, width]. Of classes the outputs are logits. A
    number is predicted in the unit of the training, `(target - target_mean) / target_deviation`.
    """

    columns: tuple[Column, ...] = Field(min_length=1, description="in the order of the input; a file may have others")
    target: str = Field(default="", description="name of the column that is predicted")
    classes: tuple[str, ...] = Field(default=(), description="names of the outputs, in order; none: a number")
    target_mean: float = Field(default=0.0, allow_inf_nan=False, description="of the training part")
    target_deviation: float = Field(default=1.0, gt=0, allow_inf_nan=False, description="standard deviation, likewise")
    header: bool = Field(default=True, description="whether the first line of a file names its columns")
    missing: tuple[str, ...] = Field(default=("",), description="texts that stand for a missing value")

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the fields of a row, in order: 1 a number, k > 1 a one-hot block."""
        return tuple(width for column in self.columns for width in column.widths)

    def encode(self, cells: Mapping[str, Sequence[str]]) -> NDArray[np.float32]:
        """Rows [n, width] of the texts of every column, blanks around them stripped.

        Raises UsageError for a column that is not there, or a text that is no number where one is needed.
        """
        lacking = [column.name for column in self.columns if column.name not in cells]
        if lacking:
            raise UsageError(f"there is no column '{lacking[0]}'; found are {', '.join(cells)}")
        blocks = [column.encode(cells[column.name], self.missing) for column in self.columns]
        return np.concatenate(blocks, axis=1).astype(np.float32)

    def in_own_unit(self, answers: NDArray[Any]) -> NDArray[Any]:
        return answers.astype(np.float64) * self.target_deviation + self.target_mean

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.classes
