"""Epochs of every one-shot strategy against plain loops: the first, one in the middle and the last of a search.

The loops are written from the papers and their published code with torch's optimisers, schedules, distributions and
deep copies, over a network of plain layers. They share with the strategies what is drawn, nothing else.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn, optim
from torch.distributions import Dirichlet, kl_divergence
from torch.nn import functional

from nas_core.architecture import Architecture
from nas_core.batch import Batch
from nas_core.choice import Choice
from nas_core.config import SizeConfig
from nas_core.evaluation import Objective
from nas_core.one_shot import Compute, Progress
from nas_core.relax import Picker, derive_by_choice
from nas_core.seeds import derive, generator
from nas_core.space import SearchSpace
from nas_core.strategy import Setting
from nas_core.task import Task
from search_spaces.supernet.supernet import Supernet
from strategies.one_shot.darts import Darts
from strategies.one_shot.drnas import DrNas
from strategies.one_shot.dropnas import DropNas
from strategies.one_shot.enas import Enas
from strategies.one_shot.gdas import Gdas
from strategies.one_shot.guard import HessianGuard
from strategies.one_shot.rc_darts import RcDarts
from strategies.one_shot.spos import Spos
from strategies.reinforcement.controller import Controller

SEED, EPOCHS = 7, 6
VISITED = (0, 3, 5)
FIRST, SECOND = ("skip", "conv", "pool"), ("none", "wide", "narrow", "skip")
TASK = Task(kind="image-classification", input_shape=(2, 5, 5), outputs=3)
# Rates and decays are large, so that whatever is left out or is another shows.
WEIGHTS = {"epochs": EPOCHS, "lr": 0.2, "lr_end": 0.02, "momentum": 0.8, "weight_decay": 0.05, "grad_clip": 0.7}
ALPHAS = {"alpha_lr": 0.1, "alpha_beta1": 0.6, "alpha_beta2": 0.95, "alpha_weight_decay": 0.3, "alpha_std": 0.5}


# --- A space of two groups, and data, for the strategies ---------------------------------------------------------


class Skip(nn.Module):
    skip = True

    def forward(self, x: Tensor) -> Tensor:
        return x


class Nothing(nn.Module):
    zero = True

    def forward(self, x: Tensor) -> None:
        return None

    def zeros(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


class Network(nn.Module):
    def __init__(self, picker: Picker) -> None:
        super().__init__()
        pool = lambda: nn.AvgPool2d(3, 1, 1)  # noqa: E731
        self.first = picker.module("first", {"skip": Skip, "conv": lambda: nn.Conv2d(2, 2, 3, padding=1), "pool": pool})
        wide, narrow = (lambda: nn.Conv2d(2, 2, 3, padding=1)), (lambda: nn.Conv2d(2, 2, 1, bias=False))
        self.second = picker.module("second", {"none": Nothing, "wide": wide, "narrow": narrow, "skip": Skip})
        self.norm, self.head = nn.BatchNorm2d(2), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        assert self.first is not None
        assert self.second is not None
        node = self.first(x)
        more = self.second(node)
        return self.head(self.norm(node if more is None else node + more).relu().mean((2, 3)))


class Two(SearchSpace):
    name = "two"
    tasks = frozenset({TASK.kind})
    choices = (Choice("first", FIRST), Choice("second", SECOND))

    def network(self, picker: Picker, task: Task, size: SizeConfig) -> nn.Module:
        return Network(picker)

    def derive(self, scores: Mapping[str, Sequence[float]]) -> Architecture:
        return derive_by_choice(self, scores)


class Images:
    """Another set of batches for every part, in an order that depends on the epoch; float64."""

    task = TASK
    counts: Mapping[str, int] = {"weights": 3, "alphas": 2, "train": 4}

    def __init__(self) -> None:
        draws = torch.Generator().manual_seed(3)
        self.parts = {
            part: [
                (
                    torch.randn(6, 2, 5, 5, generator=draws, dtype=torch.float64),
                    torch.randint(3, (6,), generator=draws),
                )
                for _ in range(count)
            ]
            for part, count in self.counts.items()
        }

    def order(self, part: str, epoch: int) -> list[tuple[Tensor, Tensor]]:
        turn = epoch % len(self.parts[part])
        return self.parts[part][turn:] + self.parts[part][:turn]

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        return (Batch((x,), y) for x, y in self.order(part, epoch))

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return functional.cross_entropy(output, batch.target)

    def metrics(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {
            "accuracy": output.argmax(1).eq(batch.target).sum(),
            "loss": functional.cross_entropy(output, batch.target, reduction="sum"),
            "count": torch.tensor(len(output)),
        }


DATA = Images()


def make() -> Supernet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Supernet(Two(), TASK, SizeConfig()).double()


# --- The same in plain layers -------------------------------------------------------------------------------------


class Plain(nn.Module):
    """`forward(x, first, second)`: what each candidate is multiplied with; None: it does not run. `numbers`: weights of
    such candidates, which are added as numbers. `drop`: the probability of dropping what is no skip."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.wide, self.narrow = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 1, bias=False)
        self.norm, self.head = nn.BatchNorm2d(2), nn.Linear(2, 3)

    def forward(self, x: Tensor, first: Any, second: Any, numbers: Any = (0.0, 0.0), drop: float = 0.0) -> Tensor:
        def mixed(x: Tensor, operations: Sequence[Any], weights: Any, skips: set[int], number: Any) -> Tensor:
            total = torch.zeros_like(x)
            for position, (operation, weight) in enumerate(zip(operations, weights, strict=True)):
                if weight is None or operation is None:
                    continue
                answer = operation(x)
                if drop and position not in skips:
                    answer = answer * (torch.rand(len(x), 1, 1, 1) < 1 - drop) / (1 - drop)
                total = total + weight * answer
            return total + number

        pool = lambda x: functional.avg_pool2d(x, 3, 1, 1)  # noqa: E731
        same = lambda x: x  # noqa: E731
        node = mixed(x, (same, self.conv, pool), first, {0}, numbers[0])
        node = node + mixed(node, (None, self.wide, self.narrow, same), second, {0, 3}, numbers[1])
        return self.head(functional.relu(self.norm(node)).mean((2, 3))).float()


class Loop:
    """A plain network with the weights of a strategy's supernet, an SGD and an Adam."""

    def __init__(self, strategy: Any, config: Mapping[str, Any], nesterov: bool = False) -> None:
        self.net = Plain().double().train()
        for mine, theirs in zip(self.net.parameters(), strategy.supernet.parameters(), strict=True):
            mine.data.copy_(theirs.data)
        config = {**WEIGHTS, "decay_all": True, **config}
        self.clip, decay = config["grad_clip"], config["weight_decay"]
        parameters = list(self.net.parameters())
        groups = [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": decay},
            {"params": [p for p in parameters if p.dim() == 1], "weight_decay": decay if config["decay_all"] else 0.0},
        ]
        self.sgd = optim.SGD(groups, config["lr"], config["momentum"], nesterov=nesterov)
        found = getattr(strategy, "alphas", None)
        self.alphas = [] if found is None else [nn.Parameter(vector.detach().clone()) for vector in found]
        if self.alphas:
            betas = (config["alpha_beta1"], config["alpha_beta2"])
            self.adam = optim.Adam(self.alphas, config["alpha_lr"], betas, weight_decay=config["alpha_weight_decay"])

    def softmax(self) -> list[Tensor]:
        return [alpha.softmax(0) for alpha in self.alphas]

    def train(self, x: Tensor, y: Tensor, *mix: Any, smoothing: float = 0.0, drop: float = 0.0) -> float:
        """One step of the weights."""
        self.sgd.zero_grad()
        loss = functional.cross_entropy(self.net(x, *mix, drop=drop), y, label_smoothing=smoothing)
        loss.backward()
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
        self.sgd.step()
        return loss.item()

    def search(self, loss: Tensor) -> None:
        """One step of the architecture parameters, down the loss; those that are no part of it stay."""
        gradients = torch.autograd.grad(loss, self.alphas, allow_unused=True)
        for alpha, gradient in zip(self.alphas, gradients, strict=True):
            alpha.grad = gradient
        self.adam.step()


def halves(epoch: int) -> Iterator[tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]]:
    """The shorter half starts over."""
    return zip(DATA.order("weights", epoch), itertools.cycle(DATA.order("alphas", epoch)), strict=False)


def rates(schedule: Callable[[optim.Optimizer], Any], lr: float = 0.2) -> list[float]:
    """What a schedule of torch says for every epoch."""
    optimizer = optim.SGD([nn.Parameter(torch.zeros(1))], lr)
    made, found = schedule(optimizer), []
    for _ in range(EPOCHS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made.step()
    return found


COSINE = rates(lambda optimizer: optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS, 0.02))


def compare(
    kind: Any,
    config: Mapping[str, Any],
    epoch_of: Callable[[Loop, int], list[float]],
    nesterov: bool = False,
    schedule: Sequence[float] = COSINE,
    inner: bool = False,
) -> tuple[Any, Loop, list[Progress]]:
    """Run a strategy and its plain loop through the same epochs; weights, statistics and alphas are the same."""
    given = {**WEIGHTS, **config}
    given = {"inner_config": given} if inner else given
    strategy = kind(Setting(Two(), SEED, (Objective("accuracy", "max"),)), kind.Config(**given))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        strategy.start(make, DATA, Compute())
        searched = strategy.inner if inner else strategy
        loop, progresses = Loop(searched, config, nesterov), []
        for epoch in VISITED:
            torch.manual_seed(derive(SEED, epoch, "one-shot"))
            progresses.append(strategy.step(epoch))
            for group in loop.sgd.param_groups:
                group["lr"] = schedule[epoch]
            torch.manual_seed(derive(SEED, epoch, "one-shot"))
            losses = epoch_of(loop, epoch)
            assert progresses[-1].metrics["train_loss"] == pytest.approx(numpy.mean(losses), rel=1e-4), epoch
            mine, theirs = loop.net.state_dict().values(), strategy.supernet.state_dict().values()
            for one, other in zip(mine, theirs, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
            for one, other in zip(loop.alphas, getattr(searched, "alphas", ()), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    return strategy, loop, progresses


def alone(path: Sequence[int]) -> list[list[float | None]]:
    """One candidate per group, in full."""
    return [[1.0 if k == taken else None for k in range(n)] for taken, n in zip(path, (3, 4), strict=True)]


# --- The strategies -----------------------------------------------------------------------------------------------


def darts_epoch(loop: Loop, epoch: int) -> list[float]:
    """Liu et al., algorithm 1 with xi = 0: the architecture on one half, then the weights on the other."""
    losses = []
    for (x, y), (x_valid, y_valid) in halves(epoch):
        loop.search(functional.cross_entropy(loop.net(x_valid, *loop.softmax()), y_valid))
        losses.append(loop.train(x, y, *[weights.detach() for weights in loop.softmax()]))
    return losses


def weights_epoch(loop: Loop, epoch: int, part: str = "weights") -> list[float]:
    return [loop.train(x, y, *[weights.detach() for weights in loop.softmax()]) for x, y in DATA.order(part, epoch)]


def test_darts_of_first_order() -> None:
    _, loop, progresses = compare(Darts, ALPHAS, darts_epoch)
    for alpha, scores in zip(loop.alphas, progresses[-1].strengths.values(), strict=True):
        assert scores == pytest.approx(alpha.softmax(0).tolist(), abs=1e-4)


@pytest.mark.parametrize("kind", [Darts, RcDarts])
def test_a_warm_up_trains_the_weights_alone(kind: Any) -> None:
    """Without bounds RC-DARTS is DARTS."""

    def epoch_of(loop: Loop, epoch: int) -> list[float]:
        return darts_epoch(loop, epoch) if epoch >= 1 else weights_epoch(loop, epoch)

    compare(kind, {**ALPHAS, "warm_up_epochs": 1}, epoch_of)


@pytest.mark.parametrize("kind", [Darts, RcDarts])
def test_darts_of_a_single_level(kind: Any) -> None:
    """One gradient of the same batch for both."""

    def epoch_of(loop: Loop, epoch: int) -> list[float]:
        losses = []
        for x, y in DATA.order("train", epoch):
            loss = functional.cross_entropy(loop.net(x, *loop.softmax()), y)
            gradients = torch.autograd.grad(loss, [*loop.net.parameters(), *loop.alphas])
            for parameter, gradient in zip([*loop.net.parameters(), *loop.alphas], gradients, strict=True):
                parameter.grad = gradient
            nn.utils.clip_grad_norm_(loop.net.parameters(), loop.clip)
            loop.sgd.step()
            loop.adam.step()
            losses.append(loss.item())
        return losses

    compare(kind, {**ALPHAS, "bilevel": False, "warm_up_epochs": 0}, epoch_of)


def test_darts_of_second_order() -> None:
    """Equations 7 and 8 as the published code has them: copies of the network, one step ahead and shifted."""

    def loss(net: Plain, loop: Loop, x: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(net(x, *loop.softmax()), y)

    def moved(net: Plain, directions: Sequence[Tensor], scale: float) -> Plain:
        net = copy.deepcopy(net)
        for parameter, direction in zip(net.parameters(), directions, strict=True):
            parameter.data.add_(direction, alpha=scale)
        return net

    def epoch_of(loop: Loop, epoch: int) -> list[float]:
        losses = []
        for (x, y), (x_valid, y_valid) in halves(epoch):
            weights = list(loop.net.parameters())
            buffers = [loop.sgd.state[w].get("momentum_buffer", torch.zeros_like(w)) for w in weights]
            net = copy.deepcopy(loop.net)
            slopes = torch.autograd.grad(loss(net, loop, x, y), list(net.parameters()))
            steps = [0.8 * b + s + 0.05 * w for b, s, w in zip(buffers, slopes, weights, strict=True)]
            xi = loop.sgd.param_groups[0]["lr"]
            ahead = moved(loop.net, [step.detach() for step in steps], -xi)
            both = torch.autograd.grad(loss(ahead, loop, x_valid, y_valid), [*loop.alphas, *ahead.parameters()])
            direct, vector = both[:2], both[2:]
            shift = 0.01 / torch.cat([part.flatten() for part in vector]).norm().item()
            plus, minus = (
                torch.autograd.grad(loss(moved(loop.net, vector, side), loop, x, y), loop.alphas)
                for side in (shift, -shift)
            )
            for alpha, near, one, other in zip(loop.alphas, direct, plus, minus, strict=True):
                alpha.grad = near - xi * (one - other) / (2 * shift)
            loop.adam.step()
            losses.append(loop.train(x, y, *[weights.detach() for weights in loop.softmax()]))
        return losses

    compare(Darts, {**ALPHAS, "order": 2}, epoch_of)


@pytest.mark.parametrize("scalars", [True, False])
def test_gdas(scalars: bool) -> None:
    """Dong and Yang, algorithm 1, with torch's Gumbel softmax: weights, then architecture, the temperature linear;
    with the published code's numbers for what is not drawn, and without."""

    def epoch_of(loop: Loop, epoch: int) -> list[float]:
        losses, tau = [], 8.0 + (0.5 - 8.0) * epoch / (EPOCHS - 1)

        def drawn() -> tuple[list[list[Tensor | None]], list[Tensor]]:
            hard = [functional.gumbel_softmax(alpha.log_softmax(0), tau, hard=True) for alpha in loop.alphas]
            taken = [int(weights.argmax()) for weights in hard]
            runs = [
                [weights[k] if k == index else None for k in range(len(weights))]
                for weights, index in zip(hard, taken, strict=True)
            ]
            numbers = [weights.sum() - weights[index] for weights, index in zip(hard, taken, strict=True)]
            return runs, numbers

        for (x, y), (x_valid, y_valid) in halves(epoch):
            with torch.no_grad():
                runs, _ = drawn()
            losses.append(loop.train(x, y, *runs))
            runs, numbers = drawn()
            loop.search(functional.cross_entropy(loop.net(x_valid, *runs, numbers if scalars else (0.0, 0.0)), y_valid))
        return losses

    config = {**ALPHAS, "nesterov": True, "tau": 8.0, "tau_end": 0.5, "scalars": scalars}
    _, _, progresses = compare(Gdas, config, epoch_of, nesterov=True)
    assert [one.metrics["temperature"] for one in progresses] == pytest.approx([8.0, 3.5, 0.5])


@pytest.mark.parametrize("regulariser", ["kl", "l2"])
def test_drnas(regulariser: str) -> None:
    """Chen et al., with torch's Dirichlet distribution and divergence; both passes draw."""

    def epoch_of(loop: Loop, epoch: int) -> list[float]:
        def betas() -> list[Tensor]:
            return [functional.elu(alpha) + 1 for alpha in loop.alphas]

        losses = []
        for (x, y), (x_valid, y_valid) in halves(epoch):
            drawn = [Dirichlet(beta).rsample() for beta in betas()]
            loss = functional.cross_entropy(loop.net(x_valid, *drawn), y_valid)
            for alpha, beta in zip(loop.alphas, betas(), strict=True):
                distance = kl_divergence(Dirichlet(beta), Dirichlet(torch.ones_like(beta)))
                loss = loss + 0.3 * (distance if regulariser == "kl" else 0.5 * (alpha**2).sum())
            loop.search(loss)
            losses.append(loop.train(x, y, *[Dirichlet(beta.detach()).sample() for beta in betas()]))
        return losses

    compare(DrNas, {**ALPHAS, "regulariser": regulariser, "regulariser_scale": 0.3}, epoch_of)


def test_dropnas() -> None:
    """Hong et al., section 3: Adam by hand for what is kept, and the adjustment of equation 7 by its own formula."""
    moments: dict[int, list[Tensor]] = {}

    def masks(rng: numpy.random.Generator) -> list[numpy.ndarray]:
        """Of the candidates with and without weights, each with probability rate ** (1 / n), never all of a kind."""
        found = []
        for size, kinds in ((3, ([1], [0, 2])), (4, ([1, 2], [0, 3]))):
            mask = numpy.ones(size, dtype=bool)
            for kind in kinds:
                kept = numpy.array([len(kind) == 1] * len(kind))
                while not kept.any():
                    kept = rng.random(len(kind)) >= 0.3 ** (1 / len(kind))
                mask[kind] = kept
            found.append(mask)
        return found

    def epoch_of(loop: Loop, epoch: int) -> list[float]:
        rng, losses = generator(SEED, epoch, "dropnas"), []
        for x, y in DATA.order("train", epoch):
            kept = [torch.from_numpy(mask) for mask in masks(rng)]
            before = [alpha.detach().clone() for alpha in loop.alphas]
            runs = []
            for alpha, mask in zip(loop.alphas, kept, strict=True):
                alpha.grad = None
                weights = alpha[mask].softmax(0)
                runs.append([weights[int(mask[:k].sum())] if mask[k] else None for k in range(len(mask))])
            losses.append(loop.train(x, y, *runs))
            for number, (alpha, mask, old) in enumerate(zip(loop.alphas, kept, before, strict=True)):
                gradient = alpha.grad + 0.3 * old
                first, second, steps = moments.setdefault(
                    number, [torch.zeros_like(old), torch.zeros_like(old), torch.zeros(())]
                )
                steps += 1
                first[mask] = 0.6 * first[mask] + 0.4 * gradient[mask]
                second[mask] = 0.95 * second[mask] + 0.05 * gradient[mask] ** 2
                ratio = (first / (1 - 0.6**steps)) / ((second / (1 - 0.95**steps)).sqrt() + 1e-8)
                with torch.no_grad():
                    alpha[mask] -= 0.1 * ratio[mask]
                    if not mask.all():
                        share = old.softmax(0)[mask].sum()
                        dropped, present = old[~mask].exp().sum(), alpha[mask].exp().sum()
                        alpha[mask] += torch.log(share / (1 - share) * dropped / present)
        return losses

    compare(DropNas, {**ALPHAS, "rate": 0.3}, epoch_of)


def test_spos() -> None:
    """Guo et al., section 3.1: the path of a uniformly drawn architecture; linear rate, smoothed labels, no decay of
    vectors."""

    def epoch_of(loop: Loop, epoch: int) -> list[float]:
        rng, losses = generator(SEED, epoch, "paths"), []
        for x, y in DATA.order("train", epoch):
            path = [int(rng.integers(3)), int(rng.integers(4))]
            losses.append(loop.train(x, y, *alone(path), smoothing=0.2))
        return losses

    schedule = rates(lambda optimizer: optim.lr_scheduler.LambdaLR(optimizer, lambda e: 1 - 0.9 * e / EPOCHS))
    config = {"schedule": "linear", "decay_all": False, "label_smoothing": 0.2, "grad_clip": None}
    compare(Spos, config, epoch_of, schedule=schedule)


class Policy:
    """ENAS' controller, with torch's Adam and the policy gradient written out."""

    def __init__(self) -> None:
        self.controller = Controller(Two(), generator(SEED, "controller"), 6, 0.02)
        self.parts = {name: torch.tensor(part, requires_grad=True) for name, part in self.controller.parts().items()}
        self.adam = optim.Adam(self.parts.values(), 0.02)
        self.baseline: float | None = None

    def sample(self, rng: numpy.random.Generator) -> tuple[list[int], Any]:
        arch, _ = self.controller.sample(rng)
        path = [FIRST.index(arch.values["first"]), SECOND.index(arch.values["second"])]
        return path, self.controller.script(arch)

    def learn(self, scripts: Sequence[Any], accuracies: Sequence[float]) -> None:
        log_pi, entropies = self.controller.log_probabilities(scripts, self.parts)
        total = torch.zeros(())
        for log_probability, entropy, accuracy in zip(log_pi, entropies.tolist(), accuracies, strict=True):
            reward = accuracy + 0.2 * entropy
            if self.baseline is None:
                self.baseline = reward
            total = total - (reward - self.baseline) * log_probability / len(scripts)
            self.baseline = 0.9 * self.baseline + 0.1 * reward
        self.adam.zero_grad()
        total.backward()
        self.adam.step()
        self.controller.weights = numpy.concatenate([part.detach().numpy().ravel() for part in self.parts.values()])


def test_enas() -> None:
    """Pham et al., section 2.2: paths of the policy on one half, rewards of the other, by batch statistics that are not
    kept; the result is the most accurate candidate there."""
    policy = Policy()

    def measure(loop: Loop, path: list[int], x: Tensor, y: Tensor) -> tuple[float, float]:
        """With normalisation in training mode, of a copy; no path is dropped."""
        with torch.no_grad():
            logits = copy.deepcopy(loop.net)(x, *alone(path))
        return logits.argmax(1).eq(y).double().mean().item(), -functional.cross_entropy(logits, y).item()

    def epoch_of(loop: Loop, epoch: int) -> list[float]:
        rng, losses = generator(SEED, epoch, "paths"), []
        for x, y in DATA.order("weights", epoch):
            path, _ = policy.sample(rng)
            losses.append(loop.train(x, y, *alone(path), drop=0.5 * epoch / (EPOCHS - 1)))
        rng = generator(SEED, epoch, "rewards")
        batches = itertools.chain.from_iterable(DATA.order("alphas", lap) for lap in itertools.count())
        rewards = []
        for _ in range(4):
            drawn = [policy.sample(rng) for _ in range(3)]
            accuracies = [measure(loop, path, *next(batches))[0] for path, _ in drawn]
            policy.learn([script for _, script in drawn], accuracies)
            rewards += accuracies
        loop.rewards = [*getattr(loop, "rewards", []), numpy.mean(rewards)]  # type: ignore[attr-defined]
        return losses

    restarts = rates(lambda o: optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 2, 2, 0.02))
    config = {"restart_epochs": 2, "nesterov": True, "grad_clip": None, "drop_path": 0.5, "candidates": 12}
    config |= {"controller_steps": 4, "aggregate": 3, "controller_lr": 0.02, "entropy": 0.2, "decay": 0.9, "units": 6}
    strategy, loop, progresses = compare(Enas, config, epoch_of, nesterov=True, schedule=restarts)

    assert [one.metrics["reward"] for one in progresses] == pytest.approx(loop.rewards)  # type: ignore[attr-defined]
    assert strategy.baseline.value == pytest.approx(policy.baseline)
    numpy.testing.assert_allclose(strategy.controller.weights, policy.controller.weights, rtol=1e-6, atol=1e-8)

    rng, seen = generator(SEED, "derive"), dict[tuple[int, ...], None]()
    while len(seen) < 12:
        seen.setdefault(tuple(policy.sample(rng)[0]))
    best = {
        part: max(seen, key=lambda path: measure(loop, list(path), *DATA.order(part, 0)[0]))
        for part in ("weights", "alphas")
    }
    (found,) = strategy.result()
    assert (found.values["first"], found.values["second"]) == (FIRST[best["alphas"][0]], SECOND[best["alphas"][1]])
    assert best["weights"] != best["alphas"]  # so that the other half would be seen


def test_the_guard_trains_as_what_it_guards_and_measures_the_hessian() -> None:
    strategy, loop, progresses = compare(HessianGuard, ALPHAS, darts_epoch, inner=True)
    x, y = DATA.order("alphas", VISITED[-1])[0]

    def loss(flat: Tensor) -> Tensor:
        first, second = flat.split([3, 4])
        return functional.cross_entropy(loop.net(x, first.softmax(0), second.softmax(0)), y)

    hessian = torch.autograd.functional.hessian(loss, torch.cat([alpha.detach() for alpha in loop.alphas]))
    largest = torch.linalg.eigvalsh(hessian.double())[-1].item()
    assert progresses[-1].metrics["alpha_eigenvalue"] == pytest.approx(largest, rel=1e-3)
    assert math.isfinite(largest)
    assert strategy.eigenvalues[-1] == progresses[-1].metrics["alpha_eigenvalue"]
