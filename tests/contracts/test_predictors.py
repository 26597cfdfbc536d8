"""Every listed proxy and surrogate keeps its contract; a new one is tested by being listed.

Surrogates are fitted on one trait space each, one that reads encodings on every listed space, and one that reads the
graph on three of them, in small on all. All of them on all spaces: `-m matrix`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from numpy import isfinite

import search_spaces
from nas_core import moves, refs
from nas_core.architecture import Architecture
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from nas_core.testing.trait_spaces import FixedGraph, UnitList
from predictors import GROUP, PROXIES, SURROGATES
from predictors.scoring import Networks
from predictors.surrogate import Problem
from predictors.testing import BATCH, CLOSE, additive, check_proxy, check_surrogate
from training.data import load
from training.data.source import Source
from training.data.split import Split

NETWORKS = {"nasbench201": ("digits", {"channels": 4, "cells": 1}), "nasbench_graph": ("karate", {"hidden": 16})}

# Settings with which a slow surrogate still learns what the suite asks for.
_SMALL = "(steps=30, members=2, layers=2, hidden=32, rate=0.02)"
QUICK = {
    "boosted-trees": "(bags=2, rounds=40)",
    "random-forest": "(trees=40)",
    "mlp": "(steps=150)",
    "graph-network": _SMALL,
    "pairwise": _SMALL,
}

GRAPHS = ("nasbench201", "darts", "stages")
"""The same graph for all, two cells of edges that are chosen, a chain with numbers in its labels."""
FEWER = {"argnp": "argnp(vertices=4)"}
"""Spaces with graphs of so many paths that it takes seconds to follow them."""


@cache
def loaded(name: str) -> SearchSpace:
    space: SearchSpace = refs.load(name, search_spaces.BUILTIN, search_spaces.GROUP, "space").object
    return space


@cache
def source(reference: str) -> Source:
    return load(reference, Split())


def proxy_cases() -> list[Any]:
    """Proxies with the spaces whose task they are for."""
    return [
        pytest.param(name, space, id=f"{name}-{space}")
        for name in PROXIES
        for space, (data, _) in NETWORKS.items()
        if source(data).task.kind in refs.find(name, PROXIES, GROUP, "proxy").tasks
    ]


@pytest.mark.parametrize(("name", "space"), proxy_cases())
def test_proxy_contract(name: str, space: str) -> None:
    data, size = NETWORKS[space]
    found = check_proxy(name, loaded(space), loaded(space).Size.preset("search", **size), source(data), samples=4)
    assert list(found) == []


@pytest.mark.parametrize("space", NETWORKS)
def test_proxies_share_their_work(space: str) -> None:
    """All scored together, in two orders, so that each is before and after every other one, are as each is alone."""
    data, size = NETWORKS[space]
    names = [name for name in PROXIES if source(data).task.kind in refs.find(name, PROXIES, GROUP, "proxy").tasks]
    networks = Networks(loaded(space), loaded(space).Size.preset("search", **size), source(data), batch=BATCH)
    arch = moves.sample(loaded(space), generator("together"))
    alone = {name: value for one in names for name, value in scored(networks, arch, one).items()}
    for order in (names, names[::-1]):
        assert scored(networks, arch, *order) == pytest.approx(alone, rel=CLOSE)


def scored(networks: Networks, arch: Architecture, *names: str) -> dict[str, float]:
    (found,) = networks.score([arch], names)
    return dict(found.values)


def surrogate_findings(name: str, space: SearchSpace) -> list[str]:
    return list(check_surrogate(name + QUICK.get(name, ""), Problem(space, seed=1)))


def surrogate_cases() -> list[Any]:
    """`auto`, a choice among the others and dear, on the cheap space, the others on the one with more traits."""
    return [
        pytest.param(name, space, id=f"{name}-{space.name}", marks=pytest.mark.matrix if more else ())
        for name in SURROGATES
        for space in (FixedGraph, UnitList)
        for more in [(name == "auto") is (space is UnitList)]
    ]


@pytest.mark.parametrize(("name", "space"), surrogate_cases())
def test_surrogate_contract(name: str, space: type[SearchSpace]) -> None:
    assert surrogate_findings(name, space()) == []


@pytest.mark.parametrize("space", search_spaces.BUILTIN)
def test_every_space_can_be_learned(space: str) -> None:
    assert surrogate_findings("ridge", loaded(FEWER.get(space, space))) == []


@pytest.mark.parametrize("space", GRAPHS)
def test_graphs_can_be_learned(space: str) -> None:
    assert surrogate_findings("graph-network", loaded(space)) == []


@pytest.mark.parametrize("space", search_spaces.BUILTIN)
def test_every_graph_can_be_read(space: str) -> None:
    """A small graph network tells architectures of every space apart, and again in the same way."""
    archs = [moves.sample(loaded(space), generator("graphs", number)) for number in range(16)]
    kind = refs.find("graph-network", SURROGATES, GROUP, "surrogate")

    def predicted() -> list[float]:
        network = kind(Problem(loaded(space), seed=1), kind.Config(members=2, layers=1, hidden=4, steps=2, batch=16))
        network.fit(archs[:12], [additive(loaded(space), arch) for arch in archs[:12]])
        means, deviations = network.predict(archs)
        assert isfinite(deviations).all()
        return [float(mean) for mean in means]

    found = predicted()
    assert isfinite(found).all()
    assert len(set(found)) > 12
    assert predicted() == found


@pytest.mark.matrix
@pytest.mark.parametrize("space", search_spaces.BUILTIN)
@pytest.mark.parametrize("name", SURROGATES)
def test_surrogate_contract_on_every_space(name: str, space: str) -> None:
    assert surrogate_findings(name, loaded(space)) == []
