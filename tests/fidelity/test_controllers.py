"""REINFORCE and PPO with the NASNet controller: exact gradients, bandit, clipping, ratios, and random search beaten."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import numpy
import pytest
import torch

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value, When
from nas_core.config import validate
from nas_core.errors import UsageError
from nas_core.evaluation import Constraint, Objective
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from nas_core.strategy import Outcome, Proposal, Setting, State
from nas_core.testing.strategy import check
from strategies.basic.random_search import RandomSearch
from strategies.reinforcement.controller import Controller
from strategies.reinforcement.ppo import PPO, clipped
from strategies.reinforcement.reinforce import Reinforce, loss
from strategies.reinforcement.rewards import Baseline, Rewards

QUALITY = (Objective("quality", "max"),)


class Three(SearchSpace):
    """27 architectures: three decisions of three options."""

    name = "three"
    choices = tuple(Choice(name, ("x", "y", "z"), kind="letter") for name in "abc")


class Bandit(SearchSpace):
    """Ten decisions of five options."""

    name = "bandit"
    choices = tuple(Choice(f"arm{number}", (0, 1, 2, 3, 4), kind="arm") for number in range(10))


class Mixed(SearchSpace):
    """Conditional and coupled choices; `width` differs in options, `flag` and `one` are equal as keys of a dict."""

    name = "mixed"
    choices = (
        Choice("width0", (8, 16), kind="width"),
        Choice("flag", (False, True), kind="switch"),
        Choice("one", (1, 2), kind="switch"),
        Choice("width1", (16, 32, 8), kind="width", when=(When("flag", (True,)),)),
        Choice("last", ("a", "b", "c")),
    )

    def allowed(self, choice: Choice, prefix: Mapping[str, Value]) -> tuple[Value, ...]:
        if choice.name == "last" and prefix["width0"] == 8:
            return ("c", "a")
        return choice.options


def controller(space: SearchSpace, seed: int = 0, units: int = 16, **settings: Any) -> Controller:
    made = Controller(space, generator(seed, "controller"), units, **settings)
    made.weights *= 10  # far from uniform
    return made


def log_probability(made: Controller, arch: Architecture) -> float:
    parts = {name: torch.from_numpy(part) for name, part in made.parts().items()}
    return float(made.log_probabilities([made.script(arch)], parts)[0])


def test_the_controller_is_nasnets() -> None:
    """One layer of 100 units, weights uniform in +-0.1; the first decisions are almost uniform."""
    made = Controller(Three(), generator(0))
    assert made.shapes["recurrent"] == (100, 400)
    assert made.shapes["input"] == (100, 400)
    assert len(made.weights) == sum(math.prod(shape) for shape in made.shapes.values())
    assert 0.0999 < numpy.abs(made.weights).max() <= 0.1
    assert abs(made.weights.std() - 0.1 / math.sqrt(3)) < 1e-3
    for arch in moves.enumerate_all(Three()):
        assert abs(log_probability(made, arch) + math.log(27)) < 0.5


@pytest.mark.parametrize("space", [Three(), Mixed()], ids=lambda space: space.name)
def test_probabilities_of_all_architectures_sum_to_one(space: SearchSpace) -> None:
    made = controller(space)
    logs = [log_probability(made, arch) for arch in moves.enumerate_all(space)]
    assert max(logs) - min(logs) > 1
    assert abs(sum(map(math.exp, logs)) - 1) < 1e-12


@pytest.mark.parametrize("space", [Three(), Mixed()], ids=lambda space: space.name)
def test_sampling_agrees_with_the_probabilities(space: SearchSpace) -> None:
    """The numpy walk and the torch one are the same function, alone and in a batch; frequencies agree with it."""
    made = controller(space)
    drawn = [made.sample(generator(number)) for number in range(4000)]
    parts = {name: torch.from_numpy(part) for name, part in made.parts().items()}
    batch, entropies = made.log_probabilities([made.script(arch) for arch, _ in drawn], parts)
    assert max(abs(float(batch[row]) - drawn[row][1]) for row in range(len(drawn))) < 1e-12
    assert max(abs(log_probability(made, arch) - log) for arch, log in drawn[:50]) < 1e-12
    for arch in moves.enumerate_all(space):
        chance = math.exp(log_probability(made, arch))
        count = sum(found == arch for found, _ in drawn)
        assert abs(count - 4000 * chance) < 5 * math.sqrt(4000 * chance * (1 - chance)) + 1
    # The chain rule: the entropies along sampled paths have the entropy of the joint distribution as their mean.
    joint = -sum(log * math.exp(log) for log in (log_probability(made, arch) for arch in moves.enumerate_all(space)))
    assert abs(float(entropies.mean()) - joint) < 5 * float(entropies.std()) / math.sqrt(4000)


def test_kinds_share_embeddings_and_heads_by_option() -> None:
    made = controller(Mixed())
    words, choices = made.vocabulary, {choice.name: choice for choice in Mixed.choices}
    assert words.token(choices["width0"], 8) == words.token(choices["width1"], 8)
    assert words.token(choices["width1"], 32) not in (0, words.token(choices["width0"], 16))
    assert words.token(choices["flag"], True) != words.token(choices["one"], 1)
    assert words.size == 1 + 3 + 4 + 3
    assert controller(Bandit()).vocabulary.size == 1 + 5


def test_the_policy_gradient_is_exact() -> None:
    """Card, check 1: over all 27 sequences, sum of pi (R - b) grad log pi = autograd of E[R], whatever b is."""
    space = Three()
    made = controller(space)
    archs = list(moves.enumerate_all(space))
    rewards = generator("rewards").normal(size=27)
    scripts = [made.script(arch) for arch in archs]
    expected = made.gradient(scripts, lambda log_pi, _: (log_pi.exp() * torch.from_numpy(rewards)).sum())
    chances = [math.exp(log_probability(made, arch)) for arch in archs]
    assert numpy.abs(expected).max() > 1e-3
    for baseline in (0.0, 0.7, -3.0):
        # The loss of `reinforce` is a mean of -(R - b) log pi; weighting each sequence by pi makes it the sum.
        found = sum(
            -chance
            * made.gradient([script], lambda log_pi, entropies, a=reward - baseline: loss(log_pi, entropies, [a], 0.0))
            for chance, script, reward in zip(chances, scripts, rewards, strict=True)
        )
        assert numpy.abs(found - expected).max() < 1e-6


def test_the_entropy_is_part_of_the_loss() -> None:
    """With no advantage the gradient is that of the entropy alone, and it flattens the policy."""
    made = controller(Three(), learning_rate=0.05)
    scripts = [made.script(arch) for arch in moves.enumerate_all(Three())]

    def farthest() -> float:
        return max(abs(log_probability(made, arch) + math.log(27)) for arch in moves.enumerate_all(Three()))

    assert farthest() > 1
    for _ in range(200):
        made.learn(scripts, lambda log_pi, entropies: loss(log_pi, entropies, [0.0] * 27, 1.0))
    assert farthest() < 0.05


def test_adam_is_adam() -> None:
    made, losses = controller(Three(), learning_rate=0.01), []
    weights = torch.from_numpy(made.weights.copy()).requires_grad_()
    optimizer = torch.optim.Adam([weights], lr=0.01)
    scripts = [made.script(arch) for arch in moves.enumerate_all(Three())]
    for step in range(5):

        def pull(log_pi: torch.Tensor, entropies: torch.Tensor, row: int = step) -> torch.Tensor:
            return -log_pi[row] - 0.1 * entropies.mean()

        weights.grad = torch.from_numpy(made.gradient(scripts, pull))
        optimizer.step()
        made.learn(scripts, pull)
        losses.append(numpy.abs(made.weights - weights.detach().numpy()).max())
    assert max(losses) < 1e-12


def match(arch: Architecture) -> float:
    """The part of the positions that equal the target 0, 1, 2, 3, 4, 0, ..."""
    return statistics.fmean(value == position % 5 for position, value in enumerate(arch.values.values()))


@pytest.mark.parametrize("kind", [Reinforce, PPO])
def test_learns_a_bandit(kind: Any) -> None:
    """Card, check 2: mean reward above 0.95 within 3,000 samples."""
    strategy = kind(Setting(Bandit(), 0, QUALITY), kind.Config(**BANDIT[kind]))
    rewards = []
    for number in range(3000):
        proposal = strategy.ask(number, ())
        rewards.append(match(proposal.arch))
        strategy.tell(Outcome(number, proposal, State.COMPLETE, (rewards[-1],)))
        if len(rewards) >= 100 and statistics.fmean(rewards[-100:]) > 0.95:
            break
    assert abs(statistics.fmean(rewards[:20]) - 0.2) < 0.15
    assert statistics.fmean(rewards[-100:]) > 0.95


BANDIT: Mapping[Any, dict[str, Any]] = {
    Reinforce: {"reward": "value", "batch": 5, "entropy": 0.0},
    PPO: {"reward": "value", "batch": 20, "entropy": 0.0},
}


def test_random_search_learns_no_bandit() -> None:
    strategy = RandomSearch(Setting(Bandit(), 0, QUALITY), RandomSearch.Config())
    rewards = []
    for number in range(3000):
        proposal = strategy.ask(number, ())
        rewards.append(match(proposal.arch))
        strategy.tell(Outcome(number, proposal, State.COMPLETE, (rewards[-1],)))
    assert abs(statistics.fmean(rewards[-1000:]) - 0.2) < 0.02


@pytest.mark.parametrize(
    ("ratio", "advantage", "gradient"),
    [(1.5, 1.0, 0.0), (1.5, -1.0, -1.0), (0.5, -1.0, 0.0), (0.5, 2.0, 2.0), (1.1, 2.0, 2.0), (0.9, -2.0, -2.0)],
)
def test_clipping(ratio: float, advantage: float, gradient: float) -> None:
    """Card, check 4: beyond 1 +- eps = 0.2 a gain gives no gradient, a loss still does."""
    ratios = torch.tensor([ratio], requires_grad=True)
    (found,) = torch.autograd.grad(clipped(ratios, torch.tensor([advantage]), 0.2).sum(), ratios)
    assert found.item() == gradient


def drive(strategy: Any, trials: int, judge: Callable[[Architecture], float] = match) -> None:
    for number in range(trials):
        proposal = strategy.ask(number, ())
        strategy.tell(Outcome(number, proposal, State.COMPLETE, (judge(proposal.arch),)))


def test_the_ratio_is_one_in_the_first_epoch_and_moves_in_the_others() -> None:
    strategy = PPO(Setting(Bandit(), 0, QUALITY), PPO.Config(batch=20, epochs=4))
    drive(strategy, 19)
    assert strategy.drift == []
    drive(strategy, 1)
    assert len(strategy.drift) == 4
    assert strategy.drift[0] < 1e-12
    assert min(strategy.drift[1:]) > 1e-3


def test_children_in_flight_keep_the_probability_they_were_sampled_with() -> None:
    """Two minibatches are asked before the first is told: the second begins with ratios other than one."""
    strategy = PPO(Setting(Bandit(), 0, QUALITY), PPO.Config(batch=5, epochs=2))
    asked = [strategy.ask(number, ()) for number in range(10)]
    for number, proposal in enumerate(asked):
        strategy.tell(Outcome(number, proposal, State.COMPLETE, (match(proposal.arch),)))
        if number == 4:
            assert strategy.drift[0] < 1e-12
    assert strategy.drift[0] > 1e-3


def test_results_do_not_depend_on_threads_and_leave_torchs_generator_alone() -> None:
    found = []
    threads = torch.get_num_threads()
    state = torch.get_rng_state()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            strategy = PPO(Setting(Bandit(), 0, QUALITY), PPO.Config(batch=20))
            drive(strategy, 60)
            assert torch.get_num_threads() == count
            found.append(strategy.state_dict()["controller"]["weights"])
    finally:
        torch.set_num_threads(threads)
    assert numpy.array_equal(found[0], found[1])
    assert numpy.array_equal(found[0], found[2])
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("kind", [Reinforce, PPO])
def test_a_snapshot_is_plain_and_restores_the_optimiser(kind: Any) -> None:
    """In the middle of a batch; what follows is equal to the last bit."""

    def plain(node: Any) -> bool:
        if isinstance(node, dict):
            return all(isinstance(key, str) and plain(item) for key, item in node.items())
        if isinstance(node, list):
            return all(map(plain, node))
        return node is None or type(node) in (str, int, float, bool, numpy.ndarray)

    make = lambda: kind(Setting(Bandit(), 0, QUALITY), kind.Config(batch=4, units=8))  # noqa: E731
    live, restored = make(), make()
    drive(live, 14)
    assert plain(live.state_dict())
    restored.load_state_dict(live.state_dict())
    drive(live, 10)
    drive(restored, 10)
    assert numpy.array_equal(live.state_dict()["controller"]["moments"], restored.state_dict()["controller"]["moments"])
    assert [live.ask(number, ()) for number in range(20)] == [restored.ask(number, ()) for number in range(20)]


ARCHS = list(itertools.islice(moves.enumerate_all(Bandit()), 10))


def outcome(number: int, values: tuple[float, ...] | None, *violations: float) -> Outcome:
    state = State.COMPLETE if values is not None else State.REJECTED if violations else State.FAILED
    return Outcome(number, Proposal(ARCHS[number]), state, values, violations)


def test_ranks_order_feasibility_then_dominance_and_failures_last() -> None:
    goals = (Objective("quality", "max"), Objective("price", "min"))
    rewards = Rewards(Setting(Bandit(), 0, goals, (Constraint("price", "<=", 1.0),)), "rank")
    assert rewards.add(outcome(0, (0.5, -0.5), 0.0)) == 0.5  # nothing to compare with
    assert rewards.add(outcome(1, (0.6, -0.4), 0.0)) == 0.75  # dominates one of two
    assert rewards.add(outcome(2, (0.7, -0.9), 0.0)) == 0.5  # dominates none, dominated by none
    assert rewards.add(outcome(3, (0.9, -0.1), 2.0)) == 0.5 / 4  # infeasible
    assert rewards.add(outcome(4, None, 1.0)) == 1.5 / 5  # rejected, but less infeasible
    assert rewards.add(outcome(5, None)) == 0.0  # failed: the worst, and no rank for others
    assert rewards.add(outcome(1, (0.6, -0.4), 0.0)) == 4 / 5  # known: counted once, beats 3, ties itself and 2


def test_values_as_rewards() -> None:
    rewards = Rewards(Setting(Bandit(), 0, QUALITY, (Constraint("price", "<=", 1.0),)), "value")
    assert rewards.add(outcome(0, None)) == 0.0
    assert rewards.add(outcome(1, (0.5,), -0.5)) == 0.5
    assert rewards.add(outcome(2, (0.75,), 0.125)) == 0.625
    assert rewards.add(outcome(3, None, 0.25)) == 0.25
    assert rewards.add(outcome(4, None)) == 0.25
    with pytest.raises(UsageError, match="reward 'value' needs one objective, got 2; use reward 'rank'"):
        Rewards(Setting(Bandit(), 0, QUALITY * 2), "value")
    with pytest.raises(UsageError, match="reward"):
        validate(Reinforce.Config, {"reward": "ranks"}, "strategy")


def test_the_baseline_begins_with_the_first_reward() -> None:
    baseline = Baseline(0.9)
    assert baseline.advantage(0.5) == 0.0
    assert baseline.value == 0.5
    assert baseline.advantage(1.5) == 1.0
    assert baseline.value == pytest.approx(0.6)


@pytest.mark.parametrize("kind", [Reinforce, PPO])
def test_constraints_teach(kind: Any) -> None:
    """Arm 4 is dear and candidates with several of it are rejected, never evaluated: they are proposed no longer."""
    setting = Setting(Bandit(), 0, QUALITY, (Constraint("price", "<=", 0.1),))
    strategy = kind(setting, kind.Config(entropy=0.01, units=32))
    feasible = []
    for number in range(250):
        proposal = strategy.ask(number, ())
        price = statistics.fmean(value == 4 for value in proposal.arch.values.values())
        violation = setting.constraints[0].violation(price)
        state, values = (State.REJECTED, None) if violation > 0 else (State.COMPLETE, (1.0,))
        strategy.tell(Outcome(number, proposal, state, values, (violation,)))
        feasible.append(violation <= 0)
    assert statistics.fmean(feasible[:20]) < 0.8
    assert statistics.fmean(feasible[-50:]) > 0.9


@pytest.mark.parametrize("kind", [Reinforce, PPO])
@pytest.mark.parametrize(
    ("data", "seeds", "queries"),
    [
        ("cifar10", 4, 100),
        pytest.param("cifar10", 8, 100, marks=pytest.mark.slow),
        pytest.param("cs", 8, 200, marks=pytest.mark.slow),
    ],
)
def test_beats_random_search(benches: Any, kind: Any, data: str, seeds: int, queries: int) -> None:
    """Validation of the incumbent with the default settings; p < 0.01 over 100 seeds (docs/benchmarks.md)."""
    bench = benches[data]
    found = bench.incumbents(kind, kind.Config(), seeds=seeds, queries=queries)
    uninformed = bench.incumbents(RandomSearch, RandomSearch.Config(), seeds=30, queries=queries)
    means = [statistics.fmean(run["val_accuracy"] for run in runs) for runs in (found, uninformed)]
    assert means[0] > means[1] + 0.1


@pytest.mark.parametrize("kind", [Reinforce, PPO])
def test_the_default_settings_keep_the_contract(kind: Any) -> None:
    """On one space; tests/contracts runs all spaces with smaller controllers."""
    assert list(check(lambda setting: kind(setting, kind.Config()), Mixed(), trials=12, replays=1)) == []
