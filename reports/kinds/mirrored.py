"""The kinds that Optuna draws: what choices matter, how values depend on them and are distributed, what ran when."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy

from nas_core.choice import Value
from nas_core.errors import NotFoundError
from nas_core.evaluation import Objective
from nas_core.records import Run
from nas_core.seeds import generator
from reports import trials as read
from reports.kind import Kind, Subject, of_study
from reports.mirrored import MOST, Mirrored, MirroredTrial, Plot, importances
from reports.trials import Trials

BEST = 500
"""Of the mirrored trials; the others are drawn from the rest."""
DRAWN: Mapping[Plot, int] = {"param_importances": 20, "parallel_coordinate": 10, "slice": 6, "rank": 3}
"""How many choices a plot shows, the most important ones; the others show none."""
FEWER: Mapping[str, int] = {"parallel": 1_000, "rank": 1_000, "timeline": 1_000}
"""Trials of kinds that take a mark or more for each; the others show as many as a mirror has."""


def _kind(name: str, plot: Plot, about: str) -> Kind:
    return Kind(about, of_study, _making(name, plot))


def _making(name: str, plot: Plot) -> Callable[[Subject], Mirrored]:
    def make(subject: Subject) -> Mirrored:
        return made(subject, name, plot)

    return make


def made(subject: Subject, name: str, plot: Plot, by: str = ", by Optuna") -> Mirrored:
    """The data of a plot. `by`: what its caption says of who draws it.

    Raises NotFoundError where too few trials are measured, or no choice differs between them.
    """
    study, objective = subject.searched, subject.view.objectives[0]
    trials = read.read(subject.store, study, subject.view.objectives)
    among = numpy.arange(len(trials)) if plot == "timeline" else numpy.flatnonzero(_comparable(trials))
    if len(among) < (1 if plot == "timeline" else 2):
        wanted = "no trials" if plot == "timeline" else "fewer than two measured trials of the largest budget"
        raise NotFoundError(f"study '{study.name}' has {wanted} yet; there is nothing to draw")
    chosen = _chosen(trials, among, min(FEWER.get(name, MOST), MOST))
    runs = list(subject.store.some_trials(study, trials.numbers[chosen].tolist(), metrics=False))
    figure = Mirrored(
        kind=name,
        title=f"{study.name}: {name}",
        caption=_caption(len(chosen), len(among), plot, len(subject.view.objectives), objective, by),
        plot=plot,
        metric=objective.metric,
        goal=objective.goal,
        trials=[_mirrored(run, objective) for run in runs],
        options=_options(subject, runs),
    )
    if plot not in DRAWN:
        return figure
    known = [choice for choice, values in figure.options.items() if len(_taken(figure.trials, choice)) > 1]
    if not known:
        raise NotFoundError(f"study '{study.name}' has no choice that differs between its measured trials")
    ranked = [choice for choice in importances(figure) if choice in known]
    ranked += [choice for choice in known if choice not in ranked]
    params = ranked[: DRAWN[plot]]
    caption = figure.caption
    if len(params) < len(known):
        caption += f" The {len(params)} most important of {len(known)} choices are shown (PED-ANOVA)."
    return replace(figure, params=params, caption=caption, size=_size(plot, len(params)))


def _size(plot: Plot, choices: int) -> tuple[float, float]:
    """In inches: room for the names of a choice's options between its axis and the next one."""
    if plot == "parallel_coordinate":
        return max(9.0, 1.6 * choices + 2.0), 6.0
    return {"rank": (11.0, 9.0), "slice": (max(5.0, 2.1 * choices + 0.6), 4.6)}.get(plot, (9.0, 6.0))


def _comparable(trials: Trials) -> numpy.ndarray:
    """Measured with the largest budget, whether constraints hold or not."""
    measured = trials.measured
    return measured & (trials.budgets == trials.budgets[measured].max()) if measured.any() else measured


def _chosen(trials: Trials, among: numpy.ndarray, most: int) -> numpy.ndarray:
    """At most so many positions, in their order: those of the best, and of a sample of the others that is the same
    every time."""
    if len(among) <= most:
        return among
    values = numpy.nan_to_num(trials.oriented[among, 0], nan=-numpy.inf)
    order = among[numpy.argsort(-values, kind="stable")]
    sample = generator(0, "mirror", len(among)).choice(order[BEST:], most - BEST, replace=False)
    return numpy.sort(numpy.concatenate([order[:BEST], sample]))


def _caption(chosen: int, total: int, plot: Plot, objectives: int, objective: Objective, by: str) -> str:
    what = "trials" if plot == "timeline" else "measured trials"
    sample = f" (the best {BEST} and a sample of the others)" if chosen < total else ""
    first = " The first objective alone." if objectives > 1 and plot != "timeline" else ""
    better = "" if plot == "timeline" else f" {'Higher' if objective.goal == 'max' else 'Lower'} is better."
    return f"{read.drawn(chosen, total, what).capitalize()} drawn{sample}{by}.{better}{first}"


def _mirrored(run: Run, objective: Objective) -> MirroredTrial:
    values = run.verdict.values
    return MirroredTrial(
        run.number,
        run.state,
        None if values is None else objective.orient(values[0]),
        run.verdict.feasible,
        dict(run.arch.values),
        run.started,
        run.ended,
    )


def _options(subject: Subject, runs: Sequence[Run]) -> dict[str, list[Value]]:
    """Of every choice the options in the order of the space, and those that only the store knows."""
    space = subject.view.space
    known = {} if space is None else {choice.name: list(choice.options) for choice in space.choices}
    found: dict[str, list[Value]] = {}
    for run in runs:
        for name, value in run.arch.values.items():
            options = found.setdefault(name, list(known.get(name, ())))
            if value not in options:
                options.append(value)
    order = [*(name for name in known if name in found), *(name for name in found if name not in known)]
    return {name: found[name] for name in order}


def _taken(trials: Sequence[MirroredTrial], choice: str) -> set[Value]:
    return {trial.params[choice] for trial in trials if choice in trial.params}


IMPORTANCE = _kind("importance", "param_importances", "how much of the first objective each choice explains")
PARALLEL = _kind("parallel", "parallel_coordinate", "parallel coordinates of the choices")
SLICE = _kind("slice", "slice", "the first objective by each choice alone")
RANK = _kind("rank", "rank", "the ranks of trials by pairs of choices")
EDF = _kind("edf", "edf", "the empirical distribution of the first objective")
TIMELINE = _kind("timeline", "timeline", "when each trial ran, and how it ended")
