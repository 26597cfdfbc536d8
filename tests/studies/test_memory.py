"""A long search in one process: memory per trial and open handles."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nas_core.architecture import Architecture
from nas_core.choice import Choice
from nas_core.evaluation import Context, Metric, Report
from nas_core.records import StopAt
from nas_core.space import SearchSpace
from nas_core.strategy import Proposal
from studies.search.loop import Search

FIRST = 1_000


class Wide(SearchSpace):
    """A space that is far too large to be exhausted."""

    name = "wide"
    tasks = frozenset({"none"})
    choices = tuple(Choice(f"layer{n}/operation", ("a", "b", "c", "d", "e")) for n in range(12))


class Key:
    """Scores an architecture by its key."""

    metrics = (Metric("score"), Metric("params", "min", cost=True))
    fidelity = None
    deterministic = True
    in_process = True

    def identity(self, arch: Architecture) -> str | None:
        return None

    def costs(self, arch: Architecture, names: Sequence[str]) -> Mapping[str, float]:
        return dict.fromkeys(names, 1.0)

    def evaluate(self, proposal: Proposal, budget: float | None, context: Context) -> Iterator[Report]:
        yield Report(1, {"score": int(proposal.arch.key, 16) / 16**16, "params": 1.0})


def used() -> tuple[int, int]:
    """Bytes of resident memory, and open handles."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))


def check_growth(bench: Any, strategy: str, trials: int, most: int) -> None:
    """A trial adds at most so many bytes: what is remembered of its candidate."""
    space = Wide()
    bench.space = space
    store = bench.store(strategy)
    study = bench.study(store, strategy=strategy)
    parts = bench.parts(study.spec, evaluator=Key())
    search = Search(store, study, replace(parts, setting=replace(parts.setting, space=space)))
    search.run(StopAt(trials=FIRST))
    memory, handles = used()
    search.run(StopAt(trials=trials))
    memory_after, handles_after = used()
    assert search.evaluated == trials
    assert handles_after <= handles
    assert (memory_after - memory) / (trials - FIRST) < most


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("strategy", ["regularized-evolution", "local-search"])  # `random` remembers less
def test_memory_and_handles_of_a_long_search(bench: Any, strategy: str) -> None:
    check_growth(bench, strategy, 2_500, 2_048)  # with what is loaded late


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("strategy", ["random", "regularized-evolution", "local-search"])
def test_memory_and_handles_of_a_hundred_thousand_trials(bench: Any, strategy: str) -> None:
    check_growth(bench, strategy, 100_000, 900)
