"""Tables: texts of cells to rows of numbers, checked sources, and their batches."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nas_core.errors import UsageError
from nas_core.task import TABULAR_CLASSIFICATION, TABULAR_REGRESSION
from training import tasks
from training.data import cells as csv_cells
from training.data.loading import Loading
from training.data.split import Split, divide, target_bins
from training.data.table_source import TableSource, table_source
from training.export.formats import signature_of
from training.export.script import script
from training.export.write import onnx_bytes, trace
from training.infer import classify, open_model
from training.infer.model import properties
from training.inputs.tables import CategoryColumn, NumberColumn, TableInputs

AGE = NumberColumn(name="age", median=40, mean=38.5, deviation=13.5, indicator=True)
PAY = NumberColumn(name="pay", median=1, mean=0, deviation=2)
WORK = CategoryColumn(name="work", levels=("", "Private", "State-gov"))
INPUTS = TableInputs(
    kind=TABULAR_CLASSIFICATION, columns=(AGE, WORK, PAY), classes=("<=50K", ">50K"), missing=("", "?")
)

FILE = """age, work, pay
38.5, Private, 4
?, ?, -2
65.5, Never-seen,
"""


def test_cells_become_the_fields_of_their_columns() -> None:
    reader = csv.DictReader(io.StringIO(FILE), skipinitialspace=True)
    rows = list(reader)
    assert reader.fieldnames is not None
    encoded = INPUTS.encode({name: [row[name] for row in rows] for name in reader.fieldnames})
    assert INPUTS.widths == (1, 1, 3, 1)
    assert encoded.dtype == np.float32
    assert encoded.tolist() == pytest.approx(
        np.array([[0, 0, 0, 1, 0, 2], [(40 - 38.5) / 13.5, 1, 1, 0, 0, -1], [2, 0, 0, 0, 0, 0.5]])
    )


def test_inputs_come_back_from_what_is_stored() -> None:
    assert TableInputs.model_validate(INPUTS.model_dump(mode="json")) == INPUTS


@pytest.mark.parametrize("text", ["many", "nan", "inf", "1,5"])
def test_a_text_that_is_no_number_is_named(text: str) -> None:
    with pytest.raises(UsageError, match=f"column 'pay': '{text}' in row 1 is no number"):
        INPUTS.encode({"age": ["1", "2"], "work": ["", ""], "pay": ["0", text]})


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match="no column 'work'; found are age, pay"):
        INPUTS.encode({"age": ["1"], "pay": ["1"]})


@given(hnp.arrays(np.float64, st.integers(4, 200), elements=st.floats(-1e6, 1e6)))
def test_bins_order_targets_and_hold_about_equally_many(targets: np.ndarray) -> None:
    bins = target_bins(targets)
    order = np.argsort(targets, kind="stable")
    assert (np.diff(bins[order]) >= 0).all()
    assert all(len(np.unique(bins[targets == value])) == 1 for value in np.unique(targets))
    if len(np.unique(targets)) == len(targets):
        assert np.bincount(bins).max() <= -(-len(targets) // (bins.max() + 1)) + 1


def table(count: int = 60, classes: tuple[str, ...] = ()) -> TableSource:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((count, 2)).astype(np.float32)
    targets = (rows[:, 0] > 0).astype(np.int64) if classes else 100 + 7 * rows[:, 0].astype(np.float64)
    parts = divide(targets if classes else target_bins(targets), Split())
    mean, deviation = (0, 1) if classes else (targets[parts.train].mean(), targets[parts.train].std())
    columns = tuple(NumberColumn(name=f"c{n}", median=0, mean=0, deviation=1) for n in range(2))
    kind = TABULAR_CLASSIFICATION if classes else TABULAR_REGRESSION
    inputs = TableInputs(kind=kind, columns=columns, classes=classes, target_mean=mean, target_deviation=deviation)
    return table_source("made", rows, targets, parts, inputs)


def test_numbers_are_standardised_for_training() -> None:
    data = table().bind("cpu", Loading(batch_size=16))
    assert float(data.targets("train").mean()) == pytest.approx(0, abs=1e-6)
    assert float(data.targets("train").std(unbiased=False)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("classes", [(), ("no", "yes")])
def test_batches_hold_every_row_once_with_its_target(classes: tuple[str, ...]) -> None:
    source = table(classes=classes)
    data = source.bind("cpu", Loading(batch_size=16))
    batches = list(data.batches("train", 3, 7))
    rows = torch.cat([batch.inputs[0] for batch in batches]).numpy()
    assert {tuple(row) for row in rows} == {tuple(row) for row in source.features[source.parts.train]}
    again = torch.cat([batch.inputs[0] for batch in data.batches("train", 3, 7)]).numpy()
    assert (rows == again).all()
    targets = torch.cat([batch.target for batch in batches])
    if classes:
        assert (targets.numpy() == (rows[:, 0] > 0)).all()
    else:
        assert source.inputs.target_deviation * targets[:, 0].numpy() + source.inputs.target_mean == pytest.approx(
            100 + 7 * rows[:, 0], rel=1e-5
        )


def test_counts_are_of_classes_alone() -> None:
    assert table().class_counts == {}
    assert sum(sum(counts) for counts in table(classes=("no", "yes")).class_counts.values()) == 60


@pytest.mark.parametrize(
    ("rows", "targets", "said"),
    [
        (np.zeros((4, 3), np.float32), np.zeros(4), r"rows \(4, 3\), targets \(4,\); needed are \[n, 2\]"),
        (np.full((4, 2), np.nan, np.float32), np.zeros(4), "rows hold NaN"),
        (np.zeros((4, 2), np.float32), np.full(4, np.inf), "targets hold NaN"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(rows: np.ndarray, targets: np.ndarray, said: str) -> None:
    source = table()
    with pytest.raises(UsageError, match=f"data 'made': {said}"):
        table_source("made", rows, targets, source.parts, source.inputs)


@pytest.mark.parametrize("classes", [(), ("<=50K", ">50K")])
def test_the_program_of_the_card_answers_as_nas_infer(
    classes: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work = CategoryColumn(name="work", levels=("", "Private", "State-gov"), rare=True)
    kind = TABULAR_CLASSIFICATION if classes else TABULAR_REGRESSION
    inputs = TableInputs(
        kind=kind,
        columns=(AGE, work, WORK.model_copy(update={"name": "pay"}), PAY.model_copy(update={"name": "hours"})),
        classes=classes,
        target_mean=200,
        target_deviation=50,
        missing=("", "?"),
    )
    network = torch.nn.Linear(sum(inputs.widths), len(classes) or 1)
    torch.nn.init.normal_(network.weight, generator=torch.Generator().manual_seed(2))
    example = (torch.randn(4, sum(inputs.widths)),)
    signature = signature_of(tasks.find(kind).task(inputs.widths, len(classes) or 1))
    file = tmp_path / "net.onnx"
    file.write_bytes(onnx_bytes(trace(network, example, signature), signature, properties(inputs, raw=False)))
    table = tmp_path / "table.csv"
    table.write_text("hours,age,work,pay,more\n 3, 38.5, Private, ,1\n?, ?, ?,State-gov,2\n-1,65.5, Never-seen, x,\n")
    text = script(inputs, str(file))
    assert text is not None
    monkeypatch.setattr("sys.argv", ["script", str(table)])
    exec(compile(text, "script", "exec"), {})
    printed = [line.split(" ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    answers, _ = classify(open_model(file), f"csv:{table}")
    if classes:
        assert printed == [answer.classes[0][0] for answer in answers]
    else:
        assert [float(number) for number in printed] == pytest.approx([answer.numbers[0] for answer in answers])
        with torch.no_grad():
            raw = network(torch.from_numpy(inputs.encode(csv_cells.read(table).columns))).numpy()[:, 0]
        assert [answer.numbers[0] for answer in answers] == pytest.approx(200 + 50 * raw, rel=1e-5)
