"""RC-DARTS (Jin et al., 2019): the projection, the expected cost, and results that are within their bounds."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
import torch

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.config import SizeConfig
from nas_core.errors import InfeasibleError, UsageError
from nas_core.evaluation import Constraint
from nas_core.one_shot import Compute
from nas_core.seeds import derive, generator
from nas_core.strategy import Setting
from nas_core.task import IMAGE_CLASSIFICATION, Task
from search_spaces.darts.space import Darts as DartsSpace
from search_spaces.nasbench201.space import CONV3, NasBench201
from search_spaces.supernet.supernet import Supernet
from strategies.one_shot.bounds import Bounds, repair
from strategies.one_shot.darts import Darts
from strategies.one_shot.projection import Band, Solver, descend, project, softmax, violation
from strategies.one_shot.rc_darts import RcDarts
from training.cost import costs, params
from training.data import load
from training.data.loading import Loading
from training.data.split import Split

SPACE = NasBench201()
SIZE = SPACE.Size(channels=4, cells=1)
TASK = Task(kind=IMAGE_CLASSIFICATION, input_shape=(1, 8, 8), outputs=10)
ONE_EDGE = np.ones((1, 2), dtype=bool)
QUARTER = Band(0.0, np.array([[0.0, 1.0]]), upper=0.25)


# -- the projection ---------------------------------------------------------------------------------------------


def test_projection_reaches_the_closed_form() -> None:
    p = softmax(np.zeros((1, 2)), ONE_EDGE)
    assert QUARTER.expected(p) == 0.5
    assert QUARTER.gradient(p).tolist() == [[-0.25, 0.25]]
    for start in (0.01, 1.0, 64.0):
        found = project(np.zeros((1, 2)), ONE_EDGE, [QUARTER], Solver(penalty=start))
        half = math.log(3) / 2
        assert half == pytest.approx(0.549306, abs=1e-6)
        assert found.theta[0] == pytest.approx([half, -half], abs=1e-3)
        assert found.distance == pytest.approx(half * math.sqrt(2), abs=1e-3)
        assert found.violation <= 1e-6


@pytest.mark.parametrize(("fixed", "stops_at"), [(1.0, 0.384), (2.0, 0.301), (4.0, 0.250)])
def test_a_fixed_penalty_is_exact_only_from_its_threshold_on(fixed: float, stops_at: float) -> None:
    assert math.log(3) / 2 / 0.1875 == pytest.approx(2.9297, abs=1e-4)
    solver = Solver(steps=3000, lr=1e-3)
    # the violation is relative to the bound: a penalty of 1 on the cost is 0.25 on it
    theta = descend(np.zeros((1, 2)), np.zeros((1, 2)), ONE_EDGE, [QUARTER], fixed * QUARTER.scale, solver)
    assert QUARTER.expected(softmax(theta, ONE_EDGE)) == pytest.approx(stops_at, abs=1e-3)


def test_a_feasible_point_is_fixed_and_a_projection_idempotent() -> None:
    rng = generator("feasible")
    present = np.arange(5)[None, :] < np.array([5, 3, 4])[:, None]
    table = np.where(present, rng.uniform(0, 100, present.shape), 0.0)
    theta = np.where(present, 3 + rng.normal(size=present.shape), 0.0)
    now = Band(50.0, table).expected(softmax(theta, present))
    inside = project(theta, present, [Band(50.0, table, 0.95 * now, 1.05 * now)], Solver())
    assert np.abs(inside.theta - theta).max() < 1e-8
    assert inside.distance == 0
    bands = [Band(50.0, table, lower=0.87 * now, upper=0.9 * now)]
    first = project(theta, present, bands, Solver())
    again = project(first.theta, present, bands, Solver())
    assert violation(first.theta, present, bands) <= 1e-6
    assert np.abs(again.theta - first.theta).max() < 1e-8
    assert bands[0].expected(softmax(first.theta, present)) == pytest.approx(0.9 * now, rel=1e-6)  # the near bound
    rows = present.sum(1)
    assert first.theta.sum(1) / rows == pytest.approx(theta.sum(1) / rows)
    assert (first.theta[~present] == 0).all()


def test_shifts_of_a_row_do_not_change_the_projection() -> None:
    shift = np.array([[5.0, 5.0]])
    plain, shifted = (project(theta, ONE_EDGE, [QUARTER], Solver()).theta for theta in (0 * shift, shift))
    assert shifted - shift == pytest.approx(plain, abs=1e-6)


@pytest.mark.parametrize(("theta", "band"), [(20.0, (-np.inf, 0.25)), (-20.0, (0.7, 0.75))])
def test_a_saturated_softmax_is_left(theta: float, band: tuple[float, float]) -> None:
    bound = Band(0.0, np.array([[0.0, 1.0]]), *band)
    found = project(np.array([[-theta, theta]]), ONE_EDGE, [bound], Solver())
    assert found.violation <= 1e-6
    assert np.isfinite(found.theta).all()


def test_two_metrics_are_bounded_together() -> None:
    rng = generator("two")
    present = np.ones((4, 3), dtype=bool)
    one, other = (Band(0.0, rng.uniform(0, 1, (4, 3))) for _ in range(2))
    p = softmax(np.zeros((4, 3)), present)
    bands = [
        Band(0.0, one.costs, upper=0.9 * one.expected(p)),
        Band(0.0, other.costs, lower=1.1 * other.expected(p)),
    ]
    found = project(np.zeros((4, 3)), present, bands, Solver())
    assert violation(found.theta, present, bands) <= 1e-6


# -- expected and true costs ------------------------------------------------------------------------------------


def test_expectation_is_the_mean_over_all_architectures() -> None:
    theta, table = np.array([[0.3, -1.0, 0.2], [2.0, 0.0, -0.5]]), np.array([[0.0, 3.0, 7.0], [1.0, 10.0, 4.0]])
    p = softmax(theta, np.ones((2, 3), dtype=bool))
    mean = sum(p[0, one] * p[1, two] * (5 + table[0, one] + table[1, two]) for one, two in product(range(3), repeat=2))
    assert Band(5.0, table).expected(p) == pytest.approx(mean, abs=1e-9)


@pytest.mark.parametrize("metric", ["params", "macs"])
@pytest.mark.parametrize("space", [SPACE, DartsSpace()], ids=["nasbench201", "darts"])
def test_one_hot_alphas_expect_the_cost_of_the_built_network(space: Any, metric: str) -> None:
    size = SIZE if space is SPACE else space.Size(channels=4, layers=4)
    supernet = Supernet(space, TASK, size)
    bounds = Bounds(supernet, [Constraint(metric, "<=", 1e12)])
    widest = max(len(group.options) for group in supernet.groups.values())
    present = np.ones((len(supernet.groups), widest), dtype=bool)
    for number in range(3):
        arch = moves.sample(space, generator("one-hot", number))
        assignment = space.assignment(arch)
        kept = {name: assignment[name] is not None for name in supernet.groups}
        (band,) = bounds.bands(present, kept)
        p = np.zeros_like(band.costs)
        for row, (name, group) in enumerate(supernet.groups.items()):
            if kept[name]:
                p[row, group.options.index(assignment[name])] = 1.0
        true = costs(space, arch, TASK, size, [metric])[metric]
        assert band.expected(p) == bounds.cost(arch, metric) == true
        if metric == "params":
            assert true == params(space.build(arch, TASK, size))


def test_extremes_are_the_cheapest_and_dearest_architectures() -> None:
    bounds = Bounds(Supernet(SPACE, TASK, SIZE), [Constraint("params", "<=", 1e12)])
    every = [bounds.cost(arch, "params") for arch in moves.enumerate_all(SPACE)]
    assert bounds.cost(bounds.extreme("params", -1), "params") == min(every)
    assert bounds.cost(bounds.extreme("params", 1), "params") == max(every)


# -- repair ------------------------------------------------------------------------------------------------------


def test_repair_swaps_what_loses_least_weight_per_cost() -> None:
    bounds = Bounds(Supernet(SPACE, TASK, SIZE), [Constraint("params", "<=", 1e12)])
    dear = bounds.extreme("params", 1)
    names = list(bounds.groups)
    scores = {name: torch.tensor([0.05, 0.1, 0.2, 0.6, 0.05]) for name in names}
    scores[names[2]] = torch.tensor([0.1, 0.38, 0.1, 0.4, 0.02])  # its skip loses least
    bounds.constraints = (Constraint("params", "<=", bounds.cost(dear, "params") - 1),)
    fixed = bounds.repair(dear, scores)
    changed = [name for name in names if fixed.values[name] != dear.values[name]]
    assert changed == [names[2]]
    assert fixed.values[names[2]] == "skip_connect"
    assert bounds.repair(fixed, scores) == fixed


def test_repair_searches_where_no_single_move_helps() -> None:
    supernet = Supernet(SPACE, TASK, SIZE)
    bounds = Bounds(supernet, [Constraint("params", "<=", 1e12)])
    every = sorted({bounds.cost(arch, "params") for arch in moves.enumerate_all(SPACE)})
    for target in every[:: len(every) // 7]:
        band = [Constraint("params", ">=", target), Constraint("params", "<=", target)]
        bounds = Bounds(supernet, band)
        found = bounds.repair(bounds.extreme("params", 1), {name: torch.rand(5) for name in supernet.groups})
        assert bounds.cost(found, "params") == target
    least = repair(SPACE, found, lambda arch: 0.0, lambda arch: abs(bounds.cost(arch, "params") - every[0] + 0.5))
    assert bounds.cost(least, "params") == every[0]


# -- bad input ----------------------------------------------------------------------------------------------------


def rc_darts(constraints: Sequence[Constraint], space: Any = SPACE, size: Any = SIZE, **changes: Any) -> RcDarts:
    config = RcDarts.Config(**{"epochs": 2, "batch_size": 32, "warm_up_epochs": 0, "alpha_lr": 0.01, **changes})
    return started(RcDarts(Setting(space, 3, (), tuple(constraints)), config), space, size)


def started(strategy: Any, space: Any = SPACE, size: Any = SIZE) -> Any:
    data = load("digits", Split(limit=120)).bind("cpu", Loading(batch_size=32, channels_last=True))

    def make() -> Supernet:
        with torch.random.fork_rng([]):
            torch.manual_seed(1)
            return Supernet(space, data.task, size)

    torch.manual_seed(derive(3, "start", "one-shot"))
    strategy.start(make, data, Compute())
    return strategy


def train(strategy: Any, epochs: range) -> list[Any]:
    progress = []
    for epoch in epochs:
        torch.manual_seed(derive(3, epoch, "one-shot"))
        progress.append(strategy.step(epoch))
    return progress


def at_most(bound: float) -> list[Constraint]:
    return [Constraint("params", "<=", bound)]


def test_bounds_that_cannot_be_met_fail_at_once_with_the_numbers() -> None:
    cheapest, dearest = (
        costs(SPACE, SPACE.from_text(f"|{op}~0|+|{op}~0|{op}~1|+|{op}~0|{op}~1|{op}~2|"), TASK, SIZE, ["params"])
        for op in ("none", CONV3)
    )
    least, most = int(cheapest["params"]), int(dearest["params"])
    with pytest.raises(UsageError, match=rf"params<={least - 1}:.* {least},.* {most}"):
        rc_darts(at_most(least - 1))
    with pytest.raises(UsageError, match=rf"params>={most + 1}:.* {least},.* {most}"):
        rc_darts([Constraint("params", ">=", most + 1)])
    with pytest.raises(UsageError, match="exclude each other"):
        rc_darts([*at_most(most - 10), Constraint("params", ">=", most - 5)])
    with pytest.raises(InfeasibleError, match="nearest"):
        rc_darts([*at_most(least + 2), Constraint("params", ">=", least + 1)])
    assert rc_darts(at_most(least)).bounds.limits("params") == (-np.inf, least)


def test_other_metrics_and_costs_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(UsageError, match=r"latency_ms<=3.*params and macs"):
        RcDarts(Setting(SPACE, 0, (), (Constraint("latency_ms", "<=", 3.0),)), RcDarts.Config())

    class Odd(NasBench201):
        def costs(self, arch: Architecture, task: Task, size: SizeConfig) -> Mapping[str, float]:
            found = super().costs(arch, task, size)
            return {**found, "params": found["params"] + 7}

    with pytest.raises(UsageError, match="do not add up"):
        rc_darts(at_most(20_000), Odd())
    with pytest.raises(ValueError, match="leaves none of 5 epochs"):
        RcDarts.Config(epochs=5, warm_up_epochs=5)
    assert [RcDarts.Config(epochs=epochs).warm_up for epochs in (1, 5, 20, 50, 100)] == [0, 1, 6, 15, 15]


# -- searches ------------------------------------------------------------------------------------------------------


def prefer_convolutions(strategy: RcDarts) -> RcDarts:
    """As if a search had found that dear operations are good."""
    rng = generator("alphas")
    with torch.no_grad():
        for vector in strategy.alphas:
            vector.copy_(torch.tensor([-1.0, 0.0, 1.0, 2.0, -1.0]) + torch.from_numpy(rng.normal(size=5)) / 2)
    return strategy


def test_bounds_bind_and_lower_ones_too() -> None:
    free = prefer_convolutions(rc_darts([], epochs=1))
    train(free, range(1))
    unconstrained = costs(SPACE, free.result()[0], TASK, SIZE, ["params"])["params"]
    found = []
    for share in (0.3, 0.5, 0.8):
        bound = share * unconstrained
        strategy = prefer_convolutions(rc_darts(at_most(bound), epochs=1))
        (progress,) = train(strategy, range(1))
        assert progress.metrics["projected"] > 0 or share == 0.8  # the expectation is below what is derived
        assert progress.metrics["expected_params"] <= bound * (1 + 1e-5)
        (arch,) = strategy.result()
        assert arch == progress.arch
        found.append(float(params(SPACE.build(arch, TASK, SIZE))))
        assert found[-1] == progress.metrics["derived_params"] <= bound
    assert found == sorted(found)
    upper = 0.5 * unconstrained
    band = [*at_most(upper), Constraint("params", ">=", 0.95 * upper)]
    strategy = prefer_convolutions(rc_darts(band, epochs=1))
    train(strategy, range(1))
    assert 0.95 * upper <= params(SPACE.build(strategy.result()[0], TASK, SIZE)) <= upper


def test_penalty_alone_promises_nothing() -> None:
    strategy = prefer_convolutions(rc_darts(at_most(8000), epochs=1, projection=False))
    (progress,) = train(strategy, range(1))
    assert "projected" not in progress.metrics
    assert progress.metrics["derived_params"] > 8000
    assert strategy.result() == [progress.arch]
    # but it pulls the expected cost down, the more the heavier it is
    before = prefer_convolutions(rc_darts(at_most(8000), projection=False)).expected()["params"]
    heavy = prefer_convolutions(rc_darts(at_most(8000), epochs=1, projection=False, penalty=1e3, alpha_lr=0.1))
    (pulled,) = train(heavy, range(1))
    assert pulled.metrics["expected_params"] < progress.metrics["expected_params"] < before


def test_adam_forgets_where_a_projection_has_moved() -> None:
    strategy = prefer_convolutions(rc_darts(at_most(8000)))
    (progress,) = train(strategy, range(1))
    assert progress.metrics["projected"] > 0
    assert not strategy.alphas.optimizer.state
    loose = prefer_convolutions(rc_darts(at_most(1e6)))
    (progress,) = train(loose, range(1))
    assert progress.metrics["projected"] == 0
    assert loose.alphas.optimizer.state


def test_without_constraints_it_is_darts() -> None:
    ours = rc_darts([], warm_up_epochs=1)
    config = Darts.Config(epochs=2, batch_size=32, alpha_lr=0.01, warm_up_epochs=1)
    theirs = started(Darts(Setting(SPACE, 3, ()), config))
    begun = copy.deepcopy(ours.alphas.vectors)
    for epoch in range(2):
        (one,), (other,) = train(ours, range(epoch, epoch + 1)), train(theirs, range(epoch, epoch + 1))
        assert one.strengths == other.strengths
        assert all(torch.equal(begun[name], vector) for name, vector in ours.alphas.vectors.items()) == (epoch == 0)


def test_without_none_neither_derives_nor_counts_it() -> None:
    supernet = Supernet(SPACE, TASK, SIZE)
    bounds = Bounds(supernet, at_most(1e12), none=False)
    assert bounds.counted.sum() == 6 * 4
    assert bounds.present.sum() == 6 * 5
    for sign, option in ((-1, {"skip_connect", "avg_pool_3x3"}), (1, {CONV3})):
        assert set(bounds.extreme("params", sign).values.values()) <= option

    table = bounds.costs["params"].operations["cell/edge.0-1"].tolist()
    for projection in (True, False):
        strategy = rc_darts(at_most(9000), none=False, projection=projection, bilevel=False, epochs=1)
        with torch.no_grad():
            for vector in strategy.alphas:
                vector.copy_(torch.tensor([4.0, 0.0, 0.0, 1.0, 0.0]))  # none is far ahead
        given_others = (sum(table) + (math.e - 1) * table[3]) / (3 + math.e)
        expected = strategy.bounds.costs["params"].fixed + 6 * given_others
        assert strategy.expected()["params"] == pytest.approx(expected, rel=1e-6)
        if not projection:
            kept = dict.fromkeys(strategy.alphas.vectors, True)
            found = strategy._violation(strategy.alphas.softmax(), kept)
            assert float(found.detach()) == pytest.approx(expected / 9000 - 1, rel=1e-4)
            continue
        (progress,) = train(strategy, range(1))
        assert progress.metrics["projected"] > 0
        assert progress.metrics["expected_params"] <= 9000 * (1 + 1e-5)
        assert all(weights[0] > 0.5 for weights in progress.strengths.values())  # none still leads, and is passed over
        (arch,) = strategy.result()
        assert "none" not in arch.values.values()
        assert params(SPACE.build(arch, TASK, SIZE)) <= 9000


def test_no_repair_takes_what_is_barred() -> None:
    supernet = Supernet(SPACE, TASK, SIZE)
    scores = {name: torch.tensor([0.3, 0.1, 0.1, 0.4, 0.1]) for name in supernet.groups}
    dear = supernet.derive(scores)
    taken = []
    for none in (True, False):
        bounds = Bounds(supernet, at_most(6000), none)
        fixed = bounds.repair(dear, scores)
        assert bounds.cost(fixed, "params") <= 6000
        taken.append("none" in fixed.values.values())
    assert taken == [True, False]


def test_one_level_alone_is_single_level_darts() -> None:
    changes = {"epochs": 2, "batch_size": 32, "alpha_lr": 0.01, "warm_up_epochs": 1, "bilevel": False, "none": False}
    ours = rc_darts([], **changes)
    theirs = started(Darts(Setting(SPACE, 3, ()), Darts.Config(**changes)))
    for epoch in range(2):
        (one,), (other,) = train(ours, range(epoch, epoch + 1)), train(theirs, range(epoch, epoch + 1))
        assert one.strengths == other.strengths
        assert one.arch == other.arch
    # the penalty pulls in this mode too, and towards a lower bound as well
    pulled = []
    for constraint in (at_most(5000), [Constraint("params", ">=", 20_000)]):
        heavy = rc_darts(constraint, projection=False, penalty=1e3, alpha_lr=0.1, bilevel=False, none=False, epochs=1)
        before = heavy.expected()["params"]
        pulled.append(train(heavy, range(1))[0].metrics["expected_params"] - before)
    assert pulled[0] < 0 < pulled[1]


def test_goes_on_from_its_state_bit_for_bit() -> None:
    whole = prefer_convolutions(rc_darts(at_most(9000)))
    train(whole, range(1))
    state = copy.deepcopy(whole.state_dict())
    last = train(whole, range(1, 2))[0]
    resumed = rc_darts(at_most(9000))
    resumed.load_state_dict(state)
    assert train(resumed, range(1, 2))[0] == last
    assert resumed.result() == whole.result()
    again = resumed.supernet.state_dict()
    for name, tensor in whole.supernet.state_dict().items():
        assert torch.equal(tensor, again[name])


def test_levels_have_tables_of_their_own() -> None:
    space = DartsSpace(levels=3)
    size = space.Size(channels=2, layers=5)
    strategy = rc_darts([], space, size)
    assert len({name.partition("/")[0] for name in strategy.alphas.vectors}) == 3 + 2
    batch = next(strategy.weights.data.batches("alphas", 0, 3))
    strategy.weights.loss(batch, strategy.relaxed()).backward()
    tables: dict[str, dict[str, Any]] = {}
    for name, vector in strategy.alphas.vectors.items():
        cell, _, edge = name.partition("/")
        tables.setdefault(cell, {})[edge] = vector.grad
    for one, other in combinations(tables.values(), 2):
        assert any(not torch.equal(one[edge], other[edge]) for edge in one)

    bounds = Bounds(strategy.supernet, at_most(1e12))
    least, most = (bounds.cost(bounds.extreme("params", sign), "params") for sign in (-1, 1))
    upper = least + 0.4 * (most - least)
    strategy.bounds = Bounds(strategy.supernet, [*at_most(upper), Constraint("params", ">=", 0.97 * upper)])
    assert sum(strategy._kept(strategy._theta()).values()) == 40  # of 70 edges
    assert strategy._project() > 0
    assert 0.97 * upper * (1 - 1e-5) <= strategy.expected()["params"] <= upper * (1 + 1e-5)
    assert 0.97 * upper <= params(space.build(strategy.result()[0], strategy.supernet.task, size)) <= upper


def test_all_edges_count_where_asked_to() -> None:
    space = DartsSpace()
    size = space.Size(channels=2, layers=3)
    strategy = rc_darts(at_most(1e12), space, size, edges="all")
    whole = strategy.bounds.costs["params"].expected(strategy._strengths())
    assert strategy.expected()["params"] == pytest.approx(float(whole), rel=1e-6)
    kept = rc_darts(at_most(1e12), space, size)
    assert kept.expected()["params"] < strategy.expected()["params"]
