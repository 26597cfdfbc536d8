"""What a training does beyond the ordinary step: distillation, the orthonormality regulariser, how they are kept."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.batch import Batch
from nas_core.errors import UsageError
from nas_core.seeds import derive
from nas_core.task import Task
from tests.small_data import Classes, Images
from training.fit import Training, fit
from training.recipe import Recipe
from training.regimes.orthonormality import deviation, regularised
from training.regimes.regime import Regime
from training.tasks import find
from training.teacher import Teacher

CPU = torch.device("cpu")
CLASSES = find("image-classification")


class Graph(Classes):
    """One batch: a graph of 20 nodes, 8 of which are answered."""

    task = Task(kind="node-classification", input_shape=(4,), outputs=2, nodes=20, edges=40)

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
        yield Batch((x, torch.zeros(2, 40, dtype=torch.long)), (x[:, 0] > 0).long(), torch.arange(3, 11))


def network(seed: int = 0, width: int = 4, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(seed)
    body = [nn.Conv2d(3, width, 3, padding=1, bias=bias), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(width, 2))


class OnGraph(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        return out


def teacher(made: nn.Module, data: Any = None) -> Teacher:
    """A network as a teacher, a fresh copy for every training; its hash is that of its weights."""
    digest = hashlib.sha256(b"".join(one.numpy().tobytes() for one in made.state_dict().values())).hexdigest()
    return Teacher("given", digest, (data or Images()).task, None, lambda: copy.deepcopy(made))


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate(
        {"epochs": 2, "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "batch_size": 16, "schedule": "constant"}
        | {"precision": "float32"}
        | changes
    )


def trained(model: nn.Module, data: Any = None, **changes: Any) -> nn.Module:
    by = changes.pop("teacher", None)
    list(fit(model, data or Images(), recipe(**changes), device=CPU, seed=1, teacher=by))
    return model


def same(one: nn.Module, other: nn.Module, tolerance: float = 0.0) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.allclose(a.float(), b.float(), rtol=0, atol=tolerance) for a, b in pairs)


# -- distillation -----------------------------------------------------------------------------------------------------


def test_the_divergence_is_that_of_softened_probabilities() -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    taught = torch.randn(5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    p, q = (taught / 3).softmax(1), (logits / 3).softmax(1)
    expected = 9 * (p * (p.log() - q.log())).sum(1).mean()
    assert float(CLASSES.divergence(logits, taught, 3.0)) == pytest.approx(float(expected), rel=1e-5)


def test_a_student_that_is_its_teacher_has_nothing_to_learn_of_it() -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = CLASSES.divergence(logits, logits.detach(), 4.0)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert abs(loss.item()) < 1e-6
    assert float(gradient.abs().max()) < 1e-6


def test_the_temperature_leaves_the_size_of_the_gradient() -> None:
    taught = torch.randn(64, 10, generator=torch.Generator().manual_seed(1))
    norms = []
    for temperature in (1.0, 8.0):
        logits = torch.randn(64, 10, generator=torch.Generator().manual_seed(0)).requires_grad_()
        (gradient,) = torch.autograd.grad(CLASSES.divergence(logits, taught, temperature), logits)
        norms.append(float(gradient.norm()))
    assert 0.5 < norms[1] / norms[0] < 2


def test_numbers_are_taught_by_their_squared_error() -> None:
    outputs, taught = torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [0.0]])
    assert float(find("tabular-regression").divergence(outputs, taught, 4.0)) == pytest.approx((1 + 9) / 4)


@pytest.mark.parametrize("features", [0.0, 0.7])
def test_a_training_is_that_of_plain_steps(features: float) -> None:
    """Two epochs by the loop beside the equations of the papers, written out."""
    student, plain, taught = network(1), network(1), network(2, width=6)
    trained(student, teacher=teacher(taught), distillation={"alpha": 0.6, "temperature": 2.0, "features": features})

    taught.eval()
    torch.manual_seed(derive(1, "regressor"))
    regressor = nn.Linear(4, 6)
    parameters = [*plain.parameters(), *(regressor.parameters() if features else ())]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    for _ in range(2):
        plain.train()
        for batch in Images().batches("train", 0, 1):
            (x,) = batch.inputs
            with torch.no_grad():
                hint = taught[:5](x)
                soft = (taught[5](hint) / 2).softmax(1)
            guided = plain[:5](x)
            logits = plain[5](guided)
            divergence = (soft * (soft.log() - (logits / 2).log_softmax(1))).sum(1).mean()
            loss = 0.4 * functional.cross_entropy(logits, batch.target) + 0.6 * 4 * divergence
            if features:
                loss = loss + features / 2 * (regressor(guided) - hint).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert same(student, plain, 1e-5)


def test_the_teacher_learns_nothing_and_leaves_nothing_in_the_student() -> None:
    taught, student = network(2), network(1)
    before = copy.deepcopy(taught)
    given = replace(teacher(taught), load=lambda: taught)
    trained(student, teacher=given, distillation={"features": 1.0})
    assert same(taught, before)
    assert student.state_dict().keys() == network(1).state_dict().keys()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in student.modules())
    copy.deepcopy(student)


@pytest.mark.parametrize("names", [{"hint": "2", "guided": "2"}, {"hint": "0", "guided": "3"}])
def test_maps_are_matched_by_a_convolution_of_each_position(names: dict[str, str]) -> None:
    taught = teacher(network(2, width=6))
    with_it = trained(network(1), teacher=taught, distillation={"features": 5.0, **names})
    without = trained(network(1), teacher=taught, distillation={"features": 0.0})
    assert not same(with_it, without, 1e-4)


def test_of_a_graph_only_the_answered_nodes_teach() -> None:
    taught, data = teacher(OnGraph(2), Graph()), Graph()
    student, plain = OnGraph(1), OnGraph(1)
    settings = {"alpha": 1.0, "temperature": 1.0, "features": 3.0, "hint": "linear", "guided": "linear"}
    trained(student, data, teacher=taught, distillation=settings, epochs=1)
    (batch,) = data.batches("train", 0, 1)
    x, index = batch.inputs[0], batch.index
    hint = OnGraph(2)(*batch.inputs)[index].detach()
    soft = hint.softmax(1)
    torch.manual_seed(derive(1, "regressor"))
    regressor = nn.Linear(2, 2)
    guided = plain.linear(x)[index]
    loss = (soft * (soft.log() - guided.log_softmax(1))).sum(1).mean()
    (loss + 1.5 * (regressor(guided) - hint).square().mean()).backward()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter -= 0.1 * parameter.grad
    assert same(student, plain, 1e-6)


def test_pieces_of_a_batch_give_its_gradient() -> None:
    def gradients(pieces: int) -> list[Tensor]:
        model = network(1)
        model[1] = nn.Identity()  # batch normalisation sees each piece apart
        training = Training(
            model, Images(), recipe(distillation={"features": 1.0}), CPU, 1, None, teacher=teacher(network(2))
        )
        batch = next(training.batches(0))
        size = batch.samples // pieces
        training.gradients([batch.part(start, start + size) for start in range(0, batch.samples, size)])
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    for whole, cut in zip(gradients(1), gradients(4), strict=True):
        torch.testing.assert_close(whole, cut, rtol=1e-4, atol=1e-6)


def test_a_killed_training_continues_bit_for_bit(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"distillation": {"features": 1.0}, "epochs": 3, "momentum": 0.9}
    taught = teacher(network(2, width=6))
    through = trained(network(1), teacher=taught, **changes)
    options: dict[str, Any] = {"device": CPU, "seed": 1, "folder": tmp_path, "checkpoint_seconds": 0, "teacher": taught}
    killed = fit(network(1), Images(), recipe(**changes), **options)
    next(killed)
    killed.close()
    resumed = network(5)
    list(fit(resumed, Images(), recipe(**changes), **options))
    assert same(resumed, through)
    other = fit(network(1), Images(), recipe(**changes), **{**options, "teacher": teacher(network(3, width=6))})
    with pytest.raises(UsageError, match="teacher is"):
        next(other)


def test_what_does_not_fit_is_said() -> None:
    task = Images().task
    with pytest.raises(UsageError, match="needs a teacher"):
        trained(network(1), distillation={})
    with pytest.raises(UsageError, match="has no module 'fou'"):
        trained(network(1), teacher=teacher(network(2)), distillation={"features": 1.0, "guided": "fou"})
    with pytest.raises(UsageError, match="both be maps"):
        trained(network(1), teacher=teacher(network(2)), distillation={"features": 1.0, "hint": "2"})
    with pytest.raises(ValueError, match="hint is for features, whose weight is 0"):
        recipe(distillation={"hint": "2"})
    headless = nn.Sequential(nn.Conv2d(3, 2, 4), nn.Flatten())
    with pytest.raises(UsageError, match="no linear classifier"):
        trained(headless, teacher=teacher(network(2)), distillation={"features": 1.0})
    given = teacher(network(2))
    given.check(task, None)
    for other, words in (
        (task.model_copy(update={"outputs": 3}), "gives outputs 2, the data are 3"),
        (Graph.task, "is for image-classification"),
        (Task(kind="image-classification", input_shape=(1, 4, 4), outputs=2), "reads inputs 3 x 4 x 4"),
    ):
        with pytest.raises(UsageError, match=words):
            given.check(other, None)


# -- orthonormality ---------------------------------------------------------------------------------------------------


def test_orthonormal_filters_deviate_by_nothing() -> None:
    layer = nn.Conv2d(3, 8, 3)
    nn.init.orthogonal_(layer.weight)
    assert deviation(layer).item() < 1e-9
    with torch.no_grad():
        layer.weight *= 2  # each of the 8 squared norms is 4
    assert float(deviation(layer)) == pytest.approx(8 * 9, rel=1e-4)


def test_the_deviation_is_that_of_the_gram_matrix() -> None:
    conv, wide, grouped = nn.Conv2d(3, 4, 3), nn.Linear(2, 5), nn.Conv2d(4, 4, 1, groups=2)
    rows = conv.weight.flatten(1)
    assert float(deviation(conv)) == pytest.approx(float((rows @ rows.T - torch.eye(4)).square().sum()), rel=1e-5)
    columns = wide.weight.T
    expected = float((columns @ columns.T - torch.eye(2)).square().sum())
    assert float(deviation(wide)) == pytest.approx(expected, rel=1e-5)
    halves = grouped.weight.flatten(1).split(2)
    expected = sum(float((half @ half.T - torch.eye(2)).square().sum()) for half in halves)
    assert float(deviation(grouped)) == pytest.approx(expected, rel=1e-5)


def test_a_step_adds_the_gradient_of_the_term() -> None:
    plain, regular = network(1, bias=False), network(1, bias=False)
    weight = plain[0].weight.detach().clone().requires_grad_()
    rows = weight.flatten(1)
    (gradient,) = torch.autograd.grad(0.3 / 2 * (rows @ rows.T - torch.eye(4)).square().sum(), weight)
    batch = next(Images().batches("train", 0, 1))
    for model, chosen in ((plain, recipe()), (regular, recipe(orthonormality={"weight": 0.3}))):
        Training(model, Images(), chosen, CPU, 1, None).update(batch)
    torch.testing.assert_close(plain[0].weight - regular[0].weight, 0.1 * gradient, rtol=1e-3, atol=1e-6)
    assert torch.equal(plain[5].weight, regular[5].weight)  # the last linear map is left alone
    assert list(regularised(plain)) == [plain[0]]


def test_it_makes_filters_orthonormal() -> None:
    free, held = trained(network(1), epochs=20), trained(network(1), epochs=20, orthonormality={"weight": 1.0})
    assert float(deviation(held[0])) < 0.05 < float(deviation(free[0]))


# -- several at once --------------------------------------------------------------------------------------------------


class Recorded(Regime):
    """Writes down what the loop does; what it minimises is `factor` times the loss."""

    def __init__(self, factor: float) -> None:
        self.calls: list[Any] = []
        self.factor = factor
        self.state = torch.zeros(1)

    def begin(self, network: nn.Module, forward: Any, example: Batch, seed: int) -> None:
        self.calls.append(("begin", example.samples, seed))

    def before_step(self, step: int, steps: int) -> None:
        self.calls.append(("before", step, steps))

    @contextmanager
    def watching(self) -> Iterator[None]:
        self.calls.append("in")
        yield
        self.calls.append("out")

    def objective(self, loss: Tensor, piece: Batch, logits: Tensor) -> Tensor:
        self.calls.append("objective")
        return self.factor * loss

    def after_step(self) -> None:
        self.calls.append("after")
        self.state += 1

    def tensors(self) -> Mapping[str, Tensor]:
        return {"state": self.state}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.state = tensors["state"]


def test_the_loop_calls_a_regime_at_every_step(tmp_path: Path) -> None:
    first, second = Recorded(2.0), Recorded(0.5)
    whole, plain = network(1), network(1)
    options: dict[str, Any] = {"device": CPU, "seed": 1}
    list(fit(whole, Images(), recipe(), **options, regimes=[first, second]))
    expected: list[Any] = [("begin", 16, 1)]
    for step in range(6):
        expected += [("before", step, 6), "in", "out", "objective", "after"]
    assert first.calls == second.calls == expected
    assert same(trained(plain), whole)  # 2 times 0.5

    options |= {"folder": tmp_path, "checkpoint_seconds": 0}
    begun = fit(network(1), Images(), recipe(), **options, regimes=[Recorded(1.0), Recorded(1.0)])
    next(begun)
    begun.close()
    resumed = [Recorded(1.0), Recorded(1.0)]
    list(fit(network(5), Images(), recipe(), **options, regimes=resumed))
    assert [float(each.state) for each in resumed] == [6, 6]


class Probing(Regime):
    """Asks for gradients ahead of every step."""

    def begin(self, network: nn.Module, forward: Any, example: Batch, seed: int) -> None:
        self.network, self.found = network, list[Tensor]()

    def before_gradients(self, gradients: Callable[[], object]) -> None:
        self.network.own = nn.Parameter(torch.ones(()))
        for _ in range(2):
            gradients()
        self.found.append(self.network.own.grad)
        self.network.own = None

    def objective(self, loss: Tensor, piece: Batch, logits: Tensor) -> Tensor:
        own = self.network.own
        return loss if own is None else loss + own


class Noisy(nn.Sequential):
    """A network with dropout, statistics, a further term of the loss and a parameter that comes and goes."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 2))
        self.register_parameter("own", None)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(x)
        self.seen += [out.square().mean()] if self.training else []
        return out

    def take(self) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        seen, self.seen = self.seen, []
        return ({"size": seen[-1]} if seen else {}), {}


def test_gradients_ahead_of_a_step_leave_no_trace() -> None:
    options: dict[str, Any] = {"device": CPU, "seed": 1}
    probing, plain, probed = Probing(), Noisy(), Noisy()
    before = [report.metrics for report in fit(plain, Images(), recipe(), **options)]
    assert [report.metrics for report in fit(probed, Images(), recipe(), **options, regimes=[probing])] == before
    assert "train_size" in before[0]
    assert same(plain, probed)
    assert probing.found == [1.0] * 6  # of the last pass alone


def test_gradients_ahead_of_a_step_come_in_the_pieces_that_memory_demands() -> None:
    class Hungry(Noisy):
        def forward(self, x: Tensor) -> Tensor:
            if self.training and len(x) > 8:
                raise torch.OutOfMemoryError("out of memory")
            return super().forward(x)

    probing = Probing()
    *_, last = fit(Hungry(), Images(), recipe(epochs=1), device=CPU, seed=1, regimes=[probing])
    assert last.metrics["micro_batch"] == 8
    assert probing.found == [1.0] * 3


# -- in recipes -------------------------------------------------------------------------------------------------------


def test_a_recipe_without_regimes_is_stored_as_before() -> None:
    assert not {"distillation", "orthonormality"} & recipe().model_dump(mode="json").keys()
    stored = recipe(distillation={"alpha": 0.5}).model_dump(mode="json")
    assert Recipe.model_validate(stored) == recipe(distillation={"alpha": 0.5})
    assert recipe(orthonormality={}, distillation={}).regimes[0].weight == 1e-3  # type: ignore[attr-defined]
