"""ENAS: shared storage, only the sampled path learns, the policy gradient and its baseline, resuming."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from nas_core.architecture import Architecture
from nas_core.batch import Batch, Data
from nas_core.choice import Choice, Value
from nas_core.config import SizeConfig
from nas_core.errors import TrialError, UsageError
from nas_core.evaluation import Constraint, Objective
from nas_core.one_shot import Compute, OneShot
from nas_core.relax import Picker, derive_by_choice
from nas_core.space import SearchSpace
from nas_core.strategy import Setting
from nas_core.task import IMAGE_CLASSIFICATION, Task
from search_spaces.nasbench201.space import NasBench201, Size
from search_spaces.supernet.supernet import Supernet
from strategies.one_shot.enas import Drawn, Enas, batch_statistics
from training.data import load
from training.data.loading import Loading
from training.data.scored import Scored
from training.data.split import Split
from training.tasks.image_classification import KIND

IMAGE_DATA = Scored(KIND.example)
mean_loss = IMAGE_DATA.loss
metric_sums = IMAGE_DATA.metrics

ACCURACY = (Objective("val_accuracy", "max"),)
ONE = "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_3x3~2|"
OTHER = "|nor_conv_3x3~0|+|nor_conv_3x3~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|"


@cache
def digits() -> Data:
    return load("digits", Split(limit=100)).bind("cpu", Loading(batch_size=32, channels_last=True))


def supernet() -> Supernet:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Supernet(NasBench201(), digits().task, Size(channels=4, cells=1))


def started(**options: Any) -> Enas:
    settings = {"epochs": 3, "controller_steps": 2, "aggregate": 3, "candidates": 4, "lr": 0.1, **options}
    strategy = Enas(Setting(NasBench201(), 7, ACCURACY), Enas.Config(**settings))
    strategy.start(supernet, digits(), Compute())
    return strategy


def step(strategy: Enas, epoch: int) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(epoch)
        return strategy.step(epoch)


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_two_architectures_share_storage_and_only_the_path_of_a_step_changes() -> None:
    strategy = started()
    space, net = NasBench201(), strategy.supernet
    one, other = space.from_text(ONE), space.from_text(OTHER)
    batches = list(digits().batches("weights", 0, 0))
    storage = {name: parameter.data_ptr() for name, parameter in net.named_parameters()}
    used: dict[str, set[str]] = {}
    for label, arch in (("one", one), ("other", other)):
        strategy.weights.step(batches[0], net.mix_of(arch))
        used[label] = {name for name, parameter in net.named_parameters() if parameter.grad is not None}
    # Edge 0-1 is the 3x3 convolution of both; edge 0-2 is not, and no operation but those of the paths has a gradient.
    shared = {name for name in used["one"] & used["other"] if ".edges.0-1." in name}
    assert shared
    assert all(".operations.3." in name for name in shared)
    assert used["one"] ^ used["other"] == {
        name
        for name in storage
        if any(f".edges.{edge}.operations.{position}." in name for edge in ("0-2", "2-3") for position in (2, 3))
    }
    # Weights of the other path keep their values although they have momentum and decay by now.
    before = copied(net)
    strategy.weights.step(batches[1], net.mix_of(one))
    changed = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed & storage.keys() == used["one"]
    assert not [name for name in changed if ".edges.0-2.operations.3." in name]  # nor do its running statistics
    assert [name for name in before if ".edges.0-2.operations.3.1.running_mean" in name]
    assert {name: parameter.data_ptr() for name, parameter in net.named_parameters()} == storage


def test_the_controller_learns_with_the_supernet_as_it_is() -> None:
    strategy = started()
    before, controller = copied(strategy.supernet), strategy.controller.weights.copy()
    strategy.supernet.train()
    with strategy._measuring():
        steps = list(strategy._train_controller(0))
    assert len(steps) == 2
    assert all(0 <= accuracy <= 1 for _, found in steps for accuracy in found)
    assert (strategy.controller.steps, strategy.supernet.training) == (2, True)
    assert not numpy.array_equal(strategy.controller.weights, controller)
    assert all(torch.equal(tensor, before[name]) for name, tensor in strategy.supernet.state_dict().items())
    assert all(parameter.grad is None for parameter in strategy.supernet.parameters())


def test_rewards_use_the_statistics_of_their_batch() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.Dropout(0.5)).train()
    x = 5 + 2 * torch.randn(8, 3, 4, 4)
    with batch_statistics(net):
        y = net(x)
    assert y.mean((0, 2, 3)).abs().max() < 1e-5
    assert torch.allclose(y, net[0](x))  # nothing was dropped
    assert (net[0].training, net[0].track_running_stats, net[1].training) == (True, True, True)


def test_the_gradient_is_that_of_the_score_function_with_a_constant_baseline() -> None:
    strategy = started(decay=0.5, entropy=0.25)
    drawn = [strategy._draw(numpy.random.default_rng(seed)) for seed in range(3)]
    accuracies = [0.5, 0.75, 0.25]
    strategy.baseline.value = 0.4
    rewards = [accuracy + 0.25 * one.entropy for one, accuracy in zip(drawn, accuracies, strict=True)]
    advantages, baseline = [], 0.4
    for reward in rewards:
        advantages.append(reward - baseline)
        baseline = 0.5 * baseline + 0.5 * reward
    terms = [
        -advantage
        * strategy.controller.gradient([strategy.controller.script(one.arch)], lambda log_pi, _: log_pi.sum())
        for one, advantage in zip(drawn, advantages, strict=True)
    ]
    strategy.learn(drawn, accuracies)
    # The first step of Adam keeps a tenth of the gradient as its first moment.
    first, _ = strategy.controller.state_dict()["moments"]
    assert numpy.allclose(10 * first, sum(terms) / 3, rtol=1e-9, atol=1e-12)
    assert strategy.baseline.value == pytest.approx(baseline)


def test_equal_rewards_teach_nothing() -> None:
    """The entropy is in the reward: without an advantage it has no gradient of its own."""
    strategy = started(entropy=10.0)
    one = strategy._draw(numpy.random.default_rng(1))
    before = strategy.controller.weights.copy()
    strategy.learn([one, one], [0.5, 0.5])
    assert numpy.array_equal(strategy.controller.weights, before)
    strategy.learn([one, Drawn(one.arch, one.log_probability, one.entropy + 1)], [0.5, 0.5])
    assert not numpy.array_equal(strategy.controller.weights, before)


class Useful(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Useless(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0 * x


class Columns(nn.Module):
    """A linear classifier of two columns, each as its module lets it through."""

    def __init__(self, parts: Iterable[nn.Module | None], outputs: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(part for part in parts if part is not None)
        self.classifier = nn.Linear(len(self.parts), outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.stack([part(x[:, i]) for i, part in enumerate(self.parts)], 1))


class OneGood(SearchSpace):
    """Two decisions of four options; a classifier sees a column of its input only where the decision is "good"."""

    name = "one-good"
    tasks = frozenset({IMAGE_CLASSIFICATION})
    choices = tuple(Choice(name, ("bad", "worse", "good", "worst"), kind="op") for name in ("first", "second"))

    def network(self, picker: Picker, task: Task, size: SizeConfig) -> nn.Module:
        candidates: dict[Value, type[nn.Module]] = {
            "bad": Useless,
            "worse": Useless,
            "good": Useful,
            "worst": Useless,
        }
        return Columns((picker.module(choice.name, candidates) for choice in self.choices), task.outputs)

    def derive(self, scores: Mapping[str, Any]) -> Architecture:
        return derive_by_choice(self, scores)


class Points:
    """Two classes that a line tells apart."""

    task = Task(kind=IMAGE_CLASSIFICATION, input_shape=(2,), outputs=2)

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed((epoch * 31 + seed) % 2**31)
        for _ in range(16):
            x = torch.randn(64, 2, generator=generator)
            yield Batch((x,), (x.sum(1) > 0).long())

    loss = staticmethod(mean_loss)
    metrics = staticmethod(metric_sums)


def test_what_earns_more_becomes_more_probable() -> None:
    config = Enas.Config(epochs=6, lr=0.5, controller_steps=15, candidates=16, controller_lr=0.01, decay=0.9)
    strategy = Enas(Setting(OneGood(), 3, ACCURACY), config)

    def make() -> Supernet:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return Supernet(OneGood(), Points.task, SizeConfig())

    strategy.start(make, Points(), Compute())
    good = Architecture("one-good", {"first": "good", "second": "good"})
    assert strategy.controller.log_probability(good) == pytest.approx(math.log(1 / 16), abs=0.2)
    found = [strategy.step(epoch) for epoch in range(6)]
    assert strategy.controller.log_probability(good) > math.log(0.8)
    assert strategy.result() == [good]
    assert found[-1].arch == good
    assert found[-1].strengths["first"][2] > 0.8
    assert found[-1].metrics["reward"] > found[0].metrics["reward"]
    assert found[-1].metrics["entropy"] < found[0].metrics["entropy"]
    assert [progress.done for progress in found] == [False] * 5 + [True]


def test_resumed_is_bit_for_bit_the_same() -> None:
    whole = started(units=20)
    for epoch in range(2):
        expected = step(whole, epoch)
    other = started(units=20)
    step(other, 0)
    state = other.state_dict()
    resumed = started(units=20)
    assert isinstance(resumed, OneShot)
    resumed.load_state_dict(state)
    assert step(resumed, 1) == expected
    assert numpy.array_equal(resumed.controller.weights, whole.controller.weights)
    wanted = copied(whole.supernet)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in resumed.supernet.state_dict().items())
    [derived] = resumed.result()
    assert [derived] == whole.result() == whole.result()
    assert NasBench201().illegal(derived) is None


def test_progress_counts_what_was_sampled() -> None:
    strategy = started()
    progress = step(strategy, 0)
    assert progress.strengths.keys() == strategy.supernet.groups.keys()
    for weights in progress.strengths.values():
        assert sum(weights) == pytest.approx(1)
        assert all((6 * weight) % 1 == pytest.approx(0) for weight in weights)  # of 2 steps of 3 architectures
    assert progress.metrics.keys() == {"train_loss", "reward", "entropy"}
    assert progress.metrics["entropy"] == pytest.approx(6 * math.log(5), abs=0.1)  # nearly uniform at the start


def test_what_it_cannot_search_is_refused() -> None:
    class Flat(SearchSpace):
        name = "flat"
        choices = (Choice("a", (1, 2)),)

    with pytest.raises(UsageError, match="not relaxable"):
        Enas(Setting(Flat(), 1, ACCURACY), Enas.Config())
    bounded = Setting(NasBench201(), 1, ACCURACY, (Constraint("params", "<=", 1e5),))
    with pytest.raises(UsageError, match="params<=100000"):
        Enas(bounded, Enas.Config())


def test_a_loss_that_is_not_finite_ends_the_search() -> None:
    strategy = started()
    with torch.no_grad():
        strategy.supernet.network.classifier.bias[0] = math.inf
    with pytest.raises(TrialError, match="nan-loss"):
        step(strategy, 0)
