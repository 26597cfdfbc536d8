"""`nas score`: the scores of a pool of architectures, and how well they rank it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from nas_core.architecture import Architecture
from nas_core.config import Config, SizeConfig
from nas_core.errors import UsageError, unknown
from nas_core.space import HasCosts, SearchSpace
from nas_core.task import Task
from predictors import PROXIES
from predictors.ranking import RANKINGS, ranking
from predictors.scoring import WORST, Networks, Scored, Scores, ScoreTable, split_score
from studies import events
from studies.analysis.correlation import Correlation, correlate
from studies.analysis.pool import Target
from studies.events import Listener
from studies.records import NetworkScores, RecordedScores, Study
from studies.setup.scores import DEFAULT_BATCH, Counted, Scoring, kept_as
from studies.setup.spaces import load_space, size_of
from studies.store.store import Store
from training.data.split import Split

ALL = "all"
FEWEST = 3  # results of which a correlation says anything


class ScoreConfig(Config):
    """Where scores come from: untrained networks on data, or a table of recorded ones."""

    space: str = "nasbench201"
    size: str | dict[str, Any] = "search"
    data: str | None = Field(default=None, description="data reference; of a table of scores: its data set")
    split: Split = Split()
    scores: str | None = Field(default=None, description="table of recorded scores")
    scores_mapping: str | None = None
    mapping: str | None = Field(default=None, description="mapping of the table of results")
    batch: int = DEFAULT_BATCH
    device: str = "auto"
    threads: int | None = Field(default=None, ge=1)


@dataclass(frozen=True)
class Origin:
    """What a configuration comes to: the space and size, and the source of scores."""

    space: SearchSpace
    size: SizeConfig
    source: Scores
    task: Task | None  # None: a table of scores, which does not say
    threads: int | None = None


@dataclass
class Scoreboard:
    """Scores of architectures by name, in the order that was asked for; one per architecture, higher is better."""

    archs: list[Architecture]
    values: dict[str, list[float]]
    milliseconds: dict[str, float] = field(default_factory=dict)  # per architecture, where it was measured
    reasons: dict[str, dict[str, int]] = field(default_factory=dict)  # why some are the worst: how many
    computed: int = 0  # architectures that were scored by this call
    context: int | None = None  # the id under which the store keeps them

    def worst(self, name: str) -> int:
        return sum(value == WORST for value in self.values[name])

    def best(self, name: str, count: int) -> list[int]:
        """The positions of the best architectures by a score, the first of equals first. Raises UsageError."""
        if name not in self.values:
            raise unknown("score", name, self.values)
        values = self.values[name]
        return sorted(range(len(values)), key=lambda index: -values[index])[:count]


def study_config(study: Study, given: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a `ScoreConfig` for what a study has evaluated: those `given`, the others as the study has them.

    Raises UsageError for another space, or where the study has neither data nor scores.
    """
    spec = study.spec
    if given.get("space", spec.space) != spec.space:
        raise UsageError(f"study '{study.name}' searches space '{spec.space}'; leave out --space")
    if load_space(spec.space)[1] != spec.space_hash:
        raise UsageError(f"the file of space '{spec.space}' has changed since the study was made; restore it")
    scoring, facts = spec.scoring, spec.evaluator.facts
    own: dict[str, Any] = {"space": spec.space, "size": spec.size}
    if isinstance(scoring, RecordedScores) and "data" not in given:
        own |= {"scores": scoring.table, "scores_mapping": scoring.mapping, "data": facts.data}
    elif "scores" in given:
        own["data"] = facts.data
    else:
        networks = scoring if isinstance(scoring, NetworkScores) else NetworkScores(data=None, batch=DEFAULT_BATCH)
        own["data"] = networks.data or (facts.data if facts.trains else None)
        own["batch"] = networks.batch
        if own["data"] is None and "data" not in given:
            raise UsageError(f"study '{study.name}' looked its results up; name data for the networks by --data")
        if facts.trains and given.get("data", own["data"]) == facts.data:
            own["split"] = facts.split
    return {**own, **given}


def open_origin(config: ScoreConfig) -> Origin:
    """Raises UsageError, NotFoundError or MachineError for what does not fit."""
    space, _ = load_space(config.space)
    size = size_of(space, config.size)
    if config.scores is not None:
        data = config.data or _first_data(space, Path(config.scores), config.scores_mapping)
        return Origin(space, size, ScoreTable(space, Path(config.scores), data, config.scores_mapping), None)
    from training.data import load
    from training.devices import default_threads, find_device

    device = find_device(config.device)
    source = load(config.data or "digits", config.split)
    networks = Networks(space, size, source, batch=config.batch, device=str(device))
    return Origin(space, size, networks, source.task, config.threads or default_threads(source.task))


def score(
    origin: Origin,
    predictors: Sequence[str],
    archs: Sequence[Architecture],
    store: Store,
    listener: Listener = events.silent,
) -> Scoreboard:
    """The scores of all architectures by predictors, components, rankings, or `all`; what the store holds is not
    computed again, the rest in one pass over each network.

    `listener` hears how many of the networks to be scored are finished. Raises UsageError for names that
    give no score here.
    """
    board = Scoreboard(list(archs), {})
    why: dict[str, dict[str, str]] = {}  # by predictor and architecture
    now: set[tuple[str, str]] = set()  # scores and architectures

    def scored(one: Scored, total: int) -> None:
        board.computed += 1
        now.update((name, one.arch.key) for name in one.values)
        for name, reason in one.reasons.items():
            why.setdefault(name, {})[one.arch.key] = reason
        listener(events.Counted(board.computed, total))

    scoring = Scoring(lambda: origin.source, store, scored)
    wanted = columns(origin.source, predictors)
    with _threads(origin):
        found = scoring.table(_inputs(wanted), board.archs)
    board.context = scoring.context
    counted = Counted(scoring)
    for name, is_ranking in wanted.items():
        if is_ranking:
            board.values[name] = [float(value) for value in ranking(name, board.archs, counted)]
            continue
        board.values[name] = found[name]
        seconds = _seconds(store, scoring.context, name, board.archs)
        if seconds:
            board.milliseconds[name] = 1000 * math.fsum(seconds) / len(seconds)
        known = why.get(split_score(name)[0], {})
        worst = [arch.key for arch, value in zip(board.archs, found[name], strict=True) if value == WORST]
        if worst:
            finite = "empty cell" if isinstance(origin.source, ScoreTable) else "not finite"
            otherwise = {key: finite if (name, key) in now else "as recorded" for key in worst}
            board.reasons[name] = dict(Counter(known.get(key, otherwise[key]) for key in worst).most_common())
    return board


def with_results(archs: Sequence[Architecture], target: Target) -> list[int]:
    """The positions of the architectures that have a result. Raises UsageError for fewer than 3 of them."""
    kept = [index for index, arch in enumerate(archs) if arch.key in target.values]
    if len(kept) < FEWEST:
        raise UsageError(
            f"{len(kept)} of {len(archs)} architectures have a {target.metric} ({target.source}); "
            f"a correlation needs {FEWEST}"
        )
    return kept


def correlations(origin: Origin, board: Scoreboard, target: Target, seed: int = 0) -> dict[str, Correlation]:
    """How well each score ranks the architectures that have a result; given the number of parameters too, where the
    space tells it without building, or where it is among the scores. Raises UsageError for fewer than 3 of them."""
    kept = with_results(board.archs, target)
    results = [target.values[board.archs[index].key] for index in kept]
    sizes = _parameters(origin, board, target)
    given = None if sizes is None else [sizes[index] for index in kept]
    return {
        name: correlate([values[index] for index in kept], results, given, seed=seed)
        for name, values in board.values.items()
    }


def _threads(origin: Origin) -> AbstractContextManager[None]:
    if origin.threads is None:
        return nullcontext()
    from training.threads import thread_count

    return thread_count(origin.threads)


def columns(source: Scores, predictors: Sequence[str]) -> dict[str, bool]:
    """The names of all scores in the order asked for, and whether each is a ranking. Raises UsageError for a name that
    gives no score here."""
    found: dict[str, bool] = {}
    for text in predictors:
        if text in RANKINGS:
            found[text] = True
            if text not in PROXIES:
                continue
        if text == ALL:
            names = [name for predictor in source.predictors() for name in source.names(predictor)]
        else:
            predictor, component = split_score(text)
            every = source.names(predictor)
            names = [name for name in every if not component or split_score(name)[1] == component]
            if not names:
                raise unknown(f"score of '{predictor}'", text, every)
        found |= {name: False for name in names if name not in found}
    return found


def _inputs(columns: Mapping[str, bool]) -> list[str]:
    """The predictors behind the scores, and behind what the rankings read, once each, so that all share one pass."""
    parts = [RANKINGS[name].scores if is_ranking else (name,) for name, is_ranking in columns.items()]
    return list(dict.fromkeys(split_score(part)[0] for group in parts for part in group))


def _seconds(store: Store, context: int | None, name: str, archs: Sequence[Architecture]) -> list[float]:
    known = {} if context is None else store.score_seconds(context, kept_as(name))
    return [known[arch.key] for arch in archs if arch.key in known]


def _parameters(origin: Origin, board: Scoreboard, target: Target) -> list[float] | None:
    task = origin.task or target.task
    if isinstance(origin.space, HasCosts) and task is not None:
        return [origin.space.costs(arch, task, origin.size)["params"] for arch in board.archs]
    return board.values.get("params")


def _first_data(space: SearchSpace, file: Path, mapping: str | None) -> str:
    from training.evaluators.rows import open_mapping

    return next(iter(open_mapping(space, file, mapping)[1].scores), "")
