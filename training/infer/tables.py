"""Rows for a network: those of a csv file, encoded as the training part was. The target is not looked at."""

from __future__ import annotations

from nas_core.errors import UsageError
from training.data import cells as csv
from training.data.cells import Cells
from training.data.files import file_of
from training.data.labels import listed
from training.inputs.samples import Samples
from training.inputs.tables import CategoryColumn, TableInputs

EXAMPLE = "csv:FILE, or its path"


def read(inputs: TableInputs, argument: str) -> Samples:
    """`csv:FILE` or a path, gzipped or not; a file without a header needs all columns of the training's, in order.

    Raises NotFoundError, or UsageError naming file and fault.
    """
    cells = csv.read(file_of("csv", argument.removeprefix("csv:"), EXAMPLE), inputs.header)
    names = tuple(f"{cells.path}:{line}" for line in cells.lines)
    try:
        rows = inputs.encode(cells.columns)
    except UsageError as error:
        raise UsageError(f"{cells.path}: {error}") from None
    return Samples(names, (rows,), note=_unseen(inputs, cells))


def _unseen(inputs: TableInputs, cells: Cells) -> str:
    """What to tell of texts that no row of the training part had, where rare ones do not stand for them."""
    told = []
    for column in inputs.columns:
        if not isinstance(column, CategoryColumn) or column.rare:
            continue
        texts = dict.fromkeys("" if text in inputs.missing else text for text in cells.columns[column.name])
        unseen = [f"'{text}'" if text else "no value" for text in texts if text not in column.levels]
        if unseen:
            told.append(f"{listed(unseen, 3)} of column '{column.name}'")
    return f"hold texts that the training part does not have: {'; '.join(told)}" if told else ""
