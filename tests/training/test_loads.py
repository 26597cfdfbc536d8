"""How a training divides the work of layers of experts among them: what its reports say of the loads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas_core.batch import Batch
from nas_core.evaluation import LOADS, Report
from search_spaces.layers.dispatch import Chosen
from search_spaces.layers.moe import MixtureOfExperts
from search_spaces.operators.experts import EXPERT
from tests.training.test_traits import CPU, RECIPE, Rows, training
from training.fit import Training, fit


class ByFirst(nn.Module):
    """Rows of a positive first number go to expert 1, others to expert 3; in the k-th pass of a training, counted from
    0, all of them, shifted by `shift * k`."""

    active = 1

    def __init__(self, shift: int = 0) -> None:
        super().__init__()
        self.shift, self.passes = shift, 0

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Chosen:
        chosen = torch.where(x[..., :1] > 0, 1, 3)
        if self.training:
            chosen = (chosen + self.shift * self.passes) % 5
            self.passes += 1
        return Chosen(chosen, torch.ones_like(chosen, dtype=x.dtype), x.new_full((*x.shape[:2], 5), 0.2))


class Two(nn.Module):
    """Two layers of five experts, and an answer."""

    def __init__(self, shift: int = 0) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = (self._layer(ByFirst(by)) for by in (0, shift))
        self.answer = nn.Linear(3, 2)

    def _layer(self, router: nn.Module) -> MixtureOfExperts:
        return MixtureOfExperts(router, EXPERT.operator("gelu").make(5, 3, 8, 3))

    def forward(self, x: Tensor) -> Tensor:
        rows = x[:, None]
        return self.answer((rows + self.first(rows) + self.second(rows))[:, 0])


def positive() -> list[int]:
    """In each batch of the training part, how many of its eight rows begin with a positive number."""
    return [int((batch.inputs[0][:, 0] > 0).sum()) for batch in Rows().batches("train", 0, 1)]


def loads(report: Report) -> dict[str, list[float]]:
    assert report.detail is not None
    found: dict[str, list[float]] = report.detail[LOADS]
    return found


def test_loads_are_the_counts_of_the_whole_epoch() -> None:
    (report,) = fit(Two(shift=1), Rows(), RECIPE, device=CPU, seed=1)
    counts = positive()
    assert 0 < sum(counts) < 24
    assert loads(report)["first"] == pytest.approx([0, sum(counts) / 24, 0, 1 - sum(counts) / 24, 0])
    shifted = [0.0] * 5  # one expert further with each of the three batches
    for number, count in enumerate(counts):
        shifted[(1 + number) % 5] += count / 24
        shifted[(3 + number) % 5] += (8 - count) / 24
    assert loads(report)["second"] == pytest.approx(shifted)
    assert list(loads(report)) == ["first", "second"]


def test_a_network_without_experts_has_none() -> None:
    (report,) = fit(nn.Sequential(nn.Linear(3, 2)), Rows(), RECIPE, device=CPU, seed=1)
    assert report.detail is None


def test_a_batch_in_pieces_has_the_loads_of_the_whole_one() -> None:
    batch = next(Rows().batches("train", 0, 1))

    def of(pieces: list[Batch]) -> dict[str, Tensor]:
        return training(Two()).gradients(pieces)[2]

    whole, cut = of([batch]), of([batch.part(0, 6), batch.part(6, 8)])
    assert float(whole["first"].sum()) == 8
    torch.testing.assert_close(whole, cut)


def test_what_a_pass_without_an_end_did_is_not_counted() -> None:
    class Large(Rows):
        def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
            rows = torch.cat([batch.inputs[0] for batch in super().batches(part, epoch, seed)])
            yield Batch((rows,), (rows[:, 0] > 0).long())

    class Failing(Two):
        fails = True

        def forward(self, x: Tensor) -> Tensor:
            answer = super().forward(x)
            if self.fails and len(x) < 24:  # of the first half, the second piece
                self.fails = False
            elif self.fails:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return answer

    made = Training(Failing(), Large(), RECIPE.model_copy(update={"batch_size": 24}), CPU, 1, None)
    made.train(0)
    assert made.micro_batch == 12
    assert {name: float(load.sum()) for name, load in made.loads.items()} == {"first": 24, "second": 24}


@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_training_that_is_taken_up_again_has_the_same_loads(tmp_path: Path, keep: str) -> None:
    def learns(folder: Path, budget: int) -> list[Report]:
        recipe = RECIPE.model_copy(update={"epochs": 3, "keep": keep})
        options: dict[str, Any] = {"device": CPU, "seed": 1, "folder": folder, "checkpoint_seconds": 0}
        return list(fit(Two(), Rows(), recipe, budget=budget, **options))

    whole = learns(tmp_path / "whole", 3)
    learns(tmp_path / "cut", 2)
    again = learns(tmp_path / "cut", 3)
    assert loads(again[-1]) == loads(whole[-1])
    # Taken up where nothing is left to do.
    learns(tmp_path / "ended", 2)
    assert loads(learns(tmp_path / "ended", 2)[-1]) == loads(whole[1])


def test_of_the_best_epoch_the_loads_are_those_of_its_figures(tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"epochs": 4, "keep": "best", "lr": 1e-12})
    reports = list(fit(Two(shift=1), Rows(), recipe, device=CPU, seed=1))
    assert reports[-1].metrics["kept_epoch"] == 1  # the first of equals
    assert loads(reports[-1]) == loads(reports[0]) != loads(reports[2])
    cut = Two(shift=1)
    list(fit(cut, Rows(), recipe, device=CPU, seed=1, budget=3, folder=tmp_path))
    again = list(fit(cut, Rows(), recipe, device=CPU, seed=1, folder=tmp_path))
    assert loads(again[-1]) == loads(reports[-1])
