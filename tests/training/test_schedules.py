"""Schedules that a recipe can name: cycles, steps, and what a fit does with them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD
from torch.optim.lr_scheduler import CyclicLR, ReduceLROnPlateau

from nas_core.batch import Batch
from nas_core.errors import UsageError
from nas_core.seeds import derive
from nas_core.task import Task
from search_spaces.layers.drop_path import DropPath
from training.checkpoint import adopt
from training.data.scored import Scored
from training.fit import fit
from training.recipe import CYCLIC, Recipe, learning_rate, recipe, whole_cycles
from training.tasks.image_classification import KIND, RECIPES

IMAGE_DATA = Scored(KIND.example)
mean_loss = IMAGE_DATA.loss
metric_sums = IMAGE_DATA.metrics

PHOTOS = Task(kind="image-classification", input_shape=(3, 32, 32), outputs=10)


def cycles(schedule: str = "triangular", **changes: Any) -> Recipe:
    """Smith's example: base .001, max .006; with 500 steps per epoch the stepsize is 2,000."""
    gamma = {"gamma": 0.9998} if schedule == "exp_range" else {}
    values = {"epochs": 24, "lr": 0.006, "lr_base": 0.001, "schedule": schedule, **gamma}
    return Recipe.model_validate({**values, **changes})


def test_triangular_is_that_of_the_paper() -> None:
    rates = [learning_rate(cycles(), step, 500) for step in range(0, 6000, 1000)]
    assert rates == pytest.approx([0.001, 0.0035, 0.006, 0.0035, 0.001, 0.0035])
    halved = [learning_rate(cycles("triangular2"), step, 500) for step in (2000, 6000, 10_000)]
    assert halved == pytest.approx([0.006, 0.0035, 0.00225])
    fading = learning_rate(cycles("exp_range"), 6000, 500)
    assert fading == pytest.approx(0.001 + 0.005 * 0.9998**6000)


@pytest.mark.parametrize("schedule", CYCLIC)
def test_cycles_are_torch_s(schedule: str) -> None:
    chosen = cycles(schedule)
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=0.001)
    theirs = CyclicLR(
        optimizer, 0.001, 0.006, step_size_up=2000, mode=schedule, gamma=chosen.gamma or 1.0, cycle_momentum=False
    )
    for step in range(10_000):
        assert learning_rate(chosen, step, 500) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9, abs=1e-15)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize(("factor", "patience", "lowest"), [(0.5, 2, 0.0), (0.3, 0, 0.002), (None, None, 0.0)])
def test_plateaus_are_torch_s(factor: float | None, patience: int | None, lowest: float) -> None:
    draws = torch.Generator().manual_seed(0)
    falling = torch.linspace(2, 1, 120) + 0.3 * torch.rand(120, generator=draws)
    losses = [*falling.tolist(), *[falling.min().item() * (1 - 5e-5)] * 20, 0.5, float("nan"), *[0.6] * 30]
    values = {"plateau_factor": factor, "plateau_patience": patience, "lr_end": lowest}
    chosen = Recipe.model_validate({"epochs": 400, "lr": 0.1, "schedule": "plateau", **values})
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=0.1)
    given = {"factor": factor or 0.1, "patience": 10 if patience is None else patience}
    theirs = ReduceLROnPlateau(optimizer, min_lr=lowest, eps=0, **given)  # type: ignore[arg-type]
    rates = set()
    for epoch in range(len(losses)):
        rates.add(optimizer.param_groups[0]["lr"])
        assert learning_rate(chosen, epoch, losses=losses[:epoch]) == pytest.approx(optimizer.param_groups[0]["lr"])
        theirs.step(losses[epoch])
    assert len(rates) > 2


@given(
    schedule=st.sampled_from(CYCLIC),
    half=st.integers(1, 10),
    count=st.integers(1, 2000),
    steps=st.integers(1, 500),
    data=st.data(),
)
def test_a_cycle_stays_between_its_rates_and_ends_low(
    schedule: str, half: int, count: int, steps: int, data: st.DataObject
) -> None:
    chosen = cycles(schedule, epochs=2 * half * count, cycle_epochs=half)
    total = chosen.epochs * steps
    step = data.draw(st.integers(0, total - 1))
    assert 0.001 <= learning_rate(chosen, step, steps) <= 0.006 * (1 + 1e-12)
    assert learning_rate(chosen, 0, steps) == learning_rate(chosen, total, steps) == 0.001


def test_the_base_is_a_quarter_where_none_is_given() -> None:
    assert learning_rate(Recipe(epochs=8, lr=0.2, schedule="triangular"), 0) == pytest.approx(0.05)
    assert learning_rate(Recipe(epochs=8, lr=0.2, schedule="triangular"), 40, 10) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 10}, r"10 epochs are no whole number of cycles .* = 8 epochs, .* take epochs 8 or 16"),
        ({"epochs": 4}, "take epochs 8, or another cycle_epochs"),
        ({"epochs": 12, "cycle_epochs": 5}, "2 x cycle_epochs = 10 epochs"),
        ({"lr_base": 0.006}, "lr_base 0.006 is not below lr 0.006"),
        ({"warmup_epochs": 1}, "warmup_epochs must be 0 with triangular"),
        ({"lr_end": 0.001}, "lr_end must be 0 with triangular"),
        ({"schedule": "exp_range"}, "exp_range needs gamma"),
        ({"gamma": 0.9}, "gamma is for schedule exp_range, not for triangular"),
        ({"milestones": [[3, 0.1]]}, "milestones is for schedule step, not for triangular"),
        ({"schedule": "cosine"}, "lr_base is for schedule triangular or triangular2 or exp_range, not for cosine"),
        ({"schedule": "step", "lr_base": None}, "needs milestones, for example"),
        ({"cycle_epochs": 0}, "greater than or equal to 1"),
        ({"plateau_factor": 0.5}, "plateau_factor is for schedule plateau, not for triangular"),
        ({"schedule": "triangle"}, "'triangular'"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    values = {"epochs": 24, "lr": 0.006, "lr_base": 0.001, "schedule": "triangular", "warmup_epochs": 0, **changes}
    with pytest.raises(UsageError, match=message):
        recipe("quick", PHOTOS, **values)


@pytest.mark.parametrize(
    ("epochs", "usual", "wanted"),
    [
        *((epochs, 4, (epochs, 4)) for epochs in (8, 40, 200, 400)),
        *(
            (6, 4, (6, 3)),
            (20, 4, (20, 5)),
            (22, 4, (24, 4)),
            (1, 4, (4, 2)),
            (200, 20, (200, 20)),
            (201, 20, (204, 17)),
        ),
    ],
)
def test_epochs_that_are_whole_cycles(epochs: int, usual: int, wanted: tuple[int, int]) -> None:
    total, half = whole_cycles(epochs, usual)
    assert (total, half) == wanted
    assert cycles(epochs=total, cycle_epochs=half).half_cycle == half


@pytest.mark.parametrize(
    ("milestones", "message"),
    [
        ([[3, 0.1], [2, 0.01]], r"must rise from 0 or more, not \[3, 2\]"),
        ([[-1, 0.1]], "must rise from 0"),
        ([[8, 0.1]], "milestone 8 is never reached in 8 epochs"),
        ([[3, 0.0]], "factor 0 of milestones"),
        ([[3, 2.0]], "factor 2 of milestones"),
        ([[3]], "milestones.0"),
    ],
)
def test_milestones_are_checked(milestones: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        recipe("quick", PHOTOS, schedule="step", milestones=milestones)


def test_ae_cnn_trains_as_its_authors_did() -> None:
    chosen = recipe("ae-cnn", PHOTOS)
    rates = [learning_rate(chosen, epoch) for epoch in range(350)]
    assert rates == pytest.approx([0.01] + [0.1] * 148 + [0.01] * 100 + [0.001] * 101)
    assert learning_rate(chosen, 148 * 391, 391) == pytest.approx(0.1)
    assert (chosen.optimizer, chosen.momentum, chosen.weight_decay, chosen.batch_size) == ("sgd", 0.9, 5e-4, 128)
    assert (chosen.augment.crop, chosen.augment.flip, chosen.nesterov) == (4, True, False)
    with pytest.raises(UsageError, match="milestone 249 is never reached in 20 epochs"):
        recipe("ae-cnn", PHOTOS, epochs=20, milestones=[[149, 0.1], [249, 0.01]])


@pytest.mark.parametrize("name", RECIPES)
def test_a_shorter_training_has_shorter_phases(name: str) -> None:
    usual = recipe(name, PHOTOS)
    for epochs in (1, 2, 7, usual.epochs - 1):
        short = recipe(name, PHOTOS, epochs=epochs)
        assert short.warmup_epochs <= min(usual.warmup_epochs, epochs - 1)
        assert (short.warmup_epochs > 0) == (usual.warmup_epochs > 0 and epochs > 1)
        if epochs > 2:  # one or two epochs of ae-cnn are those of its low rates
            assert max(learning_rate(short, epoch) for epoch in range(epochs)) == usual.lr
    tenth = recipe("ae-cnn", PHOTOS, epochs=35)
    rates = [learning_rate(tenth, epoch) for epoch in range(35)]
    assert rates == pytest.approx([0.01] + [0.1] * 14 + [0.01] * 10 + [0.001] * 10)
    assert recipe("regnet", PHOTOS, epochs=50).warmup_epochs == 3
    with pytest.raises(UsageError, match="warmup_epochs 5 leaves none of 3 epochs"):
        recipe(name, PHOTOS, epochs=3, schedule="cosine", warmup_epochs=5)


def test_another_schedule_leaves_behind_what_belongs_to_the_named_one() -> None:
    assert recipe("standard", PHOTOS, schedule="triangular").warmup_epochs == 0
    assert recipe("standard", PHOTOS, schedule="constant").warmup_epochs == 1
    assert recipe("ae-cnn", PHOTOS, schedule="cosine").milestones == ()
    with pytest.raises(UsageError, match="warmup_epochs must be 0"):
        recipe("standard", PHOTOS, schedule="triangular", warmup_epochs=1)


def test_a_recipe_without_cycles_is_stored_as_ever() -> None:
    """A study's stored recipe is compared with that of the same command given again."""
    before = {
        "epochs", "optimizer", "lr", "lr_end", "momentum", "nesterov", "weight_decay", "schedule", "warmup_epochs",
        "batch_size", "grad_clip", "augment", "precision",
    }  # fmt: skip
    assert recipe("standard", PHOTOS).model_dump(mode="json").keys() == before


@pytest.mark.parametrize("chosen", [cycles(), cycles("exp_range", cycle_epochs=2), recipe("ae-cnn", PHOTOS)])
def test_stored_and_read_it_is_the_same(chosen: Recipe) -> None:
    stored = chosen.model_dump(mode="json")
    assert Recipe(**json.loads(json.dumps(stored))) == chosen
    assert json.loads(json.dumps(stored)) == stored


def test_steps_are_epochs_for_the_other_schedules() -> None:
    for chosen in (Recipe(epochs=6, warmup_epochs=2), Recipe(epochs=6, schedule="constant")):
        rates = [learning_rate(chosen, epoch) for epoch in range(6)]
        assert [learning_rate(chosen, step, 7) for step in range(42)] == [rate for rate in rates for _ in range(7)]


# -- in a fit: steps within an epoch, drop path, the auxiliary head, continuing ---------------------------------


class Images:
    """48 training images in batches of 16, in an order of the epoch: three steps per epoch."""

    task = Task(kind="image-classification", input_shape=(3, 8, 8), outputs=2)

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.target = torch.arange(64) % 2
        self.images = torch.randn(64, 3, 8, 8, generator=generator) + self.target[:, None, None, None]

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        order = torch.arange(48, 64)
        if part == "train":
            order = torch.randperm(48, generator=torch.Generator().manual_seed(derive(seed, epoch)))
        for rows in order.split(16):
            yield Batch((self.images[rows],), self.target[rows])

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return mean_loss(output, batch)

    def metrics(self, output: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return metric_sums(output, batch)


class Network(nn.Module):
    """Drop path, batch norm, dropout and, with an `auxiliary_weight`, a second head that is there in training only."""

    def __init__(self, auxiliary_weight: float | None = None) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.drop_path = DropPath(0.5)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(8, 2))
        self.auxiliary_weight = auxiliary_weight
        self.auxiliary = nn.Linear(8, 2)
        self.progress: list[float] = []

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.stem(x)
        x = (x + self.drop_path(x.relu())).mean((2, 3))
        if not self.training:
            return self.head(x)  # type: ignore[no-any-return]
        self.progress.append(self.drop_path.progress)
        return self.head(x) if self.auxiliary_weight is None else (self.head(x), self.auxiliary(x))


SHORT = Recipe(epochs=4, lr=0.05, schedule="triangular2", cycle_epochs=1, batch_size=16, precision="float32")


def run(model: nn.Module, recipe: Recipe = SHORT, **options: Any) -> list[Mapping[str, float]]:
    reports = fit(model, Images(), recipe, device=torch.device("cpu"), seed=11, **options)
    return [report.metrics for report in reports]


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The learning rate of every optimiser step that is taken."""
    taken: list[float] = []
    step = SGD.step

    def counted(self: SGD, *arguments: Any) -> Any:
        taken.append(self.param_groups[0]["lr"])
        return step(self, *arguments)

    monkeypatch.setattr(SGD, "step", counted)
    return taken


def test_a_cycle_is_stepped_every_iteration(rates: list[float]) -> None:
    run(Network())
    assert rates == [learning_rate(SHORT, step, 3) for step in range(12)]
    assert rates[3] == pytest.approx(0.05)
    assert len(set(rates[:6])) == 4  # up and down again


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_training_killed_within_a_cycle_continues_bit_for_bit(tmp_path: Path, stop_after: int) -> None:
    whole = Network(0.4)
    wanted = run(whole)
    killed = fit(
        Network(0.4), Images(), SHORT, device=torch.device("cpu"), seed=11, folder=tmp_path, checkpoint_seconds=0
    )
    for _ in range(stop_after):
        next(killed)
    killed.close()  # type: ignore[attr-defined]
    torch.manual_seed(99)
    resumed = Network(0.4)
    assert run(resumed, folder=tmp_path) == wanted
    assert same_weights(resumed, whole)
    assert whole.progress[-len(resumed.progress) :] == resumed.progress


@pytest.mark.parametrize("stop_after", [2, 5])
def test_a_training_on_plateaus_continues_bit_for_bit(tmp_path: Path, stop_after: int) -> None:
    """What has been waited for is known after a checkpoint, too."""
    plateaus = {"schedule": "plateau", "cycle_epochs": None, "epochs": 8, "lr": 1.0}
    chosen = SHORT.model_copy(update={**plateaus, "plateau_factor": 0.1, "plateau_patience": 0})
    whole = Network()
    wanted = run(whole, chosen)
    losses = [metrics["val_loss"] for metrics in wanted]
    assert learning_rate(chosen, 7, losses=losses[:7]) < learning_rate(chosen, 0)
    killed = fit(
        Network(), Images(), chosen, device=torch.device("cpu"), seed=11, folder=tmp_path, checkpoint_seconds=0
    )
    for _ in range(stop_after):
        next(killed)
    killed.close()  # type: ignore[attr-defined]
    resumed = Network()
    assert run(resumed, chosen, folder=tmp_path) == wanted
    assert same_weights(resumed, whole)
    constant = run(Network(), chosen.model_copy(update={"schedule": "constant"}))
    assert [metrics["train_loss"] for metrics in constant] != [metrics["train_loss"] for metrics in wanted]


def test_drop_path_progresses_from_the_first_to_the_last_step(tmp_path: Path) -> None:
    constant = SHORT.model_copy(update={"schedule": "constant", "cycle_epochs": None})
    whole, first, second = Network(), Network(), Network()
    run(whole, constant)
    assert whole.progress == [step / 11 for step in range(12)]
    run(first, constant, budget=2, folder=tmp_path)
    assert first.progress == whole.progress[:6]  # of the recipe's epochs, not of the budget's
    run(second, constant, folder=tmp_path)
    assert second.progress == whole.progress[6:]


def test_the_auxiliary_head_adds_its_weighted_loss() -> None:
    """One step written out; what is reported and validated is the loss of the logits."""
    single = Recipe(epochs=1, lr=0.1, momentum=0, weight_decay=0, schedule="constant", precision="float32")

    class OneBatch(Images):
        def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
            yield Batch((self.images,), self.target)

    class Heads(nn.Module):
        auxiliary_weight = 0.4

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(7)
            self.main, self.second = nn.Linear(192, 2), nn.Linear(192, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.main(x.flatten(1)), self.second(x.flatten(1))

    model, plain, data = Heads(), Heads(), OneBatch()
    (report,) = fit(model, data, single, device=torch.device("cpu"), seed=1)
    main, second = plain(data.images)
    loss, other = functional.cross_entropy(main, data.target), functional.cross_entropy(second, data.target)
    (loss + 0.4 * other).backward()
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert theirs.grad is not None
        torch.testing.assert_close(mine, theirs - 0.1 * theirs.grad)
    assert report.metrics["train_loss"] == pytest.approx(loss.item())
    validated = functional.cross_entropy(model(data.images)[0], data.target)
    assert report.metrics["val_loss"] == pytest.approx(validated.item())


def test_a_promotion_in_another_folder_trains_only_the_additional_epochs(tmp_path: Path, rates: list[float]) -> None:
    whole = Network()
    wanted = run(whole)
    del rates[:]
    assert run(Network(), budget=1, folder=tmp_path / "rung0") == wanted[:1]
    assert len(rates) == 3
    assert adopt(tmp_path / "rung0", tmp_path / "rung1")
    assert run(Network(), budget=2, folder=tmp_path / "rung1") == wanted[:2]
    assert len(rates) == 6
    assert adopt(tmp_path / "rung1", tmp_path / "rung2")
    assert adopt(tmp_path / "rung1", tmp_path / "rung2")  # again, as after a crash
    last = Network()
    assert run(last, folder=tmp_path / "rung2") == wanted
    assert rates == [learning_rate(SHORT, step, 3) for step in range(12)]
    assert same_weights(last, whole)


def test_other_trainings_do_not_count_their_steps() -> None:
    """The batches of an epoch are gone through once, not twice, where nothing needs their number."""

    class Counted(Images):
        passes = 0

        def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
            self.passes += part == "train"
            return super().batches(part, epoch, seed)

    data = Counted()
    plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    list(fit(plain, data, Recipe(epochs=2), device=torch.device("cpu"), seed=1))
    assert data.passes == 2
