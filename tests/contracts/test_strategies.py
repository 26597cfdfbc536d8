"""Every listed strategy in all its settings keeps the whole contract on one trait space, in its first settings a part
of it on the others, and four of them on every listed space; a new strategy, and a new space, is tested by being listed.
All of them, in all settings, on all spaces: `-m matrix`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import search_spaces
import strategies
from nas_core.config import validate
from nas_core.errors import UsageError
from nas_core.evaluation import Objective
from nas_core.space import HasUnsound, SearchSpace
from nas_core.strategy import Setting, Strategy
from nas_core.testing.findings import Reference
from nas_core.testing.strategy import SCENARIOS, SCREENED, Scenario, check, check_fresh
from nas_core.testing.trait_spaces import TRAIT_SPACES

EXAMPLE = f"{Path(__file__).resolve().parents[2] / 'examples' / 'my_space.py'}:space"
SPACES = [*search_spaces.BUILTIN, EXAMPLE]
TRAITED = {name: f"{space.__module__}:{space.__name__}" for name, space in TRAIT_SPACES.items()}

TINY = {"layers": 1, "width": 8, "heads": 2, "hidden": 8, "steps": 4, "samples": 40, "batch": 8}  # a denoiser

# A score network that learns in a moment what a part of its matrices need to be architectures.
SCORE = {"blocks": 1, "width": 16, "heads": 2, "hidden": 16, "head": 16, "steps": 40, "batch": 16, "noise": "laplace"}
SCORE |= {"rate": 0.03, "warm_up": 5, "mean": 0.9}
NOISY = {"members": 2, "layers": 1, "hidden": 8, "linear": 8, "steps": 3, "batch": 8}  # its predictors

# Settings with which 30 trials go through every phase; a strategy that is not named runs with its defaults.
CONFIGS: Mapping[str, list[dict[str, Any]]] = {
    "regularized-evolution": [{}, {"population": 6, "sample": 3}],
    "local-search": [{"move": "first"}, {"move": "best", "start": "naswot", "pool": 20}],
    "successive-halving": [{}, {"inner": "regularized-evolution", "inner_config": {"population": 6, "sample": 3}}],
    "hyperband": [{}, {"inner": "regularized-evolution", "inner_config": {"population": 3, "sample": 2}}],
    "ae-cnn": [{"population": 6}, {"population": 5, "crossover": 0.5, "mutation": 1.0}],
    "nsga2": [{}, {"population": 6}],
    "nsga3": [{}, {"population": 6, "divisions": 3}],
    "asha": [{}, {"inner": "local-search", "eta": 2}],
    "evonorm": [
        {"window": 6, "tournament": 0.5, "founders": 3},
        {"window": 4, "tournament": 1.0, "founders": 2, "fresh": 0.0, "tries": 1000},
    ],
    "tpe": [{"startup": 4, "history": 20}],
    "gp": [{"startup": 4}],
    "reinforce": [{"units": 8, "batch": 3}],
    "ppo": [{"units": 8, "batch": 4, "epochs": 2}],
    "agnn-rl": [{"units": 8, "founders": 4}],
    "bananas": [
        {"initial": 4, "mutants": 10, "centres": 1, "uniform": 5, "local": 3},
        {
            "proxies": ["naswot", "zen"],
            "start": "naswot",
            "first": 3,
            "scored": 25,
            "mutants": 10,
            "centres": 0,
            "local": 4,
            "acquisition": "its",
        },
    ],
    "diffusion": [
        {"initial": 4, "pool": 12, "mutants": 4, "guide": {"steps": 4}, "generator": TINY},
        {
            "mode": "cfg",
            "proxies": ["naswot"],
            "start": "naswot",
            "first": 3,
            "scored": 25,
            "batch": 3,
            "pool": 8,
            "learning": 2,
            "generator": TINY,
        },
        {"mode": "refit", "initial": 3, "pool": 8, "learning": 2, "acquisition": "pi", "generator": TINY},
    ],
    "diffusion-nag": [
        {"initial": 4, "pool": 12, "steps": 5, "samples": 50, "network": SCORE, "predictor": NOISY},
        {
            "initial": 3,
            "batch": 3,
            "pool": 16,
            "steps": 4,
            "acquisition": "its",
            "samples": 50,
            "network": {**SCORE, "process": "cosine"},
            "predictor": NOISY,
        },
    ],
    "proxy-filter": [
        {"candidates": 3, "scored": 45},
        {"predictor": "vote", "candidates": 2, "inner": "reinforce", "inner_config": {"units": 4}},
    ],
    "genetic-predictor": [{"population": 6, "surplus": 3, "surrogate_config": {"trees": 5}}],
    "warm-up": [
        {"pool": 20, "first": 8},
        {"predictor": "zen", "pool": 20, "first": 4, "inner": "local-search"},
        {"predictor": "zen", "pool": 20, "first": 4, "inner": "ppo", "inner_config": {"units": 8, "batch": 3}},
        {"predictor": "zen", "pool": 20, "first": 4, "inner": "hyperband"},
    ],
}
# Trials and replays of a slow strategy.
BRIEF: Mapping[str, tuple[int, int]] = {
    "tpe": (8, 2),
    "gp": (5, 2),
    "reinforce": (11, 2),
    "ppo": (11, 2),
    "agnn-rl": (11, 2),
    "bananas": (10, 1),
    "diffusion": (7, 1),
    "diffusion-nag": (7, 1),
    "proxy-filter": (12, 2),
    "genetic-predictor": (14, 2),
    "warm-up": (12, 2),
}
# Strategies that refuse a space, and what their error names.
UNSUITABLE: Mapping[tuple[str, str], str] = {
    **{("agnn-rl", text): "kind 'operation'; use reinforce or ppo" for text in ("nasbench201", "fixed-graph")},
    **{
        ("diffusion-nag", text): "changes which nodes or edges there are; use diffusion"
        for text in [*SPACES, "unit-list"]
        if text not in ("nasbench201", "auto-gnn")
    },
    **{
        ("diffusion-nag", text): "(ArchGraph.fixed_topology); use diffusion" for text in ("six", "auto-gnn", "graphnas")
    },
}
# One for each way in which strategies read a space: by its moves, its tokens, its encodings and graph, its legal parts.
REPRESENTATIVES: Mapping[str, dict[str, Any]] = {
    "regularized-evolution": {"population": 6, "sample": 3},
    "reinforce": {"units": 8, "batch": 3},
    "bananas": {"initial": 4, "mutants": 4, "centres": 1, "uniform": 2, "local": 2},
    "diffusion": {"initial": 3, "pool": 4, "mutants": 2, "guide": {"steps": 4}, "generator": {**TINY, "samples": 8}},
}
CASES = [(name, config) for name in strategies.BUILTIN for config in CONFIGS.get(name, [{}])]


def first(name: str) -> dict[str, Any]:
    """The first settings of a strategy."""
    return CONFIGS.get(name, [{}])[0]


# Settings after a strategy's first, and strategies that do not take `unit-list`.
FURTHER = [case for case in CASES if case[1] != first(case[0]) or (case[0], "unit-list") in UNSUITABLE]


def references(strategy: str, space: str) -> tuple[Reference, Reference]:
    return (
        Reference(strategy, strategies.BUILTIN, strategies.GROUP, "strategy"),
        Reference(space, {**search_spaces.BUILTIN, **TRAITED}, search_spaces.GROUP, "space"),
    )


@cache
def loaded(text: str) -> SearchSpace:
    """One object per space: what is listed of it once serves all tests."""
    space: SearchSpace = references("random", text)[1].load()
    return space


def findings(
    name: str, config: dict[str, Any], text: str, *brief: int, scenarios: Sequence[Scenario] = SCENARIOS
) -> list[str]:
    kind = references(name, text)[0].find()

    def make(setting: Setting) -> Strategy:
        made: Strategy = kind(setting, validate(kind.Config, config, "strategy"))
        return made

    return list(check(make, loaded(text), *brief, scenarios=scenarios))


def home(name: str) -> str:
    """The trait space with most traits that a strategy takes."""
    return "fixed-graph" if (name, "unit-list") in UNSUITABLE else "unit-list"


def suitable(spaces: Iterable[str]) -> list[Any]:
    """Strategies in all their settings, with those of the spaces that they take."""
    return [
        pytest.param(name, config, text, id=f"{name}-{CONFIGS.get(name, [{}]).index(config)}-{Path(text).name}")
        for name, config in CASES
        for text in spaces
        if (name, text) not in UNSUITABLE
    ]


AT_HOME = [case for case in suitable(TRAITED) if case.values[2] == home(case.values[0])]
ELSEWHERE = [case for case in suitable(TRAITED) if case not in AT_HOME]


@pytest.mark.parametrize(("name", "config", "text"), AT_HOME)
def test_strategy_contract(name: str, config: dict[str, Any], text: str) -> None:
    assert findings(name, config, text, *BRIEF.get(name, (30, 4))) == []


def test_strategies_that_hand_on_weights_keep_the_contract() -> None:
    """On the trait space whose layers say which weights they share."""
    config = {"units": 8, "founders": 3, "sharing": True, "ancestors": 4}
    assert findings("agnn-rl", config, "unit-list", 11, 2) == []


# One trial at a time, and several with two objectives.
IN_PART = (SCENARIOS[0], SCENARIOS[3])


@pytest.mark.parametrize(
    ("name", "config", "text"), [case for case in ELSEWHERE if case.values[1] == first(case.values[0])]
)
def test_strategy_contract_in_part(name: str, config: dict[str, Any], text: str) -> None:
    trials = min(BRIEF.get(name, (12, 1))[0], 12)
    assert findings(name, config, text, trials, 1, scenarios=IN_PART) == []


def represented() -> list[Any]:
    """Each representative on every space, in one of two scenarios, so that every space meets both."""
    return [
        pytest.param(name, text, IN_PART[(place + number) % 2], id=f"{name}-{Path(text).name}")
        for place, text in enumerate(SPACES)
        for number, name in enumerate(REPRESENTATIVES)
    ]


@pytest.mark.parametrize(("name", "text", "scenario"), represented())
def test_every_space_can_be_searched(name: str, text: str, scenario: Scenario) -> None:
    screened = [SCREENED] if isinstance(loaded(text), HasUnsound) else []
    assert findings(name, REPRESENTATIVES[name], text, 5, 1, scenarios=[scenario, *screened]) == []


@pytest.mark.matrix
@pytest.mark.parametrize(("name", "config", "text"), [*suitable(SPACES), *ELSEWHERE])
def test_strategy_contract_on_every_space(name: str, config: dict[str, Any], text: str) -> None:
    """What a space knows as unsound is rejected in every scenario, as a search does."""
    scenarios = (*SCENARIOS, SCREENED)
    assert findings(name, config, text, *BRIEF.get(name, (30, 4)), scenarios=scenarios) == []


def repeats(cases: Iterable[tuple[str, dict[str, Any], str]], trials: int) -> list[str]:
    taken = [(*references(name, text), config) for name, config, text in cases if (name, text) not in UNSUITABLE]
    return list(check_fresh(*taken, trials=trials))


@pytest.mark.parametrize(("brief", "trials"), [(True, 5), (False, 8)])
def test_strategies_repeat_in_a_fresh_interpreter(brief: bool, trials: int) -> None:
    """Each on one of the spaces, most in their first setting on `unit-list`, which has more traits."""
    chosen = [case for case in CASES if (case[0] in BRIEF) == brief]
    assert chosen
    assert repeats([(*case, "fixed-graph" if case in FURTHER else "unit-list") for case in chosen], trials) == []


@pytest.mark.matrix
@pytest.mark.parametrize("text", ["nasbench201", EXAMPLE, *TRAITED], ids=lambda text: Path(text).name)
def test_strategies_repeat_for_longer(text: str) -> None:
    assert repeats([(*case, text) for case in CASES], 30) == []


@pytest.mark.parametrize(("name", "text"), UNSUITABLE)
def test_strategy_refuses(name: str, text: str) -> None:
    strategy, space = references(name, text)
    kind = strategy.find()
    with pytest.raises(UsageError, match=re.escape(UNSUITABLE[name, text])) as refused:
        kind(Setting(space.load(), 0, (Objective("quality", "max"),)), kind.Config())
    assert "\n" not in str(refused.value)
