"""The scores of predictors that a search uses: kept in the store, counted, computed only once.

A strategy asks `Setting.score`. What the database holds for the same context is taken from there; the rest is
computed and committed before the strategy sees it, so a replay, another study and `nas score` find it there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path

from nas_core import refs
from nas_core.architecture import Architecture
from nas_core.config import SizeConfig
from nas_core.errors import UsageError
from nas_core.space import SearchSpace
from predictors.scoring import Networks, Scored, Scores, ScoreTable, split_score
from studies.records import NetworkScores, RecordedScores, StudySpec
from studies.setup.config import DEFAULT_BATCH, ScoringConfig
from studies.store.store import Store
from training.data.split import Split

SECONDS_A_COMMIT = 2.0  # of computing scores: no more is lost by an interruption


def settings_of(space: SearchSpace, data: str | None, wanted: ScoringConfig) -> RecordedScores | NetworkScores | None:
    """Where scores come from: a table of recorded ones, or networks on other data than the study's.

    None: networks on the data that the study trains on, if it does. Raises UsageError for both, or for a table that
    does not fit `space` and `data`.
    """
    scores, mapping = wanted.table, wanted.mapping
    if scores is not None and wanted.data is not None:
        raise UsageError("scores come from a table or from networks; leave out --scores or --score-on")
    if scores is not None:
        table = ScoreTable(space, Path(scores), str(data), mapping)
        return RecordedScores(table=scores, mapping=mapping, hash=table.context["hash"])
    if wanted.data is not None or wanted.batch != DEFAULT_BATCH:
        return NetworkScores(data=wanted.data, batch=wanted.batch)
    return None


def source_of(spec: StudySpec, space: SearchSpace, size: SizeConfig) -> Callable[[], Scores] | None:
    """How to open the source of a study's scores, when the first is asked for; None where it has none.

    Raises UsageError for networks without data.
    """
    scoring, facts = spec.scoring, spec.evaluator.facts
    if isinstance(scoring, RecordedScores):
        return lambda: _table(scoring, space, str(facts.data))
    own = facts.data if facts.trains else None
    data = own if scoring is None or scoring.data is None else scoring.data
    if data is None:
        if scoring is None:
            return None
        raise UsageError("networks are scored on data, and a table of results has none; name some by --score-on")
    split = facts.split if data == own else Split()
    batch = DEFAULT_BATCH if scoring is None else scoring.batch

    def open_networks() -> Scores:
        from training.data import load

        source = load(data, split)
        return Networks(space, size, source, batch=batch, device=facts.device or "cpu")

    return open_networks


def _table(scoring: RecordedScores, space: SearchSpace, data: str) -> ScoreTable:
    found = ScoreTable(space, Path(scoring.table), data, scoring.mapping)
    if found.context["hash"] != scoring.hash:
        raise UsageError(
            f"the table of scores '{scoring.table}' is not what the study was made with ({scoring.hash} then, "
            f"{found.context['hash']} now); restore it, or start another --study"
        )
    return found


class Scoring:
    """Scores of one source, which `opening` opens at the first use.

    They are kept in `store`; None: nowhere beyond this process. `watching(scored, total)` hears of each of the `total`
    architectures that a call computes.
    """

    def __init__(
        self,
        opening: Callable[[], Scores],
        store: Store | None = None,
        watching: Callable[[Scored, int], None] | None = None,
    ) -> None:
        self._opening = opening
        self._watching = watching
        self.store = store
        self._known: dict[str, dict[str, float]] = {}  # by score and architecture

    @cached_property
    def source(self) -> Scores:
        return self._opening()

    @cached_property
    def context(self) -> int | None:
        """The id under which the store keeps them; None where it keeps none, or is only read and has none."""
        if self.store is None:
            return None
        facts = self.source.context
        return self.store.find_context(facts) if self.store.reading else self.store.context(facts)

    def cached_in(self, store: Store) -> Scoring:
        """The same scores, kept in this store."""
        if self.store is store:
            return self
        return Scoring(lambda: self.source, store, self._watching)

    def table(self, predictors: Sequence[str], archs: Sequence[Architecture]) -> dict[str, list[float]]:
        """All scores of the predictors, by name, one per architecture; what is missing is computed together."""
        names = {predictor: self.source.names(predictor) for predictor in predictors}
        known = {name: self._stored(name) for group in names.values() for name in group}
        missing = {arch.key: arch for arch in archs if any(arch.key not in found for found in known.values())}
        wanted = [
            predictor
            for predictor, group in names.items()
            if any(key not in known[name] for name in group for key in missing)
        ]
        if missing:
            self._keep(self.source.score(list(missing.values()), wanted), len(missing))
        return {name: [found[arch.key] for arch in archs] for name, found in known.items()}

    def _stored(self, name: str) -> dict[str, float]:
        if name not in self._known:
            self._known[name] = (
                {} if self.store is None or self.context is None else self.store.scores(self.context, kept_as(name))
            )
        return self._known[name]

    def _keep(self, scored: Iterable[Scored], total: int) -> None:
        """Commit scores, slow ones in small groups."""
        waiting: list[Scored] = []
        seconds = 0.0
        try:
            for one in scored:
                waiting.append(one)
                seconds += sum(one.seconds.values())
                if self._watching is not None:
                    self._watching(one, total)
                if seconds > SECONDS_A_COMMIT:
                    self._commit(waiting)
                    seconds = 0.0
        finally:
            self._commit(waiting)

    def _commit(self, waiting: list[Scored]) -> None:
        if self.store is not None and not self.store.reading and self.context is not None and waiting:
            kept = {name: kept_as(name) for one in waiting for name in one.values}
            self.store.save_scores(
                self.context,
                [
                    (one.arch, kept[name], value, one.seconds.get(name))
                    for one in waiting
                    for name, value in one.values.items()
                ],
            )
        for one in waiting:
            for name, value in one.values.items():
                self._stored(name)[one.arch.key] = value
        waiting.clear()


def kept_as(name: str) -> str:
    """What a score is called in the store: with the hash of the file where the predictor is a user's."""
    return "@".join([name, *refs.hashes(name).values()])


class Counted:
    """What one search is given as `Setting.score`; counts the architectures that it had scored."""

    def __init__(self, scoring: Scoring) -> None:
        self.scoring = scoring
        self._scored: set[str] = set()

    @property
    def count(self) -> int:
        """How many different architectures have been scored, however often and by however many predictors."""
        return len(self._scored)

    def __call__(self, predictor: str, archs: Sequence[Architecture]) -> list[float]:
        """The score `naswot`, or the component `az_nas.trainability`. Raises UsageError for several components."""
        proxy, component = split_score(predictor)
        found = self.scoring.table([proxy], archs)
        names = [name for name in found if not component or name.endswith(f".{component}")]
        if len(names) != 1:
            raise UsageError(f"predictor '{predictor}' is no single score; name one of {', '.join(found)}")
        self._scored.update(arch.key for arch in archs)
        return found[names[0]]
