"""The scores of predictors that a search uses: kept in the store, counted, computed only once.

A strategy asks `Setting.score`. What the database holds for the same context is taken from there; the rest is
computed and committed before the strategy sees it, so a replay, another study and `nas score` find it there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nas_core.architecture import Architecture
from nas_core.errors import UsageError
from predictors.scoring import Scored, Scores, split_score
from studies.store.store import Store

SECONDS_A_COMMIT = 2.0  # of computing scores: no more is lost by an interruption


class Scoring:
    """Scores of one source, by the store where there is one. `store` None: nothing is kept beyond this process."""

    def __init__(self, source: Scores, store: Store | None = None) -> None:
        self.source = source
        self._store = store
        self._context = None if store is None else store.context(source.context)
        self._known: dict[str, dict[str, float]] = {}  # by score and architecture

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
        self._keep(self.source.score(list(missing.values()), wanted) if missing else ())
        return {name: [found[arch.key] for arch in archs] for name, found in known.items()}

    def _stored(self, name: str) -> dict[str, float]:
        if name not in self._known:
            self._known[name] = (
                {} if self._store is None or self._context is None else (self._store.scores(self._context, name))
            )
        return self._known[name]

    def _keep(self, scored: Iterable[Scored]) -> None:
        """Commit scores, slow ones in small groups."""
        waiting: list[Scored] = []
        try:
            for one in scored:
                waiting.append(one)
                if sum(sum(each.seconds.values()) for each in waiting) > SECONDS_A_COMMIT:
                    self._commit(waiting)
        finally:
            self._commit(waiting)

    def _commit(self, waiting: list[Scored]) -> None:
        if self._store is not None and self._context is not None and waiting:
            self._store.save_scores(
                self._context,
                [
                    (one.arch, name, value, one.seconds.get(name))
                    for one in waiting
                    for name, value in one.values.items()
                ],
            )
        for one in waiting:
            for name, value in one.values.items():
                self._stored(name)[one.arch.key] = value
        waiting.clear()


class Counted:
    """What one search is given as `Setting.score`; counts the architectures that it had scored."""

    def __init__(self, scoring: Scoring) -> None:
        self._scoring = scoring
        self._scored: set[str] = set()

    @property
    def count(self) -> int:
        """How many different architectures have been scored, however often and by however many predictors."""
        return len(self._scored)

    def __call__(self, predictor: str, archs: Sequence[Architecture]) -> list[float]:
        """The score `naswot`, or the component `az_nas.trainability`. Raises UsageError for several components."""
        proxy, component = split_score(predictor)
        found = self._scoring.table([proxy], archs)
        names = [name for name in found if not component or name.endswith(f".{component}")]
        if len(names) != 1:
            raise UsageError(f"predictor '{predictor}' is no single score; name one of {', '.join(found)}")
        self._scored.update(arch.key for arch in archs)
        return found[names[0]]
