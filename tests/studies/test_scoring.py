"""Scores of predictors in a search: computed once, kept, counted, and the same after a resume."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.config import Config as BaseConfig
from nas_core.errors import UsageError
from nas_core.records import StopAt
from nas_core.seeds import generator
from nas_core.strategy import Outcome, Pending, Proposal, Setting
from predictors.scoring import Scored, split_score
from studies.analysis.verify import verify
from studies.search.loop import Search
from studies.setup.scores import Counted, Scoring


class Letters:
    """Scores of the letters of an architecture, and how often they were computed. A 'd' at the front has no score."""

    context: Mapping[str, Any] = {"from": "letters", "seed": 3}

    def __init__(self) -> None:
        self.computed: list[tuple[str, tuple[str, ...]]] = []

    def names(self, predictor: str) -> tuple[str, ...]:
        if predictor == "both":
            return ("both.a", "both.b")
        if predictor not in ("a", "b"):
            raise UsageError(f"no score '{predictor}'")
        return (predictor,)

    def score(self, archs: Sequence[Architecture], predictors: Sequence[str]) -> Iterator[Scored]:
        for arch in archs:
            self.computed.append((arch.key, tuple(predictors)))
            values = list(arch.values.values())
            found = {
                name: -math.inf if values[0] == "d" else float(values.count(name[-1]))
                for predictor in predictors
                for name in self.names(predictor)
            }
            yield Scored(arch, found, dict.fromkeys(found, 0.5))


class Greedy:
    """Proposes the best-scored of ten random architectures."""

    class Config(BaseConfig):
        """Nothing to set."""

    def __init__(self, setting: Setting, config: Config) -> None:
        self.setting = setting

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal:
        rng = generator(self.setting.seed, number, "pool")
        pool = [moves.sample(self.setting.space, rng) for _ in range(10)]
        assert self.setting.score is not None
        scores = self.setting.score("a", pool)
        return Proposal(pool[scores.index(max(scores))])

    def tell(self, outcome: Outcome) -> None: ...


def parts_with(parts: Any, source: Letters) -> Any:
    scored = Counted(Scoring(lambda: source))
    return replace(
        parts,
        scored=scored,
        setting=replace(parts.setting, score=scored),
        strategy=Greedy,
        strategy_config=Greedy.Config(),
    )


def test_a_search_scores_each_architecture_once_and_a_resume_none(bench: Any) -> None:
    store = bench.store()
    study = bench.study(store)
    source = Letters()
    parts = parts_with(bench.parts(study.spec), source)
    first = Search(store, study, parts)
    first.run(StopAt(trials=6))
    assert len(source.computed) == len(set(source.computed)) == first.parts.scored.count
    assert first.parts.scored.count > 20
    stored = store.read(sa.text("SELECT count(*), min(seconds) FROM scores"))[0]
    assert tuple(stored) == (first.parts.scored.count, 0.5)

    other = Letters()
    assert list(verify(store, study, parts_with(bench.parts(study.spec), other))) == []
    assert other.computed == []  # a replay finds all of them in the store


def test_a_score_is_committed_before_it_is_used(bench: Any) -> None:
    store = bench.store()
    arch, late = (Architecture("edges", {f"edge{n}": letter for n in range(4)}) for letter in "ab")

    class Breaking(Letters):
        def score(self, archs: Sequence[Architecture], predictors: Sequence[str]) -> Iterator[Scored]:
            yield from super().score(archs[:1], predictors)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Scoring(Breaking, store).table(["a"], [arch, late])
    source = Letters()
    assert Scoring(lambda: source, store).table(["a"], [arch, late]) == {"a": [4.0, 0.0]}
    assert source.computed == [(late.key, ("a",))]


def test_what_is_missing_is_computed_in_one_pass(bench: Any) -> None:
    source = Letters()
    scoring = Scoring(lambda: source, bench.store())
    rng = generator(0)
    archs = [moves.sample(bench.space, rng) for _ in range(5)]
    scoring.table(["a"], archs[:2])
    found = scoring.table(["a", "both"], archs)
    assert list(found) == ["a", "both.a", "both.b"]
    assert source.computed[2:] == [(arch.key, ("a", "both")) for arch in archs]
    again = Scoring(Letters, bench.store())
    assert again.table(["both"], archs) == {name: found[name] for name in ("both.a", "both.b")}


def test_the_worst_score_survives_the_store(bench: Any) -> None:
    store = bench.store()
    dead = Architecture("edges", {"edge0": "d", "edge1": "a", "edge2": "a", "edge3": "a"})
    assert Scoring(Letters, store).table(["a"], [dead]) == {"a": [-math.inf]}
    source = Letters()
    assert Scoring(lambda: source, store).table(["a"], [dead]) == {"a": [-math.inf]}
    assert source.computed == []


def test_a_component_is_a_score(bench: Any) -> None:
    score = Counted(Scoring(Letters))
    arch = Architecture("edges", {f"edge{n}": "b" for n in range(4)})
    assert score("both.b", [arch]) == [4.0]
    with pytest.raises(UsageError, match=r"'both' is no single score; name one of both\.a, both\.b"):
        score("both", [arch])
    assert score.count == 1


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("naswot", ("naswot", "")),
        ("az_nas.trainability", ("az_nas", "trainability")),
        ("zen(gamma=0.5)", ("zen(gamma=0.5)", "")),
        ("path_norm(q=2, scale=0.5).log", ("path_norm(q=2, scale=0.5)", "log")),
    ],
)
def test_names_split_at_the_component(name: str, parts: tuple[str, str]) -> None:
    assert split_score(name) == parts


def test_contexts_are_kept_apart(bench: Any, tmp_path: Path) -> None:
    store = bench.store()
    arch = Architecture("edges", {f"edge{n}": "b" for n in range(4)})

    class Other(Letters):
        context: Mapping[str, Any] = {"from": "letters", "seed": 4}

    Scoring(Letters, store).table(["b"], [arch])
    source = Other()
    Scoring(lambda: source, store).table(["b"], [arch])
    assert len(source.computed) == 1
