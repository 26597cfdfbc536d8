"""What a recipe asks for beyond a step of the optimiser: averaged weights, mixup, the best epoch, patience, losses."""

from __future__ import annotations

import copy
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.batch import Data
from nas_core.errors import TrialError, UsageError
from nas_core.evaluation import Objective, Report
from nas_core.seeds import generator
from training.data import load
from training.data.loading import Loading
from training.data.split import Split
from training.fit import Training, fit
from training.loss import balanced_weights
from training.metrics import PartMetric
from training.recipe import Recipe
from training.recipe import recipe as named

CPU = torch.device("cpu")
EVERYTHING: dict[str, Any] = {
    "keep": "best", "patience": 6, "ema": 0.5, "mixup": 0.4, "label_smoothing": 0.1, "class_weights": "balanced",
}  # fmt: skip


@cache
def digits() -> Data:
    return load("digits", Split(limit=300)).bind(CPU, Loading(batch_size=64))


def network() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))


def recipe(epochs: int = 4, **fields: Any) -> Recipe:
    return Recipe(epochs=epochs, lr=0.1, precision="float32", **fields)


def reports(model: nn.Module, chosen: Recipe, **options: Any) -> list[Report]:
    return list(fit(model, digits(), chosen, device=CPU, seed=3, **options))


def scripted(*values: float) -> dict[str, Any]:
    """A metric with these values in the epochs of a training, as what tells good epochs from bad."""
    given = iter(values)
    metric = PartMetric("scripted", lambda outputs, targets: next(given), reference="made")
    return {"metrics": (metric,), "monitor": Objective("val_scripted", "max")}


def accuracy(model: nn.Module, part: str) -> float:
    model.eval()
    with torch.no_grad():
        batches = list(digits().batches(part, 0, 0))
        return float(torch.cat([model(*batch.inputs).argmax(1) == batch.target for batch in batches]).float().mean())


def learned(found: list[Report]) -> list[tuple[float, Any]]:
    return [(report.step, report.metrics) for report in found]


@pytest.mark.parametrize("stop_after", [1, 4])
@pytest.mark.parametrize("fields", [EVERYTHING, {"keep": "best"}, {"ema": 0.9}, {"mixup": 1.0}])
def test_a_killed_training_continues_bit_for_bit(tmp_path: Path, fields: dict[str, Any], stop_after: int) -> None:
    chosen, whole = recipe(5, **fields), network()
    wanted = reports(whole, chosen, test=True)
    killed = fit(network(), digits(), chosen, device=CPU, seed=3, folder=tmp_path, checkpoint_seconds=0, test=True)
    for _ in range(stop_after):
        next(killed)
    killed.close()  # type: ignore[attr-defined]
    resumed = network()
    assert learned(reports(resumed, chosen, folder=tmp_path, test=True)) == learned(wanted)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())


def test_the_best_epoch_is_reported_tested_and_left_in_the_network() -> None:
    plain = [report.metrics for report in reports(network(), recipe(), **scripted(0.1, 0.7, 0.7, 0.2))]
    model = network()
    found = reports(model, recipe(keep="best"), test=True, **scripted(0.1, 0.7, 0.7, 0.2, 0.5))
    assert [report.metrics["kept_epoch"] for report in found] == [1, 2, 2, 2]
    last = found[-1].metrics
    assert last["val_scripted"] == 0.7
    assert all(last[name] == plain[1][name] for name in ("train_loss", "val_loss", "val_accuracy"))
    assert found[2].metrics["val_loss"] == plain[2]["val_loss"] != plain[1]["val_loss"]
    assert last["val_accuracy"] == pytest.approx(accuracy(model, "valid"))
    assert last["test_accuracy"] == pytest.approx(accuracy(model, "test"))
    second = network()
    reports(second, recipe(), budget=2)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in second.state_dict().items())


def test_a_value_that_is_no_number_is_never_the_best(tmp_path: Path) -> None:
    values = (math.nan, 0.3, math.nan, 0.2)
    found = reports(network(), recipe(keep="best"), folder=tmp_path, checkpoint_seconds=0, **scripted(*values))
    assert [report.metrics["kept_epoch"] for report in found] == [1, 2, 2, 2]
    assert math.isnan(found[0].metrics["val_scripted"])


def test_patience_ends_a_training_and_the_test_is_that_of_its_end(tmp_path: Path) -> None:
    values = (0.3, 0.5, 0.4, 0.5, 0.9)
    model = network()
    found = reports(model, recipe(9, patience=2), test=True, **scripted(*values, 0.0))
    assert [report.step for report in found] == [1, 2, 3, 4]
    assert found[-1].metrics["test_accuracy"] == pytest.approx(accuracy(model, "test"))
    assert not any("test_accuracy" in report.metrics for report in found[:-1])
    # Where a budget ends before its recipe does, what continues it finds the training over.
    small = reports(network(), recipe(9, patience=2), budget=6, folder=tmp_path, **scripted(*values))
    more = reports(network(), recipe(9, patience=2), budget=8, folder=tmp_path, **scripted())
    assert learned(small) == learned(more) == [*learned(found[:3]), (4, small[-1].metrics)]


def test_a_loss_can_be_what_counts() -> None:
    rising = reports(network(), recipe(6, patience=1, lr_end=0.1), monitor=Objective("val_loss", "max"))
    falling = reports(network(), recipe(6, patience=1, lr_end=0.1), monitor=Objective("val_loss", "min"))
    assert len(rising) == 2 < len(falling)


def test_averaged_weights_are_an_exponential_average_of_every_step() -> None:
    chosen = recipe(2, ema=0.75)
    training = Training(network(), digits(), chosen, CPU, 3, None)
    plain = Training(network(), digits(), recipe(2), CPU, 3, None)
    wanted: dict[str, Tensor] = {}
    update = plain.update

    def watched(batch: Any) -> Tensor:
        total = update(batch)
        state = {name: value.clone() for name, value in plain.model.state_dict().items() if value.is_floating_point()}
        for name, value in state.items():
            wanted[name] = 0.75 * wanted[name] + 0.25 * value if name in wanted else value
        return total

    plain.update = watched  # type: ignore[method-assign]
    for epoch in range(2):
        found, raw = training.epoch(epoch), plain.epoch(epoch)
        assert found["train_loss"] == raw["train_loss"]
        assert found["val_loss"] != raw["val_loss"]
    assert training.averaged is not None
    state = training.averaged.module.state_dict()
    assert {"1.running_mean", "4.weight"} <= wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(state[name], value)


def test_what_is_delivered_are_the_averaged_weights() -> None:
    model = network()
    raw = network()
    reports(raw, recipe(3))
    found = reports(model, recipe(3, ema=0.8), test=True)
    assert not torch.equal(model.state_dict()["4.weight"], raw.state_dict()["4.weight"])
    assert found[-1].metrics["val_accuracy"] == pytest.approx(accuracy(model, "valid"))
    assert found[-1].metrics["test_accuracy"] == pytest.approx(accuracy(model, "test"))


def test_mixup_is_that_of_its_paper_with_draws_of_the_epoch() -> None:
    model, chosen = network(), recipe(2, mixup=0.3)
    plain = copy.deepcopy(model).to(memory_format=torch.channels_last)
    found = reports(model, chosen, budget=1)
    optimiser = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    draws, total, count = generator(3, 0, "mixup"), 0.0, 0
    shares = []
    for batch in digits().batches("train", 0, 3):
        share, order = float(draws.beta(0.3, 0.3)), draws.permutation(len(batch.target))
        shares.append(share)
        x, y = batch.inputs[0], batch.target
        output = plain(share * x + (1 - share) * x[order])
        loss = share * functional.cross_entropy(output, y) + (1 - share) * functional.cross_entropy(output, y[order])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total, count = total + loss.item() * len(y), count + len(y)
    assert found[0].metrics["train_loss"] == pytest.approx(total / count, rel=1e-5)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    again = Training(network(), digits(), chosen, CPU, 3, None)
    assert [batch.mixed[1] for batch in again.batches(0) if batch.mixed] == shares
    assert [batch.mixed[1] for batch in again.batches(1) if batch.mixed] != shares


def test_mixed_batches_are_cut_with_both_targets() -> None:
    training = Training(network(), digits(), recipe(1, mixup=1.0), CPU, 3, None)
    batch = next(training.batches(0))
    training.micro_batch = 10
    pieces = training.pieces(batch)
    assert batch.mixed is not None
    assert torch.equal(torch.cat([piece.mixed[0] for piece in pieces if piece.mixed]), batch.mixed[0])
    assert {piece.mixed[1] for piece in pieces if piece.mixed} == {batch.mixed[1]}


def first_loss(chosen: Recipe) -> float:
    """The loss of the first training batch, before any step."""
    training = Training(network(), digits(), chosen, CPU, 3, None)
    training.model.train()
    return float(training.update(next(training.batches(0)))) / 64


def test_weights_and_smoothing_are_those_of_torch() -> None:
    batch = next(digits().batches("train", 0, 3))
    model = network().to(memory_format=torch.channels_last)
    output = model(*batch.inputs)
    labels = digits().targets("train")
    weights = len(labels) / (10 * labels.bincount(minlength=10))
    wanted = functional.cross_entropy(output, batch.target, weight=weights, label_smoothing=0.2)
    chosen = recipe(1, class_weights="balanced", label_smoothing=0.2)
    assert first_loss(chosen) == pytest.approx(wanted.item(), rel=1e-5)
    margin = functional.multi_margin_loss(output, batch.target)
    assert first_loss(recipe(1, loss="multi_margin_loss")) == pytest.approx(margin.item(), rel=1e-5)


def test_a_class_without_training_samples_has_the_weight_one() -> None:
    weights = balanced_weights(torch.tensor([0, 0, 0, 2]), 3)
    numpy.testing.assert_allclose(weights, [4 / 6, 1, 2])


def test_the_loss_of_other_parts_is_without_smoothing_and_weights() -> None:
    model = network()
    found = reports(model, recipe(1, label_smoothing=0.3, class_weights="balanced"))[0].metrics["val_loss"]
    model.eval()
    with torch.no_grad():
        sums = [
            (functional.cross_entropy(model(*batch.inputs), batch.target, reduction="sum"), len(batch.target))
            for batch in digits().batches("valid", 0, 0)
        ]
    assert found == pytest.approx(float(sum(loss for loss, _ in sums)) / sum(count for _, count in sums), rel=1e-5)


LOSSES = """
import torch
from torch.nn import functional
def twice(outputs, targets):
    return 2 * functional.cross_entropy(outputs, targets)
class Focal(torch.nn.Module):
    def __init__(self, gamma=0.0):
        super().__init__()
        self.gamma = gamma
    def forward(self, outputs, targets):
        loss = functional.cross_entropy(outputs, targets, reduction="none")
        return ((1 - torch.exp(-loss)) ** self.gamma * loss).mean()
def each(outputs, targets):
    return functional.cross_entropy(outputs, targets, reduction="none")
NUMBER = 3
"""


@pytest.fixture
def losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(LOSSES)


@pytest.mark.usefixtures("losses")
def test_a_loss_of_ones_own_is_minimised_and_reported() -> None:
    plain, twice = reports(network(), recipe(1))[0].metrics, reports(network(), recipe(1, loss="mine.py:twice"))
    assert first_loss(recipe(1, loss="mine.py:twice")) == pytest.approx(2 * first_loss(recipe(1)))
    assert twice[0].metrics["val_loss"] > 1.2 * plain["val_loss"]
    for made in ("mine.py:Focal", "mine.py:Focal(gamma=0.0)"):
        assert reports(network(), recipe(1, loss=made))[0].metrics["val_loss"] == pytest.approx(plain["val_loss"])
    focal = first_loss(recipe(1, loss="mine.py:Focal(gamma=2.0)"))
    assert focal < 0.95 * first_loss(recipe(1))


@pytest.mark.usefixtures("losses")
def test_what_is_no_loss_is_told() -> None:
    with pytest.raises(TrialError, match=r"loss 'mine.py:each' returned shape \[64\], not a scalar tensor"):
        reports(network(), recipe(1, loss="mine.py:each"))
    with pytest.raises(UsageError, match="is a int, which cannot be called"):
        reports(network(), recipe(1, loss="mine.py:NUMBER"))
    task = digits().task
    for fields, message in (
        ({"loss": "cross_entrop"}, "did you mean 'cross_entropy'"),
        ({"loss": "mine.py:twice", "class_weights": "balanced"}, "class_weights is for loss cross_entropy or multi"),
        ({"loss": "multi_margin_loss", "label_smoothing": 0.1}, "label_smoothing is for loss cross_entropy, not"),
        ({"patience": 0}, "greater than or equal to 1"),
        ({"ema": 1.0}, "less than 1"),
    ):
        with pytest.raises(UsageError, match=message):
            named("quick", task, **fields)
    with pytest.raises(UsageError, match="mixup is for images"):
        named("quick", load("karate", Split()).task, mixup=0.2)


def test_a_checkpoint_of_another_choice_is_refused(tmp_path: Path) -> None:
    reports(network(), recipe(4, keep="best"), budget=2, folder=tmp_path)
    with pytest.raises(UsageError, match="monitor is val_accuracy:max there and val_loss:min here"):
        reports(network(), recipe(4, keep="best"), folder=tmp_path, monitor=Objective("val_loss", "min"))


def test_a_recipe_that_asks_for_nothing_is_stored_as_ever() -> None:
    stored = recipe().model_dump(mode="json")
    assert not stored.keys() & {*EVERYTHING, "loss"}
    full = recipe(**EVERYTHING, loss="cross_entropy")
    assert Recipe(**full.model_dump(mode="json")) == full
