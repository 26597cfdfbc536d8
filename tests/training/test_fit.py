"""The fit loop: reports, exact resume, failures as trial errors, micro-batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.batch import Batch
from nas_core.errors import TrialError, UsageError
from nas_core.evaluation import Report
from nas_core.seeds import derive
from nas_core.task import Task
from training.fit import SMALLEST_MICRO_BATCH, Training, fit
from training.optimizer import make_optimizer, parameter_groups
from training.precision import resolve
from training.recipe import Recipe, learning_rate

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=4, lr=0.05, nesterov=True, batch_size=16, precision="float32")


class Images:
    """Two classes of noisy 3x8x8 images that can be told apart by their mean."""

    task = Task(kind="image-classification", input_shape=(3, 8, 8), outputs=2)

    def __init__(self, batch_size: int = 16) -> None:
        generator = torch.Generator().manual_seed(0)
        self.batch_size = batch_size
        self.target = torch.arange(80) % 2
        self.images = torch.randn(80, 3, 8, 8, generator=generator) + self.target[:, None, None, None]
        self.parts = {"train": torch.arange(48), "valid": torch.arange(48, 64), "test": torch.arange(64, 80)}

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        order = self.parts[part]
        if part == "train":
            generator = torch.Generator().manual_seed(derive(seed, epoch, part))
            order = order[torch.randperm(len(order), generator=generator)]
        for rows in order.split(self.batch_size):
            yield Batch((self.images[rows],), self.target[rows])

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return functional.cross_entropy(output, batch.target)

    def metrics(self, output: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {
            "accuracy": (output.argmax(1) == batch.target).sum(),
            "loss": functional.cross_entropy(output, batch.target, reduction="sum"),
            "count": torch.tensor(len(batch.target)),
        }


class Graph(Images):
    """A full-batch task: one batch per part with another index."""

    task = Task(kind="node-classification", input_shape=(4,), outputs=2, nodes=20, edges=40)

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
        index = {"train": torch.arange(8), "valid": torch.arange(8, 14), "test": torch.arange(14, 20)}[part]
        yield Batch((x, torch.zeros(2, 40, dtype=torch.long)), (x[:, 0] > 0).long(), index)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return super().loss(output[batch.index], Batch((), batch.target[batch.index]))

    def metrics(self, output: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return super().metrics(output[batch.index], Batch((), batch.target[batch.index]))


def network(dropout: float = 0.5) -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(32, 2),
    )


class OnGraph(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        return out


def run(model: nn.Module, recipe: Recipe = RECIPE, data: Any = None, **options: Any) -> list[Report]:
    return list(fit(model, data or Images(recipe.batch_size), recipe, device=CPU, seed=11, **options))


def learned(reports: list[Report]) -> list[tuple[float, Mapping[str, float]]]:
    return [(report.step, report.metrics) for report in reports]


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_report_per_epoch_with_means_of_the_right_parts() -> None:
    model = network()
    reports = run(model)
    assert [report.step for report in reports] == [1, 2, 3, 4]
    assert [report.seconds for report in reports] == sorted(report.seconds for report in reports)
    assert reports[-1].metrics.keys() == {"train_loss", "val_loss", "val_accuracy", "micro_batch"}
    assert reports[-1].metrics["train_loss"] < reports[0].metrics["train_loss"]
    data = Images()
    model.eval()
    with torch.no_grad():
        output = model(data.images[48:64])
    loss = functional.cross_entropy(output, data.target[48:64])
    assert reports[-1].metrics["val_loss"] == pytest.approx(float(loss), rel=1e-5)
    assert reports[-1].metrics["val_accuracy"] == (output.argmax(1) == data.target[48:64]).float().mean()
    assert reports[-1].metrics["val_accuracy"] > 0.9


def test_one_epoch_is_plain_sgd() -> None:
    """The same weights as a loop written out, so that nothing of the machinery changes the mathematics."""
    recipe = RECIPE.model_copy(update={"epochs": 1, "grad_clip": 0.1})
    model, plain, data = network(0.0), network(0.0), Images()
    reports = run(model, recipe)
    optimiser = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    total = 0.0
    for batch in data.batches("train", 0, 11):
        loss = data.loss(plain(*batch.inputs), batch)
        total += loss.item() * len(batch.target)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
        optimiser.step()
    assert reports[0].metrics["train_loss"] == pytest.approx(total / 48, rel=1e-5)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_test_is_reported_once_at_the_end() -> None:
    reports = run(network(), test=True)
    assert ["test_accuracy" in report.metrics for report in reports] == [False, False, False, True]
    assert not any("test_accuracy" in report.metrics for report in run(network(), test=True, budget=3))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_killed_training_continues_bit_for_bit(tmp_path: Path, optimizer: str, stop_after: int) -> None:
    recipe = RECIPE.model_copy(update={"optimizer": optimizer, "nesterov": False, "lr": 0.01})
    whole = network()
    wanted = run(whole, recipe, test=True)

    killed = fit(network(), Images(), recipe, device=CPU, seed=11, folder=tmp_path, checkpoint_seconds=0, test=True)
    for _ in range(stop_after):
        next(killed)
    killed.close()  # type: ignore[attr-defined]
    torch.manual_seed(99)  # the generators of the second process are in another state
    resumed = network()
    reports = run(resumed, recipe, folder=tmp_path, test=True)
    assert learned(reports) == learned(wanted)
    assert same_weights(resumed, whole)
    assert [report.seconds for report in reports] == sorted(report.seconds for report in reports)


def test_a_stop_is_checkpointed_before_its_report(tmp_path: Path) -> None:
    whole = network()
    wanted = run(whole)
    stopped = fit(network(), Images(), RECIPE, device=CPU, seed=11, folder=tmp_path, stopping=lambda: True)
    next(stopped)
    assert (tmp_path / "checkpoint-000001.json").exists()
    resumed = network()
    assert learned(run(resumed, folder=tmp_path)) == learned(wanted)
    assert same_weights(resumed, whole)


def test_a_short_training_leaves_nothing_behind(tmp_path: Path) -> None:
    run(network(), folder=tmp_path, checkpoint_seconds=60)
    assert not list(tmp_path.iterdir())


def test_a_stop_after_the_report_is_checkpointed_too(tmp_path: Path) -> None:
    stop: list[bool] = []
    options: dict[str, Any] = {"device": CPU, "seed": 11, "folder": tmp_path, "checkpoint_seconds": 1e9}
    begun = fit(network(), Images(), RECIPE, **options, stopping=lambda: bool(stop))
    next(begun)
    begun.close()
    assert list(tmp_path.iterdir()) == []  # nobody asked for a stop: what is thrown away is not written
    begun = fit(network(), Images(), RECIPE, **options, stopping=lambda: bool(stop))
    next(begun), next(begun)
    stop.append(True)
    begun.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-000002.json",
        "checkpoint-000002.safetensors",
    ]
    resumed = network()
    reports = list(fit(resumed, Images(), RECIPE, **options))
    whole = network()
    assert learned(reports) == learned(run(whole))
    assert same_weights(resumed, whole)


def test_a_larger_budget_continues_a_smaller_one(tmp_path: Path) -> None:
    whole = network()
    wanted = run(whole)
    first = run(network(), budget=2, folder=tmp_path)
    assert learned(first) == learned(wanted)[:2]  # the schedule has its horizon at the full training
    second = network()
    assert learned(run(second, budget=4, folder=tmp_path)) == learned(wanted)
    assert same_weights(second, whole)


def test_the_learning_rate_follows_the_recipe() -> None:
    training = Training(network(), Images(), RECIPE, CPU, 11, None)
    rates = []
    for epoch in range(4):
        training.epoch(epoch)
        rates.append(training.optimizer.param_groups[0]["lr"])
    assert rates == [learning_rate(RECIPE, epoch) for epoch in range(4)]


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    run(network(), budget=2, folder=tmp_path)
    with pytest.raises(UsageError, match="belongs to another training: recipe is"):
        run(network(), RECIPE.model_copy(update={"lr": 0.2}), folder=tmp_path)
    with pytest.raises(UsageError, match="belongs to another training: recipe is"):
        run(network(), RECIPE.model_copy(update={"precision": "bf16"}), folder=tmp_path)
    with pytest.raises(UsageError, match="seed is 11 there and 12 here"):
        list(fit(network(), Images(), RECIPE, device=CPU, seed=12, folder=tmp_path))
    with pytest.raises(UsageError, match="at epoch 2, beyond the budget 1"):
        run(network(), budget=1, folder=tmp_path)
    with pytest.raises(UsageError, match="budget 5 is not within"):
        run(network(), budget=5)


def test_the_callers_generator_is_left_alone() -> None:
    model = network()
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    run(model)
    assert torch.equal(torch.rand(3), wanted)


def test_graphs_train_in_one_batch() -> None:
    recipe = Recipe(epochs=30, optimizer="adam", lr=0.05)
    reports = run(OnGraph(), recipe, Graph())
    assert reports[-1].metrics.keys() == {"train_loss", "val_loss", "val_accuracy"}
    assert reports[-1].metrics["train_loss"] < 0.5 * reports[0].metrics["train_loss"]


def test_auto_precision_continues_as_what_it_came_to(tmp_path: Path) -> None:
    auto = RECIPE.model_copy(update={"precision": "auto"})
    run(network(), auto, budget=2, folder=tmp_path)
    resolved = auto.model_copy(update={"precision": resolve("auto", CPU, "image-classification")})
    assert len(run(network(), resolved, folder=tmp_path)) == 4


def test_precision_is_chosen_by_processor_and_task(monkeypatch: pytest.MonkeyPatch) -> None:
    images, graphs = "image-classification", "node-classification"
    assert resolve("bf16", CPU, graphs) == "bf16"
    for capable, chosen in ((True, "bf16"), (False, "float32")):
        monkeypatch.setattr("training.precision.multiplies_bf16", lambda device, capable=capable: capable)
        assert resolve("auto", CPU, images) == chosen
        assert resolve("auto", CPU, graphs) == resolve("float32", CPU, images) == "float32"


def test_bf16_learns_what_float32_learns() -> None:
    exact = run(network(0.0))[-1].metrics
    rough = run(network(0.0), RECIPE.model_copy(update={"precision": "bf16"}))[-1].metrics
    assert rough["val_loss"] == pytest.approx(exact["val_loss"], abs=0.05)
    assert rough["val_loss"] != exact["val_loss"]


class Failing(nn.Module):
    """A network whose forward pass goes through `fail(batch size)` first."""

    def __init__(self, fail: Callable[[int], None]) -> None:
        super().__init__()
        self.network = network(0.0)
        self.fail = fail
        self.sizes: list[int] = []

    def forward(self, x: Tensor, *_: Tensor) -> Tensor:
        self.fail(len(x))
        self.sizes.append(len(x))
        out: Tensor = self.network(x)
        return out


def failure(model: nn.Module, recipe: Recipe = RECIPE, **options: Any) -> TrialError:
    with pytest.raises(TrialError) as info:
        run(model, recipe, **options)
    return info.value


def test_a_loss_that_is_not_finite_ends_the_trial() -> None:
    class Endless(Images):
        def loss(self, output: Tensor, batch: Batch) -> Tensor:
            return super().loss(output, batch) + float("inf")

    error = failure(network(), data=Endless())
    assert (error.reason, str(error)) == ("nan-loss", "nan-loss: train_loss is inf in epoch 1")
    broken = network()
    broken.register_forward_hook(lambda module, _, output: output if module.training else output * float("nan"))
    assert "val_loss is nan in epoch 1" in str(failure(broken))


def test_an_exception_in_the_network_ends_the_trial_with_its_words() -> None:
    def fail(size: int) -> None:
        raise KeyError("no such layer\nsecond line")

    error = failure(Failing(fail))
    assert error.reason == "exception"
    assert str(error).startswith("exception: KeyError: ")
    assert "\n" not in str(error)
    assert failure(nn.Sequential(nn.Flatten(), nn.Linear(5, 2))).reason == "exception"
    assert failure(nn.Flatten()).reason == "exception"  # nothing to train


def test_the_deadline_ends_the_trial() -> None:
    assert failure(network(), deadline=time.monotonic() - 1).reason == "time-limit"
    reports = fit(network(), Images(), RECIPE, device=CPU, seed=11, deadline=time.monotonic() + 60)
    assert next(reports).step == 1


def limit(most: int, error: type[Exception], message: str) -> Callable[[int], None]:
    def fail(size: int) -> None:
        if size > most:
            raise error(message)

    return fail


ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
)


@pytest.mark.parametrize(
    ("error", "message"),
    [(torch.OutOfMemoryError, "CUDA out of memory"), (RuntimeError, ALLOCATOR), (MemoryError, "")],
)
def test_a_batch_that_does_not_fit_is_cut(error: type[Exception], message: str, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"batch_size": 48, "epochs": 2})
    model = Failing(limit(20, error, message))
    reports = run(model, recipe, budget=1, folder=tmp_path)
    assert max(model.sizes) == 12
    assert reports[-1].metrics["micro_batch"] == 12
    resumed = Failing(limit(20, error, message))
    assert run(resumed, recipe, folder=tmp_path)[-1].metrics["micro_batch"] == 12


def test_micro_batches_accumulate_the_gradient_of_the_whole_batch() -> None:
    recipe = RECIPE.model_copy(update={"batch_size": 48, "epochs": 1})

    def linear() -> nn.Module:
        torch.manual_seed(7)
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 2))

    whole, cut = linear(), Failing(limit(20, torch.OutOfMemoryError, ""))
    cut.network = linear()
    one, other = run(whole, recipe), run(cut, recipe)
    assert 12 in cut.sizes
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(cut.network.state_dict()[name], value)
    assert other[0].metrics["train_loss"] == pytest.approx(one[0].metrics["train_loss"], rel=1e-6)


def test_memory_that_is_never_enough_ends_the_trial() -> None:
    model = Failing(limit(SMALLEST_MICRO_BATCH - 1, torch.OutOfMemoryError, "CUDA out of memory"))
    assert failure(model).reason == "out-of-memory"
    whole_graph = Failing(limit(1, torch.OutOfMemoryError, ""))
    assert failure(whole_graph, data=Graph()).reason == "out-of-memory"


def test_networks_without_convolutions_see_the_default_layout() -> None:
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(192, 2)

        def forward(self, x: Tensor) -> Tensor:
            assert x.is_contiguous()
            out: Tensor = self.linear(x.view(len(x), -1))
            return out

    class ChannelsLast(Images):
        def __init__(self) -> None:
            super().__init__()
            self.images = self.images.contiguous(memory_format=torch.channels_last)

    assert run(Viewing(), data=ChannelsLast())[-1].step == 4


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_optimisers_take_their_settings_from_the_recipe(optimizer: str) -> None:
    recipe = Recipe.model_validate({"epochs": 1, "optimizer": optimizer, "momentum": 0.8, "weight_decay": 0.01})
    made = make_optimizer(recipe, parameter_groups(network()), CPU)
    group = made.param_groups[0]
    assert type(made).__name__.lower() == optimizer
    assert group["weight_decay"] == 0.01
    assert group["momentum"] == 0.8 if optimizer == "sgd" else group["betas"] == (0.8, 0.999)
