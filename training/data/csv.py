"""`csv:FILE[.gz]?target=COLUMN`: the rows of a table, of which one column is predicted from the others.

Types are inferred from all rows; everything else (medians, means, deviations, levels) is fitted by scikit-learn on the
training part alone and kept as plain data (`training.inputs.tables`). docs/data.md has the rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

import numpy as np
from pydantic import Field

from nas_core.config import Config
from nas_core.errors import UsageError, nearest, unknown
from nas_core.task import TABULAR_CLASSIFICATION, TABULAR_REGRESSION
from training.data.cells import Cells, read
from training.data.files import file_of
from training.data.labels import absent, listed
from training.data.reference import options
from training.data.split import Parts, Split, divide, target_bins
from training.data.table_source import TableSource, table_source
from training.inputs.tables import CategoryColumn, NumberColumn, TableInputs

if TYPE_CHECKING:
    import pandas
    from numpy.typing import NDArray

EXAMPLE = "csv:FILE?target=COLUMN"
MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "null")
"""Texts that stand for a missing value in every file."""

CLASSES = 20
"""Up to so many different numbers are classes where they are whole, and more are a number to predict."""

RARE = (10, 200)
"""A level that at most 10 training rows have, and at most one in 200, is rare."""

ODD = 0.05
"""A column of texts of which at most this share are no numbers is probably one of numbers."""

EXAMPLES = 3

Texts = Sequence[str]


class Options(Config):
    """What follows the file, as in `csv:FILE?target=price&missing=?`; names may hold %26 for & and %2C for a comma."""

    target: str | None = Field(default=None, description="column that is predicted")
    header: bool = Field(default=True, description="no: the first line is a row, and columns are c0, c1, ...")
    missing: str | None = Field(default=None, description="texts, separated by commas, that also mean a missing value")
    test: str | None = Field(default=None, description="file of the test part")
    drop: str | None = Field(default=None, description="columns, separated by commas, that are left out")
    task: Literal["classification", "regression"] | None = Field(
        default=None, description="whether the target is a class or a number, where its values could be both"
    )


def load(argument: str, split: Split) -> TableSource:
    """Rows with a target, split (a test part of its own stays), encoded by what the training part says.

    Raises UsageError for what cannot be learned from, NotFoundError for a missing file.
    """
    where, chosen = options("csv", argument, Options)
    cells = read(file_of("csv", where, EXAMPLE), chosen.header)
    more = read(file_of("csv", chosen.test, EXAMPLE), chosen.header) if chosen.test else None
    return _Table(f"csv:{argument}", chosen, cells, more).source(split)


def source_of(reference: str, cells: Cells, target: str, split: Split) -> TableSource:
    """The source of rows that are there already. Raises UsageError as `load`."""
    return _Table(reference, Options(target=target), cells, None).source(split)


class _Table:
    """The rows of a file, and after them those of its test part, as columns of texts."""

    def __init__(self, reference: str, chosen: Options, cells: Cells, more: Cells | None) -> None:
        self.reference, self.chosen, self.cells, self.more = reference, chosen, cells, more
        self.where = f"data '{reference}'"
        self.missing = (*MISSING, *(text.strip() for text in (chosen.missing or "").split(",") if text.strip()))
        self.warnings: list[str] = []
        names = list(cells.columns)
        if chosen.target is None:
            raise UsageError(f"{self.where} needs a column to predict: add ?target=COLUMN (of {', '.join(names)})")
        self.target = self._column(unquote(chosen.target))
        self.cells = self._with_targets(cells)
        dropped = [self._column(unquote(name.strip())) for name in (chosen.drop or "").split(",") if name.strip()]
        if self.target in dropped:
            raise UsageError(f"{self.where}: column '{self.target}' is the target; take it out of drop")
        self.names = [name for name in names if name not in (self.target, *dropped)]
        if not self.names:
            raise self._nothing_left()
        if more is not None:
            self._same_columns(names, list(more.columns))
            self.more = more = self._with_targets(more)
        self.columns = {
            name: [*texts, *(more.columns[name] if more else ())] for name, texts in self.cells.columns.items()
        }
        if cells.unnamed:
            self.warnings.append(
                f"columns without a name are called {', '.join(cells.unnamed)}; drop={cells.unnamed[0]} leaves one out"
            )

    def source(self, split: Split) -> TableSource:
        targets, classes, test = self._targets()
        try:
            parts = divide(targets if classes else target_bins(targets), split, test=test, classes=bool(classes))
        except UsageError as error:
            raise UsageError(f"{self.where}: {error}") from None
        mean, deviation = (0.0, 1.0) if classes else _standard(targets[parts.train])
        columns = [column for name in self.names if (column := self._fitted(name, parts)) is not None]
        if not columns:
            raise self._nothing_left()
        inputs = TableInputs(
            kind=TABULAR_CLASSIFICATION if classes else TABULAR_REGRESSION,
            columns=tuple(columns),
            target=self.target,
            classes=classes,
            target_mean=mean,
            target_deviation=deviation,
            header=self.chosen.header,
            missing=self.missing,
        )
        used = np.sort(np.concatenate([part for _, part in parts.items()]))
        texts = {column.name: [self.columns[column.name][row] for row in used] for column in columns}
        first = parts.valid[:EXAMPLES]
        examples = [[self.columns[column.name][row] for column in columns] for row in first]
        parts = Parts(*(np.searchsorted(used, part) for _, part in parts.items()))
        if classes:
            counts = {
                name: np.bincount(targets[used][part], minlength=len(classes)).tolist() for name, part in parts.items()
            }
            self.warnings += absent(counts, classes)
        return table_source(
            *(self.reference, inputs.encode(texts), targets[used], parts, inputs),
            examples=examples,
            warnings=self.warnings,
        )

    def _nothing_left(self) -> UsageError:
        return UsageError(f"{self.where}: no column is left to predict '{self.target}' from")

    # Columns

    def _column(self, name: str) -> str:
        if name in self.cells.columns:
            return name
        placed = name.startswith("c") and name[1:].isdigit()
        placed = placed or bool(np.isfinite(_numbers(list(self.cells.columns))).any())  # names that are values
        hint = "; has the file no line of names? Then add header=no" if placed and self.chosen.header else ""
        raise UsageError(f"{self.where}: {unknown('column', name, self.cells.columns)}{hint}")

    def _same_columns(self, names: Texts, others: Texts) -> None:
        assert self.more is not None
        if set(names) == set(others):
            return
        lacking = [name for name in names if name not in others]
        surplus = [name for name in others if name not in names]
        what = f"has no column '{lacking[0]}'{nearest(lacking[0], surplus)}" if lacking else f"also has '{surplus[0]}'"
        raise UsageError(f"{self.more.path}: {what}; {self.cells.path} and its test part need the same columns")

    def _at(self, row: int) -> str:
        """The file and the line of a row."""
        count = len(self.cells.lines)
        return self.cells.at(row) if self.more is None or row < count else self.more.at(row - count)

    # The target

    def _with_targets(self, cells: Cells) -> Cells:
        """The rows that have one. Raises UsageError where none has."""
        kept = [row for row, text in enumerate(cells.columns[self.target]) if text not in self.missing]
        gone = len(cells.lines) - len(kept)
        if not gone:
            return cells
        if not kept:
            raise UsageError(f"{cells.path}: no row has a value of the target '{self.target}'; name another column")
        first = next(row for row, one in enumerate([*kept, len(cells.lines)]) if one != row)
        rows = "1 row is left out, which has" if gone == 1 else f"{gone:,} rows are left out, which have"
        self.warnings.append(f"{cells.at(first)}: {rows} no value of the target '{self.target}'")
        columns = {name: [texts[row] for row in kept] for name, texts in cells.columns.items()}
        return replace(cells, columns=columns, lines=[cells.lines[row] for row in kept])

    def _targets(self) -> tuple[NDArray[Any], tuple[str, ...], NDArray[np.int64] | None]:
        """Class numbers and the classes, or numbers and none; the rows of the test part, where there is one."""
        texts = list(self.columns[self.target])
        count = len(self.cells.lines)
        self._without_dots(texts, count)
        different = dict.fromkeys(texts)
        if len(different) < 2:
            raise UsageError(f"{self.where}: the target '{self.target}' is always '{texts[0]}'; nothing is to predict")
        numbers = _numbers(texts)
        test = None if self.more is None else np.arange(count, len(texts))
        if self._is_number(numbers, texts):
            return numbers, (), test
        if len(different) > len(texts) / 2:
            raise UsageError(
                f"{self.where}: the target '{self.target}' has {len(different):,} classes in {len(texts):,} rows; "
                "classes need several rows each"
            )
        # 1 and 1.0 are one class.
        numeric = bool(np.isfinite(numbers).all())
        whole = numeric and bool((numbers == np.rint(numbers)).all())
        names = [str(int(number)) if whole else str(number) for number in numbers.tolist()] if numeric else texts
        order = float if numeric else None
        classes = sorted(set(names), key=order)
        place = {name: number for number, name in enumerate(classes)}
        known = set(names[:count])
        strange = next((row for row, name in enumerate(names) if name not in known), None)
        if strange is not None:
            known_ones = sorted(known, key=order)
            raise UsageError(
                f"{self._at(strange)}: class '{names[strange]}' does not occur in {self.cells.path}"
                f"{nearest(names[strange], known_ones)} ({listed(known_ones)})"
            )
        return np.array([place[name] for name in names], dtype=np.int64), tuple(classes), test

    def _without_dots(self, texts: list[str], count: int) -> None:
        """Classes of a test part that end in a dot, as Adult's do, are those without it."""
        known = set(texts[:count])
        dotted = [row for row in range(count, len(texts)) if texts[row] not in known and texts[row][:-1] in known]
        dotted = [row for row in dotted if texts[row].endswith(".")]
        if dotted:
            assert self.more is not None
            self.warnings.append(f"{self.more.path}: '{texts[dotted[0]]}' and the like are read without the dot")
        for row in dotted:
            texts[row] = texts[row][:-1]

    def _is_number(self, numbers: NDArray[np.float64], texts: Texts) -> bool:
        """Whether the target is a number to predict, and not a class."""
        wished, good = self.chosen.task, np.isfinite(numbers)
        if wished == "regression" and not good.all():
            row = int(np.argmin(good))
            raise UsageError(f"{self._at(row)}: '{texts[row]}' of the target '{self.target}' is no number to predict")
        if wished is not None or not good.all():
            return wished == "regression"
        different = np.unique(numbers)
        whole = bool((different == np.rint(different)).all())
        if len(different) > CLASSES:
            return True
        if not whole and len(different) > 2:
            raise UsageError(
                f"{self.where}: the target '{self.target}' has {len(different)} different numbers, which could be "
                "classes; add task=regression or task=classification"
            )
        return False

    # What it is predicted from

    def _fitted(self, name: str, parts: Parts) -> NumberColumn | CategoryColumn | None:
        """What the training part says of a column; None for one that says nothing."""
        texts = self.columns[name]
        here = np.array([text not in self.missing for text in texts])
        numbers = _numbers([text if there else "0" for text, there in zip(texts, here, strict=True)])
        if not here[parts.train].any():
            self.warnings.append(f"column '{name}' is left out: it has no value in the training part")
            return None
        train = [texts[row] if here[row] else "" for row in parts.train]
        if len(set(train)) == 1:
            self.warnings.append(f"column '{name}' is left out: it is always '{train[0]}' in the training part")
            return None
        others = {part: rows for part, rows in parts.items() if part != "train"}
        if np.isfinite(numbers).all():
            if here[parts.train].all():
                self._told_of_absent(name, {part: int((~here[rows]).sum()) for part, rows in others.items()})
            return _number_column(name, np.where(here, numbers, np.nan)[parts.train])
        self._told_of_odd(name, texts, here, np.isfinite(numbers))
        column = _category_column(name, train)
        if column is None:
            self.warnings.append(f"column '{name}' is left out: each of its {len(set(train)):,} texts is rare")
            return None
        self._told_of_unseen(column, set(train), others)
        return column

    def _told_of_odd(self, name: str, texts: Texts, here: NDArray[np.bool_], good: NDArray[np.bool_]) -> None:
        odd = np.flatnonzero(~good)
        if len(odd) <= ODD * here.sum() and len(set(texts)) > CLASSES:
            first = texts[odd[0]]
            self.warnings.append(
                f"column '{name}' is read as texts: {len(odd):,} of its values are no numbers ('{first}', "
                f"{self._at(int(odd[0]))}); where they mean a missing value add missing={first}"
            )

    def _told_of_absent(self, name: str, counts: dict[str, int]) -> None:
        for part, count in counts.items():
            if count:
                rows = "1 row has" if count == 1 else f"{count:,} rows have"
                self.warnings.append(
                    f"column '{name}': in the {part} part {rows} no value, which no training row lacks; the median is "
                    "put there"
                )

    def _told_of_unseen(self, column: CategoryColumn, seen: set[str], others: dict[str, NDArray[np.int64]]) -> None:
        texts = self.columns[column.name]
        for part, rows in others.items():
            found = ["" if texts[row] in self.missing else texts[row] for row in rows]
            unseen = [text for text in found if text not in seen]
            if unseen:
                names = [f"'{text}'" if text else "no value" for text in dict.fromkeys(unseen)]
                what = "count as rare ones" if column.rare else "are no level of the column"
                rows_ = "1 row" if len(unseen) == 1 else f"{len(unseen):,} rows"
                self.warnings.append(
                    f"column '{column.name}': {rows_} of the {part} part have texts that no training row has and that "
                    f"{what}: {listed(names, 3)}"
                )


def _numbers(texts: Texts) -> NDArray[np.float64]:
    """The numbers [n] that texts are; NaN for those that are none, or infinite."""
    import pandas

    series: pandas.Series[Any] = pandas.Series(texts, dtype=object)
    found = pandas.to_numeric(series, errors="coerce").to_numpy(dtype=np.float64, copy=True)
    found[~np.isfinite(found)] = np.nan
    return found


def _standard(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard deviation; the latter of a constant is 1."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(values[:, None])
    return float(scaler.mean_[0]), float(scaler.scale_[0])


def _number_column(name: str, train: NDArray[np.float64]) -> NumberColumn:
    """`train` [n] is NaN where a value is missing: it becomes the median, and an indicator says so."""
    from sklearn.impute import SimpleImputer

    imputer = SimpleImputer(strategy="median").fit(train[:, None])
    mean, deviation = _standard(imputer.transform(train[:, None])[:, 0])
    return NumberColumn(
        name=name,
        median=float(imputer.statistics_[0]),
        mean=mean,
        deviation=deviation,
        indicator=bool(np.isnan(train).any()),
    )


def _category_column(name: str, train: Texts) -> CategoryColumn | None:
    """The levels of texts, "" for a missing one; rare ones share the last field. None where all are rare."""
    from sklearn.preprocessing import OneHotEncoder

    most, share = RARE
    rare = min(most, len(train) // share)
    encoder = OneHotEncoder(min_frequency=rare + 1, handle_unknown="infrequent_if_exist")
    encoder.fit(np.array(train, dtype=object)[:, None])
    infrequent = encoder.infrequent_categories_[0]
    infrequent = set() if infrequent is None else set(infrequent.tolist())
    levels = tuple(str(level) for level in encoder.categories_[0] if level not in infrequent)
    return CategoryColumn(name=name, levels=levels, rare=bool(infrequent)) if levels else None
