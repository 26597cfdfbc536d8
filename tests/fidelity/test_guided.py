"""Guided searches: what is proposed, what is scored, and what the inner strategies see."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy
import pytest

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.choice import Choice
from nas_core.config import Config as BaseConfig
from nas_core.config import validate
from nas_core.errors import UsageError
from nas_core.evaluation import Objective
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from nas_core.strategy import Outcome, Pending, Proposal, Setting, State
from predictors.ranking import ranking
from predictors.surrogate import Problem
from search_spaces.nasbench201.space import NasBench201
from strategies.basic.local_search import LocalSearch
from strategies.basic.random_search import RandomSearch
from strategies.model_based.bananas import Bananas
from strategies.model_based.genetic_predictor import GeneticPredictor
from strategies.model_based.surrogate_search import acquire
from strategies.parts.scored_pool import ProxyRanks, sampled
from strategies.reinforcement.ppo import PPO
from strategies.wrappers.proxy_filter import ProxyFilter
from strategies.wrappers.warm_up import WarmUp

QUALITY = (Objective("quality", "max"),)
CELLS = NasBench201()


class Additive(SearchSpace):
    """4,096 architectures; the quality is a sum over the choices."""

    name = "additive"
    tasks = frozenset({"image-classification"})
    choices = tuple(Choice(f"c{place}", tuple("abcd")) for place in range(6))


class Few(SearchSpace):
    """Nine architectures."""

    name = "few"
    tasks = frozenset({"image-classification"})
    choices = (Choice("a", (0, 1, 2)), Choice("b", (0, 1, 2)))


ADDITIVE = Additive()
WEIGHTS = {
    (choice.name, option): math.sin(7 * place + 3 * column + 1)
    for place, choice in enumerate(ADDITIVE.choices)
    for column, option in enumerate(choice.options)
}


def quality(arch: Architecture) -> float:
    return sum(WEIGHTS[name, option] for name, option in arch.values.items())


def judge(arch: Architecture) -> dict[str, float]:
    return {"quality": quality(arch)}


class Scores:
    """Scores that agree with the quality; `asked` are the architectures that were scored."""

    def __init__(self, score: Callable[[Architecture], float] = quality) -> None:
        self.asked: dict[str, None] = {}
        self._score = score

    def __call__(self, predictor: str, archs: Sequence[Architecture]) -> list[float]:
        self.asked.update(dict.fromkeys(arch.key for arch in archs))
        return [self._score(arch) for arch in archs]


def setting(score: Scores | None = None, space: SearchSpace = ADDITIVE, seed: int = 0, **more: Any) -> Setting:
    return Setting(space, seed, QUALITY, score=score, **more)


def make(kind: Any, given: Setting, **config: Any) -> Any:
    return kind(given, validate(kind.Config, config, "strategy"))


def complete(number: int, proposal: Proposal, value: float | None = None) -> Outcome:
    return Outcome(number, proposal, State.COMPLETE, (quality(proposal.arch) if value is None else value,))


def told(strategy: Any, count: int) -> list[Proposal]:
    """The first proposals, one at a time."""
    found = []
    for number in range(count):
        found.append(strategy.ask(number, ()))
        strategy.tell(complete(number, found[-1]))
    return found


class Spy:
    """A surrogate that believes in the score "c0=b" and keeps what it is asked."""

    class Config(BaseConfig):
        pass

    made: ClassVar[list[Spy]] = []

    def __init__(self, problem: Problem, config: Config) -> None:
        self.problem = problem
        self.fits: list[tuple[list[Architecture], list[float]]] = []
        self.asked: list[list[Architecture]] = []
        Spy.made.append(self)

    def fit(self, archs: Sequence[Architecture], values: Sequence[float]) -> None:
        self.fits.append((list(archs), list(values)))

    def predict(self, archs: Sequence[Architecture]) -> tuple[Any, Any]:
        self.asked.append(list(archs))
        return self.mean(archs), self.deviation(archs)

    @staticmethod
    def mean(archs: Sequence[Architecture]) -> Any:
        return numpy.array([int(arch.key[:4], 16) / 65536 for arch in archs])

    @staticmethod
    def deviation(archs: Sequence[Architecture]) -> Any:
        return numpy.array([int(arch.key[4:8], 16) / 65536 for arch in archs])


SPY = f"{__file__}:Spy"


def spied(given: Setting, **config: Any) -> tuple[Any, Any]:
    strategy = make(Bananas, given, surrogate=SPY, **config)
    return strategy, strategy.surrogate


# -- bananas --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("local", [0, 1])
def test_bananas_proposes_the_best_of_its_pool(local: int) -> None:
    strategy, spy = spied(setting(), initial=4, kappa=0.7, local=local)
    found = told(strategy, 12)
    assert [proposal.note["role"] for proposal in found] == ["start"] * 4 + ["acquired"] * 8
    assert len(spy.asked) == 8
    for number, (proposal, pool) in enumerate(zip(found[4:], spy.asked, strict=True), 4):
        assert proposal.arch == max(pool, key=lambda arch: spy.mean([arch])[0] + 0.7 * spy.deviation([arch])[0])
        known = {earlier.arch for earlier in found[:number]}
        assert not known & set(pool)
        assert len(set(pool)) == len(pool)
        best = max(found[:number], key=lambda earlier: quality(earlier.arch)).arch
        around = {arch for arch in moves.neighbours(ADDITIVE, best) if arch not in known}
        assert (set(pool) == around) if local else (around < set(pool))


def test_the_mutants_of_bananas_have_one_or_two_moves() -> None:
    strategy, spy = spied(setting(), initial=2, parents=1, mutants=60, centres=0, uniform=1, local=0)
    first, second, _ = told(strategy, 3)
    (pool,) = spy.asked
    parent = max(first.arch, second.arch, key=quality)
    moved = [sum(arch.values[name] != value for name, value in parent.values.items()) for arch in pool]
    assert set(moved[:-1]) == {1, 2}  # the last one is the uniform draw
    assert len(moved) > 30  # of 60: there are 18 neighbours, and no mutant is the parent


def test_bananas_learns_normal_scores_and_believes_its_predictions_of_pending_trials() -> None:
    strategy, spy = spied(setting(), initial=3)
    found = told(strategy, 3)
    waiting = Proposal(moves.sample(ADDITIVE, generator("waiting")))
    strategy.ask(3, (Pending(99, waiting),))
    (_, plain), (archs, believed) = spy.fits
    order = sorted(range(3), key=lambda place: quality(found[place].arch))
    assert [round(plain[place], 4) for place in order] == [-0.9674, 0.0, 0.9674]
    assert archs == [*(proposal.arch for proposal in found), waiting.arch]
    assert believed == [*plain, pytest.approx(spy.mean([waiting.arch])[0])]


def test_acquisition_functions() -> None:
    mean, deviation = numpy.array([0.0, 1.0, 2.0]), numpy.array([1.0, 1.0, 0.0])

    def worth(name: str, rng: str = "a") -> Any:
        return acquire(Bananas.Config(acquisition=name, kappa=2.0), 1.0, mean, deviation, generator(rng))  # type: ignore[arg-type]

    assert worth("ucb").tolist() == [2.0, 3.0, 2.0]
    assert worth("ei") == pytest.approx([0.0833155, 0.3989423, 1.0], abs=1e-6)
    drawn = numpy.array([worth("its", f"{draw}") for draw in range(2000)])
    assert drawn.mean(axis=0) == pytest.approx(mean, abs=0.08)
    assert drawn.std(axis=0) == pytest.approx(deviation, abs=0.05)


def test_bananas_never_proposes_what_is_known_and_exhausts_the_space(play: Any) -> None:
    given = setting(space=Few())
    run = play(make(Bananas, given, initial=3), given, lambda arch: {"quality": float(arch.values["a"])}, 50, 3)  # type: ignore[arg-type]
    assert run.exhausted
    assert len(run.outcomes) == len(run.distinct) == 9


def test_bananas_beats_random_search_on_an_additive_toy(play: Any) -> None:
    best = max(quality(arch) for arch in moves.enumerate_all(ADDITIVE))
    lost: dict[Any, list[float]] = {Bananas: [], RandomSearch: []}
    for kind, found in lost.items():
        for seed in range(3):
            given = setting(seed=seed)
            found.append(best - play(make(kind, given), given, judge, 40).incumbent.values[0])
    assert max(lost[Bananas]) < 0.02
    assert min(lost[RandomSearch]) > 0.1


def test_bananas_scores_its_pool_and_nothing_else() -> None:
    scores = Scores()
    strategy = make(Bananas, setting(scores), proxies=["naswot", "zen"], start="zen", first=3, scored=50)
    found = told(strategy, 12)
    pool = {arch.key for arch in sampled(setting(), 50, "pool")}
    assert set(scores.asked) == pool
    assert [p.arch.key for p in found[:3]] == sorted(pool, key=lambda key: -_of(key, scores))[:3]
    assert found[3].note["role"] == "acquired"
    assert any(proposal.arch.key not in pool for proposal in found)


def _of(key: str, scores: Scores) -> float:
    return next(quality(arch) for arch in sampled(setting(), 50, "pool") if arch.key == key)


def test_ranks_of_unscored_architectures_are_predicted() -> None:
    def convolutions(arch: Architecture) -> float:
        return float(sum(str(option).startswith("nor_conv") for option in arch.values.values()))

    scores = Scores(convolutions)
    given = setting(scores, CELLS)
    pool, others = sampled(given, 200, "pool"), sampled(given, 300, "others")
    ranks = ProxyRanks(given, scores, ["naswot"], pool)
    known = ranks("naswot", pool)
    assert known == pytest.approx(numpy.array(ranking("naswot", pool, lambda _, archs: _ranked(archs, convolutions))))
    predicted = ranks("naswot", [arch for arch in others if arch not in pool])
    truth = [convolutions(arch) for arch in others if arch not in pool]
    assert numpy.corrcoef(predicted, truth)[0, 1] > 0.9
    assert len(scores.asked) == 200


def _ranked(archs: Sequence[Architecture], score: Callable[[Architecture], float]) -> list[float]:
    values = numpy.array([score(arch) for arch in archs])
    return [float(((values < value).sum() + ((values == value).sum() + 1) / 2) / len(values)) for value in values]


def test_bananas_begins_with_the_best_of_another_study_and_learns_from_it(play: Any) -> None:
    """The other study has another scale and many architectures; five evaluations are enough."""
    prior = tuple((arch, 100 + 3 * quality(arch)) for arch in sampled(setting(seed=9), 60, "prior"))
    given = setting(warm_start=prior)
    run = play(make(Bananas, given, first=2), given, judge, 5)
    best = sorted(prior, key=lambda one: -one[1])
    assert [outcome.proposal.arch for outcome in run.outcomes[:2]] == [best[0][0], best[1][0]]
    top = max(quality(arch) for arch in moves.enumerate_all(ADDITIVE))
    assert run.incumbent.values[0] > top - 0.05


def test_a_misleading_study_is_dropped(play: Any) -> None:
    prior = tuple((arch, -quality(arch)) for arch in sampled(setting(seed=9), 60, "prior"))
    given = setting(warm_start=prior)
    run = play(make(Bananas, given), given, judge, 40)
    top = max(quality(arch) for arch in moves.enumerate_all(ADDITIVE))
    assert run.incumbent.values[0] > top - 0.3


# -- proxy filter ---------------------------------------------------------------------------------------------


class Numbered:
    """Proposes what follows from the number, and keeps what it is asked and told."""

    class Config(BaseConfig):
        pass

    def __init__(self, given: Setting, config: Config) -> None:
        self.setting = given
        self.asked: list[tuple[int, Sequence[Pending]]] = []
        self.told: list[Outcome] = []

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal:
        self.asked.append((number, tuple(pending)))
        return Proposal(moves.sample(self.setting.space, generator("numbered", number)), note={"of": number % 1000})

    def tell(self, outcome: Outcome) -> None:
        self.told.append(outcome)


class AlwaysTheSame(Numbered):
    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal:
        return super().ask(7, pending)


NUMBERED, SAME = f"{__file__}:Numbered", f"{__file__}:AlwaysTheSame"


def test_the_filter_keeps_the_best_of_k() -> None:
    strategy = make(ProxyFilter, setting(Scores()), inner=NUMBERED, candidates=6)
    for number in range(5):
        chosen = strategy.ask(number, ())
        asked = [moves.sample(ADDITIVE, generator("numbered", one)) for one, _ in strategy.inner.asked]
        strategy.inner.asked.clear()
        assert len(asked) == 6
        assert asked[0] == moves.sample(ADDITIVE, generator("numbered", number))
        assert chosen.arch == max(asked, key=quality)
        assert chosen.note["scored"] == 6
        strategy.tell(complete(number, chosen))
        assert strategy.inner.told[-1].proposal.note.keys() == {"of"}


def test_what_is_known_gives_way_to_what_is_new() -> None:
    strategy = make(ProxyFilter, setting(Scores()), inner=NUMBERED, candidates=3)
    first = strategy.ask(0, ())
    strategy.tell(complete(0, first))
    again = strategy.ask(0, ())
    assert quality(again.arch) < quality(first.arch)
    assert again.note["scored"] == 2
    third = strategy.ask(0, (Pending(1, again),))
    assert third.arch not in (first.arch, again.arch)
    assert "scored" not in third.note


@pytest.mark.parametrize("inner", ["random", "regularized-evolution", "local-search"])
def test_one_candidate_is_the_inner_strategy(play: Any, inner: str) -> None:
    scores = Scores()
    given = setting(scores)
    filtered = play(make(ProxyFilter, given, inner=inner, candidates=1), given, judge, 40, 3).outcomes
    plain = play(make(ProxyFilter, given, inner=inner, candidates=1).inner, given, judge, 40, 3).outcomes
    assert filtered == plain
    assert not scores.asked


def test_the_filter_scores_no_more_than_it_may(play: Any) -> None:
    scores = Scores()
    given = setting(scores)
    run = play(make(ProxyFilter, given, inner="random", candidates=10, scored=57), given, judge, 30, 4)
    assert [outcome.proposal.note.get("scored", 0) for outcome in run.outcomes] == [10] * 5 + [7] + [0] * 24
    assert len(scores.asked) <= 57


def test_nothing_is_scored_where_there_is_no_choice() -> None:
    scores = Scores()
    strategy = make(ProxyFilter, setting(scores), inner=SAME)
    told(strategy, 3)
    assert not scores.asked


def test_filtered_search_is_better(play: Any) -> None:
    def noisy(arch: Architecture) -> float:
        return quality(arch) + float(generator(arch.key).standard_normal())

    found: dict[str, list[float]] = {"plain": [], "filtered": []}
    for seed in range(8):
        given = setting(Scores(noisy), seed=seed)
        for name, candidates in (("plain", 1), ("filtered", 10)):
            strategy = make(ProxyFilter, given, inner="regularized-evolution", candidates=candidates)
            found[name].append(play(strategy, given, judge, 30).incumbent.values[0])
    assert numpy.mean(found["filtered"]) > numpy.mean(found["plain"]) + 0.1


# -- warm-up --------------------------------------------------------------------------------------------------


def best_of_pool(count: int, size: int = 40) -> list[Architecture]:
    return sorted(sampled(setting(), size, "pool"), key=quality, reverse=True)[:count]


ROLES = {
    "random": None,
    "regularized-evolution": "founder",
    "ae-cnn": "founder",
    "nsga2": "founder",
    "local-search": "start",
    "tpe": "start",
    "bananas": "start",
    "reinforce": None,
    "ppo": None,
}


@pytest.mark.parametrize("inner", ROLES)
def test_the_first_are_the_best_of_the_pool(inner: str) -> None:
    scores = Scores()
    strategy = make(WarmUp, setting(scores), inner=inner, predictor="zen", pool=40, first=6)
    found = told(strategy, 10)
    assert [proposal.arch for proposal in found[:6]] == best_of_pool(6)
    assert {proposal.note.get("role") for proposal in found[:6]} == {ROLES[inner]}
    assert len(scores.asked) == 40


def test_trials_in_flight_take_the_next_of_the_pool() -> None:
    strategy = make(WarmUp, setting(Scores()), inner=NUMBERED, predictor="zen", pool=40, first=3)
    pending: list[Pending] = []
    for number in range(5):
        pending.append(Pending(number, strategy.ask(number, pending)))
    assert [trial.proposal.arch for trial in pending[:3]] == best_of_pool(3)
    assert [asked[0] for asked in strategy.inner.asked] == [3, 4]
    for trial in pending:
        strategy.tell(complete(trial.number, trial.proposal))
    assert [outcome.number for outcome in strategy.inner.told] == [0, 1, 2, 3, 4]


def test_local_search_climbs_from_the_best_that_warmed_it_up() -> None:
    strategy = make(WarmUp, setting(Scores()), inner="local-search", predictor="zen", pool=40, first=4)
    pending: list[Pending] = []
    for number in range(4):
        pending.append(Pending(number, strategy.ask(number, pending)))
    for trial, value in zip(pending, (1.0, 5.0, 3.0, 2.0), strict=True):
        strategy.tell(complete(trial.number, trial.proposal, value))
    following = strategy.ask(4, ())
    assert following.note == {"role": "neighbour", "of": 1}
    assert following.arch in moves.neighbours(ADDITIVE, pending[1].proposal.arch)


def test_evolution_takes_them_for_its_founders() -> None:
    strategy = make(
        WarmUp,
        setting(Scores()),
        inner="regularized-evolution",
        predictor="zen",
        pool=40,
        first=10,
        inner_config={"population": 10},
    )
    found = told(strategy, 11)
    assert found[10].note["role"] == "child"
    assert int(found[10].note["of"]) < 10


def test_ppo_notes_the_probability_of_what_it_adopts() -> None:
    given = setting(Scores(), CELLS)
    strategy = make(WarmUp, given, inner="ppo", predictor="zen", pool=20, first=3, inner_config={"units": 8})
    ppo = make(PPO, given, units=8)
    drawn = ppo.ask(5, ())
    assert ppo.adopt(Proposal(drawn.arch), drawn.arch).note == pytest.approx(drawn.note)
    assert strategy.inner.adopt(drawn, drawn.arch) == drawn


# -- local search, genetic search -----------------------------------------------------------------------------


def test_climbs_start_from_the_best_scored(play: Any) -> None:
    scores = Scores(lambda arch: int(arch.key[:6], 16))
    given = setting(scores)
    run = play(make(LocalSearch, given, start="zen", pool=30), given, judge, 150)
    starts = [outcome.proposal.arch for outcome in run.outcomes if outcome.proposal.note["role"] == "start"]
    order = sorted(sampled(given, 30, "pool"), key=lambda arch: -int(arch.key[:6], 16))
    assert len(starts) > 2
    assert starts == [arch for arch in order if arch in starts]
    assert starts[0] == order[0]
    seen: set[Architecture] = set()
    for outcome in run.outcomes:  # what was skipped had been met on the way
        if outcome.proposal.note["role"] == "start":
            assert all(arch in seen for arch in order[: order.index(outcome.proposal.arch)])
        seen.add(outcome.proposal.arch)
    assert len(scores.asked) == 30


def test_genetic_search_evaluates_the_children_that_are_predicted_best() -> None:
    given = setting()
    strategy = make(GeneticPredictor, given, population=5, surplus=8, surrogate=SPY)
    spy = strategy._surrogate
    found = told(strategy, 15)
    assert [proposal.note["role"] for proposal in found[:5]] == ["founder"] * 5
    assert [len(archs) for archs, _ in spy.fits] == [5, 10]  # after every generation, from all outcomes
    bred = list(spy.asked)
    children = [proposal for proposal in found[5:] if proposal.note["role"] == "child"]
    assert len(children) == len(bred) == 10
    assert sum(len(pool) for pool in bred) > 40
    for child, pool in zip(children, bred, strict=True):
        assert child.arch == max(pool, key=lambda arch: spy.mean([arch])[0])
        assert not {one.arch for one in found[: found.index(child)]} & set(pool)


def test_the_screen_sees_structure_alone() -> None:
    config = GeneticPredictor.Config()
    assert config.surrogate == "random-forest"
    assert list(config.surrogate_config["blocks"]) == ["structure", "counts"]


def test_screened_children_are_better(play: Any) -> None:
    """The quality is a matter of counts, which the screen sees."""

    def convolutions(arch: Architecture) -> dict[str, float]:
        return {"quality": sum(str(option) == "nor_conv_3x3" for option in arch.values.values())}

    found: dict[int, list[float]] = {1: [], 10: []}
    for surplus, reached in found.items():
        for seed in range(4):
            given = setting(space=CELLS, seed=seed)
            strategy = make(GeneticPredictor, given, population=10, surplus=surplus, surrogate_config={"trees": 20})
            children = play(strategy, given, convolutions, 40).outcomes[10:]
            reached += [outcome.values[0] for outcome in children]
    assert numpy.mean(found[10]) > numpy.mean(found[1]) + 0.5


# -- bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (Bananas, {"proxies": ["naswot"]}),
        (Bananas, {"start": "vote"}),
        (ProxyFilter, {}),
        (WarmUp, {}),
        (LocalSearch, {"start": "zen"}),
    ],
)
def test_a_search_without_scores_is_refused(kind: Any, config: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"asks for the scores .* --scores") as refused:
        make(kind, setting(), **config)
    assert "\n" not in str(refused.value)


def test_other_mistakes_are_refused() -> None:
    with pytest.raises(UsageError, match="takes no scores"):
        make(Bananas, setting(Scores()), surrogate=SPY, proxies=["zen"])
    with pytest.raises(UsageError, match="unknown surrogate 'gpp'"):
        make(Bananas, setting(), surrogate="gpp")
    with pytest.raises(UsageError, match="scored"):
        make(Bananas, setting(), scored=1001)
    with pytest.raises(UsageError, match="inner_config"):
        make(WarmUp, setting(Scores()), inner="regularized-evolution", inner_config={"populaton": 5})
