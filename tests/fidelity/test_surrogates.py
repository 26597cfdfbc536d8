"""Surrogates on encoded rows, auto and transfer: closed forms, what they learn, how sure they are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy
import pytest
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import spearmanr
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.choice import Choice
from nas_core.errors import UsageError, unknown
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from nas_core.task import IMAGE_CLASSIFICATION, Task
from predictors.scoring import ScoreTable
from predictors.surrogate import Problem
from predictors.surrogates.auto import PROXIES, Auto, AutoConfig
from predictors.surrogates.boosted_trees import Bags, BoostedTrees, BoostedTreesConfig
from predictors.surrogates.gp import GaussianProcess, GaussianProcessConfig, Process
from predictors.surrogates.random_forest import RandomForest, RandomForestConfig
from predictors.surrogates.ridge import LinearPosterior, Ridge, RidgeConfig
from predictors.surrogates.rows import Scaling
from predictors.targets import NormalScores
from predictors.transfer import Transfer
from search_spaces.nasbench201.space import NasBench201, Size

CELLS = NasBench201()
ONE_HOT = ("one-hot",)
Floats = NDArray[numpy.float64]


class Slots(SearchSpace):
    """Six choices of five options."""

    name = "slots"
    tasks = frozenset({IMAGE_CLASSIFICATION})
    choices = tuple(Choice(f"x{slot}", tuple("abcde")) for slot in range(6))


def fitted(kind: Any, config: Any, archs: Sequence[Architecture], values: Any, problem: Problem) -> Any:
    model = kind(problem, config)
    model.fit(archs, values)
    return model


def spearman(one: Any, other: Any) -> float:
    return float(spearmanr(one, other)[0])


def pearson(one: Floats, other: Floats) -> float:
    return float(numpy.corrcoef(one, other)[0, 1])


@pytest.fixture(scope="module")
def slots() -> tuple[NDArray[numpy.int64], list[Architecture]]:
    rows = generator("slots").integers(0, 5, (1000, 6))
    return rows, [Architecture("slots", {f"x{i}": "abcde"[value] for i, value in enumerate(row)}) for row in rows]


class Recorded:
    """The benchmark's scores on CIFAR-10, and the parameters of the benchmark's networks."""

    def __init__(self, data: Path) -> None:
        self._table = ScoreTable(CELLS, data / "nb201_proxies.csv.gz", "cifar10")
        self._task = Task(kind=IMAGE_CLASSIFICATION, input_shape=(3, 32, 32), outputs=10)

    def __call__(self, name: str, archs: Sequence[Architecture]) -> list[float]:
        if name == "params":
            return [CELLS.costs(arch, self._task, Size())["params"] for arch in archs]
        self._table.names(name)
        return [found.values[name] for found in self._table.score(archs, [name])]


@pytest.fixture(scope="module")
def recorded(shared_data: Path) -> Recorded:
    return Recorded(shared_data)


class Split:
    """Cells drawn uniformly, and others of none of their identities, with the table's validation accuracy."""

    def __init__(self, bench: Any, seed: int, count: int = 100, held_out: int = 600) -> None:
        archs = list(moves.enumerate_all(CELLS))
        order = generator("split", seed).permutation(len(archs))
        self.archs = [archs[position] for position in order[:count]]
        known = {CELLS.identity(arch) for arch in self.archs}
        others = (archs[position] for position in order[count:])
        self.others = list(islice((arch for arch in others if CELLS.identity(arch) not in known), held_out))
        self.values, self.truth = (
            numpy.array([bench.look_up(arch)["val_accuracy"] for arch in some]) for some in (self.archs, self.others)
        )


# -- closed forms ---------------------------------------------------------------------------------------------


def test_the_process_is_that_of_scikit_learn() -> None:
    rng = generator("closed form")
    rows, targets, others = rng.normal(size=(40, 7)), rng.normal(size=40), rng.normal(size=(30, 7))
    config = GaussianProcessConfig(norm=3.0)
    process = Process(rows, targets, ["block"] * 7, config)
    scaling = Scaling(rows, ["block"] * 7, 3.0, 1.0)
    best = None
    for scale in config.length_scales:
        for noise in config.noises:
            # For a given shape of the kernel the best amplitude is the mean square of the whitened targets.
            shape = RBF(scale, "fixed") + WhiteKernel(noise, "fixed")
            gram = shape(scaling(rows))
            amplitude = float(targets @ numpy.linalg.solve(gram, targets)) / 40
            constant = ConstantKernel(amplitude, "fixed")
            # scikit-learn's own noise is no part of its predictive standard deviation.
            model = GaussianProcessRegressor(constant * RBF(scale, "fixed"), alpha=amplitude * noise, optimizer=None)
            model.fit(scaling(rows), targets)
            if best is None or model.log_marginal_likelihood_value_ > best[0]:
                best = (model.log_marginal_likelihood_value_, scale, noise, amplitude, model)
    assert best is not None
    assert (process.length_scale, process.noise) == best[1:3]
    assert process.amplitude == pytest.approx(best[3])
    mean, deviation = best[4].predict(scaling(others), return_std=True)
    found, variance = process.predict(others)
    assert found == pytest.approx(mean)
    assert variance == pytest.approx(deviation**2, abs=1e-8)


def test_ridge_is_the_normal_equations() -> None:
    rng = generator("normal equations")
    for count, columns in ((40, 7), (12, 30)):
        rows, targets, others = rng.normal(size=(count, columns)), rng.normal(size=count), rng.normal(size=(9, columns))
        model = LinearPosterior(rows, targets, ["block"] * columns, RidgeConfig())
        scaling = Scaling(rows, ["block"] * columns, 1.0, 1.0)
        x, new, centred = scaling(rows), scaling(others), targets - targets.mean()
        gram = x.T @ x + model.penalty * numpy.eye(columns)
        mean, variance = model.predict(others)
        assert mean == pytest.approx(targets.mean() + new @ numpy.linalg.solve(gram, x.T @ centred))
        kernel = x @ x.T + model.penalty * numpy.eye(count)
        power = float(centred @ numpy.linalg.solve(kernel, centred)) / count
        covariance = power * model.penalty * numpy.linalg.inv(gram)
        assert variance == pytest.approx(numpy.einsum("ij,jk,ik->i", new, covariance, new))
        # The evidence of the chosen penalty is the largest of the grid.
        evidence = []
        for penalty in RidgeConfig().penalties:
            gram = x @ x.T + penalty * numpy.eye(count)
            fit = float(centred @ numpy.linalg.solve(gram, centred)) / count
            evidence.append(-0.5 * count * numpy.log(fit) - 0.5 * numpy.linalg.slogdet(gram)[1])
        assert RidgeConfig().penalties[int(numpy.argmax(evidence))] == model.penalty


def test_blocks_share_the_norm_and_scores_stand_alone() -> None:
    rows = generator("scaling").normal(size=(50, 9)) * numpy.arange(1, 10)
    rows[:, 2] = 7.0  # constant: counts nothing
    groups = ["a"] * 4 + ["b"] * 2 + ["proxies"] * 3
    scaled = Scaling(rows, groups, 6.0, 2.1)(rows)
    squares = (scaled**2).mean(axis=0)
    assert squares[:4].sum() == pytest.approx(18)
    assert squares[4:6].sum() == pytest.approx(18)
    assert squares[6:] == pytest.approx([2.1**2] * 3)
    assert not scaled[:, 2].any()


def test_normal_scores_of_constants() -> None:
    found, scores = NormalScores.of(numpy.full(4, 3.5))
    assert scores == pytest.approx(numpy.zeros(4))
    assert found.back(numpy.array([-9.0, 0, 9])) == pytest.approx([3.5] * 3)
    assert found.spread(numpy.zeros(2), numpy.ones(2)) == pytest.approx([0, 0])


# -- what they learn ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "config", "least"),
    [
        (Ridge, RidgeConfig(blocks=ONE_HOT), 0.999),
        (GaussianProcess, GaussianProcessConfig(blocks=ONE_HOT), 0.99),
        (BoostedTrees, BoostedTreesConfig(blocks=ONE_HOT), 0.95),
        (RandomForest, RandomForestConfig(blocks=ONE_HOT), 0.85),
        (Auto, AutoConfig(blocks=ONE_HOT), 0.98),
    ],
)
def test_an_additive_target(slots: Any, kind: Any, config: Any, least: float) -> None:
    """Check 1 of the card: 1.0 there for ridge and the Gaussian process, 0.985 for trees of depth 4."""
    rows, archs = slots
    values = generator("weights").normal(size=(6, 5))[numpy.arange(6), rows].sum(1)
    mean, _ = fitted(kind, config, archs[:200], values[:200], Problem(Slots())).predict(archs[200:])
    assert spearman(mean, values[200:]) > least


@pytest.mark.parametrize(
    ("kind", "config", "least", "most"),
    [
        (Ridge, RidgeConfig(blocks=ONE_HOT, share=0.9), -0.2, 0.2),
        (GaussianProcess, GaussianProcessConfig(blocks=ONE_HOT, share=0.9), 0.5, 1),
        (BoostedTrees, BoostedTreesConfig(blocks=ONE_HOT, share=0.9), 0.7, 1),
    ],
)
def test_an_interaction(slots: Any, kind: Any, config: Any, least: float, most: float) -> None:
    """Check 1 of the card, Pearson: 0.03 for ridge there, 0.66 for a Gaussian process, 0.90 for trees of depth 4.

    Its values are nearly the same but for 1 in 5: ranks alone would make them mostly noise.
    """
    rows, archs = slots
    values = (rows[:, 0] == rows[:, 1]) + 1e-3 * generator("noise").normal(size=len(rows))
    mean, _ = fitted(kind, config, archs[:200], values[:200], Problem(Slots())).predict(archs[200:])
    assert least <= pearson(mean, values[200:]) <= most


@pytest.mark.parametrize(
    ("kind", "config", "least"),
    [
        (GaussianProcess, GaussianProcessConfig(blocks=ONE_HOT), 0.80),
        (GaussianProcess, GaussianProcessConfig(), 0.88),
        (Ridge, RidgeConfig(), 0.84),
        (RandomForest, RandomForestConfig(), 0.87),
        (BoostedTrees, BoostedTreesConfig(), 0.88),
        (Auto, AutoConfig(proxies=()), 0.88),
    ],
    ids=["gp-one-hot", "gp", "ridge", "random-forest", "boosted-trees", "auto"],
)
@pytest.mark.parametrize("splits", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_the_benchmark(benches: Any, kind: Any, config: Any, least: float, splits: int) -> None:
    """Checks 2 and 4 of the card: 100 cells drawn uniformly, splits by identity."""
    found, covered, sure = [], [], []
    for seed in range(splits):
        split = Split(benches["cifar10"], seed)
        mean, deviation = fitted(kind, config, split.archs, split.values, Problem(CELLS, seed)).predict(split.others)
        found.append(spearman(mean, split.truth))
        covered.append((abs(mean - split.truth) <= deviation).mean())
        sure.append(spearman(abs(mean - split.truth), deviation))
    assert numpy.mean(found) >= least
    assert numpy.mean(sure) > 0.1
    if kind is not Ridge:  # its standard deviation is that of the linear function, which the truth is not
        assert 0.5 <= numpy.mean(covered) <= 0.85


@pytest.mark.parametrize("splits", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_the_benchmark_with_proxies(benches: Any, recorded: Recorded, splits: int) -> None:
    """At least 0.90 at 100 observations; with few observations no worse than the proxies' mean rank, which is 0.8."""
    found, few = [], []
    for seed in range(splits):
        split = Split(benches["cifar10"], seed)
        problem = Problem(CELLS, seed, recorded)
        model = fitted(Auto, AutoConfig(), split.archs, split.values, problem)
        found.append(spearman(model.predict(split.others)[0], split.truth))
        if seed < 4:
            model.fit(split.archs[:10], split.values[:10])
            few.append(spearman(model.predict(split.others)[0], split.truth))
    assert numpy.mean(found) >= 0.90
    assert numpy.mean(few) >= 0.77


@pytest.mark.parametrize("kind", [Ridge, GaussianProcess, RandomForest, BoostedTrees, Auto])
@pytest.mark.parametrize("splits", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_shuffled_labels_teach_nothing(benches: Any, kind: Any, splits: int) -> None:
    """Check 2 of the card."""
    found = []
    for seed in range(splits):
        split = Split(benches["cifar10"], seed, held_out=400)
        values = generator("shuffled", seed).permutation(split.values)
        mean, _ = fitted(kind, kind.Config(), split.archs, values, Problem(CELLS, seed)).predict(split.others)
        found.append(0.0 if numpy.ptp(mean) == 0 else spearman(mean, split.truth))
    # Rankings by one draw of labels go along with a few traits of cells: each split alone is far from independent.
    assert abs(numpy.mean(found)) < 0.2


# -- how sure they are ----------------------------------------------------------------------------------------


def test_far_away_is_less_sure(slots: Any) -> None:
    """Check 4 of the card: all observations but one share half of their values, of which the last has none."""
    _, archs = slots
    near = [Architecture("slots", {**arch.values, "x0": "a", "x1": "a", "x2": "a"}) for arch in archs[:40]]
    other = Architecture("slots", {**archs[40].values, "x0": "b", "x1": "b", "x2": "b"})
    far = Architecture("slots", {**archs[41].values, "x0": "c", "x1": "d", "x2": "e"})
    values = ndtri((generator("near").permutation(41) + 0.5) / 41)  # normal scores are themselves
    model = fitted(GaussianProcess, GaussianProcessConfig(blocks=ONE_HOT), [*near, other], values, Problem(Slots()))
    _, deviation = model.predict([*near, other, far])
    assert deviation[-1] > 1.5 * deviation[:-1].max()


def test_noise_of_an_observation(slots: Any) -> None:
    _, archs = slots
    values = generator("noisy").normal(size=100)
    latent, noisy = (
        fitted(
            GaussianProcess,
            GaussianProcessConfig(blocks=ONE_HOT, with_noise=with_noise),
            archs[:100],
            values,
            Problem(Slots()),
        ).predict(archs[100:200])
        for with_noise in (False, True)
    )
    assert latent[0] == pytest.approx(noisy[0])
    assert (noisy[1] > latent[1]).all()


def test_duplicates_are_left_out_together() -> None:
    """Values that nothing explains: seen twice, they must not look as if they could be predicted."""
    rng = generator("twice")
    rows, targets = rng.normal(size=(40, 5)), rng.normal(size=40)
    config = BoostedTreesConfig()
    once, twice = Bags(rows, targets, config, 0), Bags(numpy.repeat(rows, 2, 0), numpy.repeat(targets, 2), config, 0)
    assert once.floor + once.predict(rows)[1].mean() > 0.5
    assert twice.floor > 0.5 * once.floor


# -- few observations, few scores -----------------------------------------------------------------------------


def fake(names: Sequence[str]) -> Any:
    """Scores that count convolutions, and say how often each name was asked for."""

    def score(name: str, archs: Sequence[Architecture]) -> list[float]:
        if name not in names:
            raise unknown("score", name, names)
        return [float(sum("conv" in str(value) for value in arch.values.values())) for arch in archs]

    return score


def test_few_observations_leave_the_order_to_the_proxies() -> None:
    archs = [moves.sample(CELLS, generator("few", number)) for number in range(60)]
    convolutions = fake(["naswot"])("naswot", archs)
    model = fitted(Auto, AutoConfig(), archs[:7], numpy.arange(7.0), Problem(CELLS, 0, fake(["naswot", "params"])))
    mean, deviation = model.predict(archs)
    assert spearman(mean, convolutions) == pytest.approx(1)
    assert deviation.min() > 0.5  # the values are 0 to 6
    model.fit(archs[:50], -numpy.array(convolutions[:50]))  # proxies that are wrong are overruled
    assert spearman(model.predict(archs[50:])[0], convolutions[50:]) < -0.9


def test_few_observations_without_proxies() -> None:
    archs = [moves.sample(CELLS, generator("few", number)) for number in range(30)]
    mean, deviation = fitted(Auto, AutoConfig(), archs[:7], [3.0, 1, 2, 7, 5, 6, 4], Problem(CELLS)).predict(archs)
    assert mean == pytest.approx(numpy.full(30, 4.0))
    assert 1.5 < deviation.min() == deviation.max() < 4


def test_proxies_that_the_study_has() -> None:
    """Of the default those that there are; what is named must be there."""
    problem = Problem(CELLS, 0, fake(["naswot", "synflow"]))
    assert "naswot" in PROXIES
    assert "synflow" not in PROXIES
    assert [name for name in Auto(problem, AutoConfig())._rows.names if name in (*PROXIES, "synflow")] == ["naswot"]
    Auto(problem, AutoConfig(proxies=("synflow",)))
    Auto(Problem(CELLS), AutoConfig())
    for kind in (Auto, GaussianProcess, Ridge, RandomForest, BoostedTrees):
        with pytest.raises(UsageError, match="unknown score 'zen'"):
            kind(problem, kind.Config(proxies=("naswot", "zen")))
        with pytest.raises(UsageError, match="this study has none"):
            kind(Problem(CELLS), kind.Config(proxies=("naswot",)))
        with pytest.raises(UsageError, match="has not been fitted"):
            kind(Problem(CELLS), kind.Config()).predict([])


# -- transfer -------------------------------------------------------------------------------------------------


def test_transfer_between_data_sets(benches: Any) -> None:
    """CIFAR-10 to CIFAR-100: with 10 observations better than without a source, and no worse with more."""
    source, target = Split(benches["cifar10"], 0, count=200), Split(benches["cifar100"], 1, count=60)
    auto = fitted(Auto, AutoConfig(), source.archs, source.values, Problem(CELLS))
    model = Transfer(Problem(CELLS), auto)
    for count, least in ((2, 0.9), (10, 0.9), (60, 0.91)):
        model.fit(target.archs[:count], target.values[:count])
        mean, deviation = model.predict(target.others)
        assert model.used
        assert spearman(mean, target.truth) > least
    assert 0.5 <= (abs(mean - target.truth) <= deviation).mean() <= 0.85
    assert abs(numpy.median(mean) - numpy.median(target.truth)) < 0.05  # in the units of the new study
    alone = fitted(Auto, AutoConfig(), target.archs[:10], target.values[:10], Problem(CELLS))
    assert spearman(alone.predict(target.others)[0], target.truth) < 0.8


def test_a_source_is_not_judged_by_what_it_likes_alike(benches: Any) -> None:
    """Its ten best say little of it, whatever their ranks among one another: it is kept where they rank at random, and
    dropped where what it likes and what it does not like come out the other way."""
    source = Split(benches["cifar10"], 0, count=200)
    auto = fitted(Auto, AutoConfig(), source.archs, source.values, Problem(CELLS))
    model = Transfer(Problem(CELLS), auto)
    best = [source.others[place] for place in numpy.argsort(-auto.predict(source.others)[0])]
    for seed in range(4):
        model.fit(best[:10], list(generator("ranks", seed).permutation(10).astype(float)))
        assert model.used
    model.fit([*best[:5], *best[-5:]], [float(place) for place in range(10)])
    assert not model.used


def test_a_source_that_disagrees_is_dropped() -> None:
    archs = [moves.sample(CELLS, generator("disagree", number)) for number in range(60)]
    values = [float(sum(str(value).startswith("nor_conv") for value in arch.values.values())) for arch in archs]
    problem = Problem(CELLS)
    source = fitted(GaussianProcess, GaussianProcessConfig(), archs, values, problem)
    model = Transfer(problem, source)
    reverse = [-value for value in values]
    for count in (5, 30):
        model.fit(archs[:count], reverse[:count])
        assert not model.used
    assert spearman(model.predict(archs[30:])[0], reverse[30:]) > 0.5
    alone = fitted(Auto, AutoConfig(), archs[:30], reverse[:30], problem)
    assert model.predict(archs)[0] == pytest.approx(alone.predict(archs)[0])
    model.fit(archs[:30], values[:30])
    assert model.used
    model.fit(archs[:30], [1.0] * 30)  # nothing to agree with
    assert model.predict(archs)[0] == pytest.approx(numpy.ones(60))
    with pytest.raises(UsageError, match="at least 2 observations"):
        model.fit(archs[:1], values[:1])
    with pytest.raises(UsageError, match="has not been fitted"):
        Transfer(problem, source).predict(archs)
