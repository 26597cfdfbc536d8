"""What a module may bring beside its answer, and who reads it (`nas_core.traits`)."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.architecture import Architecture
from nas_core.batch import Batch
from nas_core.config import SizeConfig
from nas_core.evaluation import Context, Metric, Objective, parse_objective
from nas_core.strategy import Proposal
from nas_core.task import Task
from nas_core.traits import Extra, HasAuxiliary, HasMacs, HasNoDecay, HasSignature, Progressive, deployed_parameters
from predictors.forward_pass import ForwardPass
from search_spaces.layers.drop_path import DropPath
from training.compute import Extras
from training.cost import macs, params
from training.data import load
from training.data.split import Split
from training.evaluators.train import Train
from training.fit import Training, fit
from training.optimizer import parameter_groups
from training.recipe import Recipe, recipe
from training.start import Start
from training.testing.toy_space import ToySpace

CPU = torch.device("cpu")
RECIPE = Recipe(
    epochs=1, lr=0.1, momentum=0.0, weight_decay=0.5, batch_size=8, schedule="constant", precision="float32"
)


class Rows:
    """24 rows of three numbers, two classes, batches of 8."""

    task = Task(kind="tabular-classification", input_shape=(3,), outputs=2)

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        rows = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
        for chosen in rows.split(8):
            yield Batch((chosen,), (chosen[:, 0] > 0).long())

    def targets(self, part: str) -> Tensor:
        return torch.cat([batch.target for batch in self.batches(part, 0, 0)])

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return functional.cross_entropy(output, batch.target)

    def metrics(self, output: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        losses = functional.cross_entropy(output, batch.target, reduction="sum")
        return {"loss": losses, "count": torch.tensor(len(batch.target))}


class Router(nn.Module):
    """A linear map that wants its outputs to be small, and says how large they are. `fails`: after what pass."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.linear = nn.Linear(3, 2)
        self.held: list[Tensor] = []
        self.fails = 0

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        if self.training:
            self.held.append(out.square().mean())
        if self.fails:
            self.fails -= 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return out

    def take(self) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        held, self.held = self.held, []
        if not held:
            return {}, {}
        assert len(held) == 1, "a pass that came to no end was kept"
        return {"size": 0.5 * held[0]}, {"seen": torch.tensor(4.0)}


def training(model: nn.Module) -> Training:
    return Training(model, Rows(), RECIPE, CPU, 1, None)


def test_terms_are_minimised_with_the_loss() -> None:
    model, plain = Router(), Router().linear
    batch = next(Rows().batches("train", 0, 1))
    training(model).gradients([batch])
    out = plain(*batch.inputs)
    (functional.cross_entropy(out, batch.target) + 0.5 * out.square().mean()).backward()
    torch.testing.assert_close(model.linear.weight.grad, plain.weight.grad)


def test_terms_of_several_modules_are_added_and_what_is_reported_is_their_mean() -> None:
    model = nn.ModuleList([Router(), Router()])
    extras, rows = Extras(model), torch.ones(4, 3)
    assert extras.take() == (None, {})
    sizes = [module(rows * number).square().mean() for number, module in enumerate(model, start=1)]
    loss, found = extras.take()
    assert loss is not None
    torch.testing.assert_close(loss, 0.5 * (sizes[0] + sizes[1]))
    torch.testing.assert_close(found["size"], 0.25 * (sizes[0] + sizes[1]).detach())
    assert float(found["seen"]) == 4.0
    assert "size_max" not in found  # a term
    assert not found["size"].requires_grad
    assert extras.take() == (None, {})


def test_of_statistics_the_largest_is_reported_too() -> None:
    class Seeing(nn.Module):
        def __init__(self, seen: float) -> None:
            super().__init__()
            self.seen = seen

        def take(self) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
            return {}, {"seen": torch.tensor(self.seen)}

    loss, found = Extras(nn.ModuleList([Seeing(1.0), Seeing(4.0)])).take()
    assert loss is None
    assert {name: float(value) for name, value in found.items()} == {"seen": 2.5, "seen_max": 4.0}


def test_pieces_are_weighted_by_their_samples() -> None:
    def gradient(pieces: Callable[[Batch], list[Batch]]) -> tuple[Tensor, Tensor]:
        made = training(Router())
        _, statistics, _ = made.gradients(pieces(next(Rows().batches("train", 0, 1))))
        assert isinstance(made.model, Router)
        assert made.model.linear.weight.grad is not None
        return made.model.linear.weight.grad, statistics["size"]

    whole, size = gradient(lambda batch: [batch])
    cut, sizes = gradient(lambda batch: [batch.part(0, 6), batch.part(6, 8)])
    torch.testing.assert_close(whole, cut)
    torch.testing.assert_close(size, sizes)


def test_means_over_the_samples_are_reported() -> None:
    model = Router()
    model.requires_grad_(False)
    model.extra = nn.Parameter(torch.zeros(1))  # something for the optimiser
    expected = torch.cat([0.5 * model.linear(*batch.inputs).square() for batch in Rows().batches("train", 0, 1)]).mean()
    model.linear.bias.requires_grad_()
    (report,) = fit(model, Rows(), RECIPE.model_copy(update={"lr": 1e-12}), device=CPU, seed=1)
    assert report.metrics["train_size"] == pytest.approx(float(expected), rel=1e-5)
    assert report.metrics["train_seen"] == 4.0
    assert {"train_loss", "val_loss"} <= report.metrics.keys()


def test_a_network_can_be_copied_after_a_step() -> None:
    model = Router()
    training(model).update(next(Rows().batches("train", 0, 1)))
    copy.deepcopy(model)
    assert model.held == []


def test_a_proxy_sees_the_answer_alone() -> None:
    batch = next(Rows().batches("train", 0, 1))
    forward = ForwardPass(Router, batch, lambda output, one: functional.cross_entropy(output, one.target), Rows.task)
    loss = functional.cross_entropy(Router()(*batch.inputs), batch.target)
    torch.testing.assert_close(forward.loss(forward.run(forward.model), batch), loss)
    copied = forward.copy()
    forward.run(copied)
    assert [model.held for model in (forward.model, copied)] == [[], []]


def test_what_a_pass_without_an_end_left_is_dropped() -> None:
    class Large(Rows):
        def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
            (rows,) = (torch.cat([batch.inputs[0] for batch in super().batches(part, epoch, seed)]),)
            yield Batch((rows,), (rows[:, 0] > 0).long())

    model = Router()
    model.fails = 1
    made = Training(model, Large(), RECIPE.model_copy(update={"batch_size": 24}), CPU, 1, None)
    made.update(next(made.batches(0)))
    assert made.micro_batch == 12


def test_weight_decay_spares_what_asks_for_it() -> None:
    class Free(nn.Linear):
        def no_decay(self) -> list[nn.Parameter]:
            return [self.weight]

    torch.manual_seed(0)
    free, held = Free(3, 2), nn.Linear(3, 2)
    model = nn.Sequential(held, nn.Linear(2, 3), free)
    first, second = parameter_groups(model)
    assert [id(one) for one in second["params"]] == [id(free.weight)]
    assert len(first["params"]) == 5
    assert [len(group["params"]) for group in parameter_groups(model, decay_all=False)] == [2, 4]
    before = free.weight.detach().clone(), held.weight.detach().clone()
    made = training(model)
    made.optimizer.zero_grad()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made.set_rate(0.1)
    made.optimizer.step()
    assert torch.equal(free.weight, before[0])
    torch.testing.assert_close(held.weight.detach(), (1 - 0.1 * 0.5) * before[1])


def test_an_auxiliary_head_is_not_deployed() -> None:
    class Headed(nn.Module):
        auxiliary_weight = 0.4

        def __init__(self) -> None:
            super().__init__()
            self.linear, self.auxiliary = nn.Linear(3, 2), nn.Linear(3, 2)

    assert [name for name, _ in deployed_parameters(Headed())] == ["linear.weight", "linear.bias"]
    assert params(Headed()) == 8
    assert params(nn.ModuleDict({"auxiliary": nn.Linear(3, 2)})) == 8  # no weight: an ordinary module of that name


def test_multiplications_that_the_counter_does_not_see_are_counted() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) * x.sum()

        def uncounted_macs(self, x: Tensor) -> int:
            return 2 * len(x)

    assert macs(nn.Sequential(Scaled()), (torch.zeros(4, 3),)) == 4 * 6 + 8


def test_weights_that_are_never_taken(tmp_path: Path) -> None:
    class Fresh(nn.Linear):
        def signature(self) -> None:
            return None

    class Known(nn.Linear):
        def signature(self) -> str:
            return "linear"

    path = tmp_path / "w.safetensors"
    given = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    safetensors.torch.save_file(given.state_dict(), path)
    model = nn.Sequential(nn.Linear(2, 2), Fresh(2, 2), Known(2, 2))
    taken = Start(path, "w", hashlib.sha256(path.read_bytes()).hexdigest()).take(model)
    assert taken.fresh == ("1.weight", "1.bias")
    assert torch.equal(model[0].weight, given[0].weight)
    assert torch.equal(model[2].weight, given[2].weight)


@pytest.mark.parametrize("trait", [Progressive, HasAuxiliary, Extra, HasNoDecay, HasMacs, HasSignature])
def test_an_ordinary_module_has_none(trait: type) -> None:
    ordinary = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.MultiheadAttention(4, 2), nn.LSTM(2, 2))
    assert not any(isinstance(module, trait) for module in ordinary.modules())
    assert isinstance(DropPath(0.1), Progressive)


def test_what_modules_hand_over_can_be_searched_for(tmp_path: Path) -> None:
    class Routed(ToySpace):
        def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
            return nn.Sequential(nn.Flatten(), nn.Linear(64, 3), Wide())

        def reports(self, task: Task) -> tuple[Metric, ...]:
            return (Metric("train_size", "min"),)

    class Wide(Router):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 10)

    space = Routed(("image-classification",))
    source = load("digits", Split(limit=60))
    evaluator = Train(space, source, space.Size(), recipe("quick", source.task, epochs=1), device="cpu")
    assert Metric("train_size", "min") in evaluator.metrics
    (report,) = evaluator.evaluate(Proposal(Architecture("toy", {"width": 8})), None, Context(0, tmp_path))
    assert report.metrics["train_size"] > 0
    assert "train_seen" not in report.metrics  # which the space does not report
    assert parse_objective("train_size", evaluator.metrics) == Objective("train_size", "min")
