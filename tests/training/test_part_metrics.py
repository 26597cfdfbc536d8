"""Metrics of the kinds of task against scikit-learn's, and batches that are cut."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as reference

from nas_core.batch import Batch
from nas_core.errors import UsageError
from nas_core.task import TABULAR_REGRESSION, Task
from training import tasks
from training.data.loading import Loading
from training.data.split import Split
from training.inputs.tables import TableInputs
from training.loss import Criterion
from training.recipe import recipe
from training.tasks.classification import correct
from training.tasks.tabular_regression import absolute, r2, rmse

NUMBERS = st.floats(-1e4, 1e4, width=32)
PAIRS = st.integers(2, 60).flatmap(
    lambda count: st.tuples(*(hnp.arrays(np.float32, (count, 1), elements=NUMBERS) for _ in range(2)))
)


@given(PAIRS)
def test_errors_of_numbers_are_scikit_learns(pair: tuple[np.ndarray, np.ndarray]) -> None:
    outputs, targets = map(torch.from_numpy, pair)
    found, wanted = pair[0].astype(np.float64), pair[1].astype(np.float64)
    assert rmse(outputs, targets) == pytest.approx(reference.mean_squared_error(wanted, found) ** 0.5, rel=1e-6)
    assert float(absolute(outputs, targets).double().mean()) == pytest.approx(
        reference.mean_absolute_error(wanted, found), rel=1e-5
    )
    explained = r2(outputs, targets)
    if np.ptp(wanted) == 0:
        assert math.isnan(explained)
    else:
        assert explained == pytest.approx(reference.r2_score(wanted, found), rel=1e-6, abs=1e-6)


def test_accuracy_is_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(200, 4, generator=generator)
    targets = torch.randint(4, (200,), generator=generator)
    expected = reference.accuracy_score(targets.numpy(), outputs.argmax(1).numpy())
    assert float(correct(outputs, targets).double().mean()) == pytest.approx(expected)


def test_numbers_are_reported_in_their_own_unit() -> None:
    """The same prediction is as wrong in the unit of the training as the deviation says."""
    source = tasks.find(TABULAR_REGRESSION).embedded(Split())
    assert source is not None
    inputs = source.inputs
    assert isinstance(inputs, TableInputs)
    assert inputs.target_deviation > 10
    data = source.bind("cpu", Loading(batch_size=64))
    (batch,) = data.batches("valid", 0, 0)
    nothing = torch.zeros_like(batch.target)  # predicts the mean of the training part
    outputs, targets = batch.answered(nothing)
    assert outputs.unique().tolist() == pytest.approx([inputs.target_mean])
    assert rmse(outputs, targets) == pytest.approx(inputs.target_deviation * rmse(nothing, batch.target), rel=1e-5)
    mae = float(data.metrics(nothing, batch)["mae"]) / batch.samples
    assert mae == pytest.approx(inputs.target_deviation * float(batch.target.abs().mean()), rel=1e-5)
    assert float(data.loss(nothing, batch)) == pytest.approx(float(batch.target.square().mean()))


@given(st.integers(0, 12), st.integers(0, 12), st.booleans(), st.booleans())
def test_a_part_of_a_batch_is_its_samples(first: int, second: int, graph: bool, mixed: bool) -> None:
    start, stop = sorted((first, second))
    x, target = torch.arange(24.0).reshape(12, 2), torch.arange(12)
    index = torch.arange(11, -1, -1) if graph else None
    batch = Batch((x,), target, index, (target + 100, 0.25) if mixed and not graph else None, (1.0, 2.0))
    part = batch.part(start, stop)
    assert part.samples == stop - start
    assert part.unit == batch.unit
    outputs, targets = batch.scored(x)
    found, wanted = part.scored(x if graph else x[start:stop])
    assert torch.equal(found, outputs[start:stop])
    assert torch.equal(wanted, targets[start:stop])
    assert len(part.inputs[0]) == (12 if graph else stop - start)
    if mixed and not graph:
        assert part.mixed is not None
        assert torch.equal(part.mixed[0], target[start:stop] + 100)
        assert part.mixed[1] == 0.25


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("tabular-regression", {"loss": "cross_entropy"}, "cross_entropy is not for tabular-regression; take mse_loss"),
        ("image-classification", {"loss": "mse_loss"}, "mse_loss is not for image-classification; take cross_entropy"),
        ("tabular-regression", {"class_weights": "balanced"}, "class_weights is for loss cross_entropy or multi"),
        ("tabular-classification", {"mixup": 0.2}, "mixup is for images; the task is tabular-classification"),
        ("tabular-regression", {"loss": "mse"}, "unknown loss 'mse'; did you mean 'mse_loss'"),
    ],
)
def test_what_another_kind_has_is_refused(kind: str, changes: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        recipe("quick", tasks.find(kind).example, **changes)


@pytest.mark.parametrize("loss", tasks.find(TABULAR_REGRESSION).losses)
def test_losses_of_numbers_are_torchs(loss: str) -> None:
    source = tasks.find(TABULAR_REGRESSION).embedded(Split())
    assert source is not None
    data = source.bind("cpu")
    batch = next(iter(data.batches("train", 0, 0)))
    outputs = torch.randn(batch.samples, 1, generator=torch.Generator().manual_seed(0))
    criterion = Criterion(recipe("quick", source.task, loss=loss), data)
    expected = getattr(torch.nn.functional, loss)(outputs, batch.target)
    assert float(criterion(outputs, batch)) == pytest.approx(float(expected))
    sums = criterion.metrics(outputs, batch)
    assert float(sums["loss"]) / batch.samples == pytest.approx(float(expected), rel=1e-5)


def test_a_graph_of_unknown_size_has_no_random_inputs() -> None:
    with pytest.raises(UsageError, match="set nodes and edges of the task"):
        tasks.sample_inputs(Task(kind="node-classification", input_shape=(4,), outputs=2))


def test_random_rows_have_one_level_per_block() -> None:
    task = tasks.find(TABULAR_REGRESSION).example
    (rows,) = tasks.sample_inputs(task, 500)
    start = 0
    for width in task.table():
        block = rows[:, start : start + width]
        if width > 1:
            assert torch.equal(block.sum(1), torch.ones(500))
            assert block.any(0).all()
            assert set(block.unique().tolist()) == {0.0, 1.0}
        start += width


def test_less_of_an_error_is_better() -> None:
    goals = {metric.name: metric.goal for metric in tasks.find(TABULAR_REGRESSION).metrics}
    assert goals == {"rmse": "min", "mae": "min", "r2": "max"}
