"""`nas train STUDY --top K`: the best trials of a study trained again, and ranked by that."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from nas_cli.driving import driven, interrupted

if TYPE_CHECKING:
    from nas_core.records import Run
    from nas_core.space import SearchSpace
    from studies.analysis.ranking import Mean, Ranked
    from studies.executors.where import Where
    from studies.jobs.train import Training
    from studies.records import Study
    from studies.store.store import Store


def check_ranked(address: str, refused: Sequence[str]) -> None:
    """Raises UsageError for an address that is no study, and for what does not go with `--top`."""
    from nas_core.errors import UsageError
    from studies.address import is_object, is_path, parse

    if is_object(address) or is_path(address) or parse(address).study != address:
        raise UsageError(f"--top ranks the trials of a study, and '{address}' is none; write STUDY alone")
    if refused:
        raise UsageError(f"--top trains several trials; leave out {', '.join(refused)}")


def rank(
    store: Store,
    study: Study,
    hosts: Sequence[Iterable[Training]],
    top: int,
    seeds: int,
    folds: int | None,
    where: Where,
    as_json: bool,
) -> int:
    """Train the best `top` trials with `seeds` seeds each, and print their ranking, of layers one for each host: the
    exit code. Of a host there is one plan, or one for each of so many `folds`, made one after another, so that no more
    than one is in memory; a trial is ranked by the mean over all of its trainings.

    What has been trained with these settings is not trained again, so that the command goes on where it was stopped.
    """
    from nas_cli import render
    from nas_cli.ending import places
    from studies.address import address_of
    from studies.analysis.costs import remarks
    from studies.analysis.queries import top_trials
    from studies.analysis.ranking import ranked
    from studies.jobs.commands import train as again

    trials = top_trials(store, study, top)
    if len(trials) < top:
        print(f"nas: study '{study.name}' has {len(trials)} different trials to rank, not {top}", file=sys.stderr)
    made: list[tuple[Training, list[Ranked]]] = []
    for plans in hosts:
        runs: list[list[Run]] = [[] for _ in trials]
        for fold, plan in enumerate(plans):
            for trial, trained in zip(trials, runs, strict=True):
                _, lines = remarks(study, trial, plan.evaluator, chosen=False)
                for line in lines if fold == 0 else ():
                    print(f"nas: {address_of(study, trial)}: {line}", file=sys.stderr)
                done, code = driven(store, study, trial, plan.of(trial.arch), seeds, where)
                trained += done
                if len(done) < seeds:
                    settings = plan.settings if folds is None else {**plan.settings, "split": {"folds": folds}}
                    words = [*again(study.name, settings, seeds), "--top", str(top)]
                    words += [] if folds is None else ["--folds"]
                    interrupted(study.name, words, places(store), trained, as_json)
                    return code
        made.append((plan, ranked(study, list(zip(trials, runs, strict=True)))))
        if not as_json:
            _print(study, *made[-1], seeds, folds)
    if as_json:
        documents = [_document(study, plan, found, seeds, folds) for plan, found in made]
        render.emit(json.dumps(documents[0] if len(documents) == 1 else {"study": study.name, "hosts": documents}))
    return 0 if all(one.metric is not None for _, found in made for one in found) else 1


def _objective(study: Study) -> str:
    return study.spec.objectives[0].rpartition(":")[0]


def _document(study: Study, plan: Training, found: Sequence[Ranked], seeds: int, folds: int | None) -> dict[str, Any]:
    from studies.address import address_of

    objective = _objective(study)
    ranking = [
        {
            "rank": place,
            "trial": address_of(study, one.trial),
            "search": {objective: one.trial.metrics.get(objective)},
            "ranked_by": one.metric,
            "metrics": {name: {"mean": mean.mean, "error": mean.error} for name, mean in one.metrics.items()},
            "runs": [address_of(study, one.trial, run) for run in one.runs],
            "failed": [run.verdict.reason for run in one.runs if run.verdict.reason],
        }
        for place, one in enumerate(found, 1)
    ]
    head = {"study": study.name, "recipe": plan.settings["recipe_name"], "size": plan.settings["size"]}
    return {**head, "seeds": seeds, **({} if folds is None else {"folds": folds}), "ranking": ranking}


def _print(study: Study, plan: Training, found: Sequence[Ranked], seeds: int, folds: int | None) -> None:
    from nas_cli import render
    from studies.address import address_of

    objective = _objective(study)
    by = next((one.metric for one in found if one.metric is not None), "")
    tested = [name for name in (found[0].metrics if found else ()) if name.startswith("test_") and name != "test_loss"]
    names = [name for name in dict.fromkeys((by, *tested)) if name]
    host = plan.settings["size"].get("host")
    count = f"{seeds} training{'s' if seeds > 1 else ''} each with {plan.settings['recipe_name']}"
    where = (f" in {host}" if host else "") + ("" if folds is None else f" on each of {folds} folds")
    render.emit(f"{study.name}: its best {len(found)} trials, {count}{where}, by mean {by} (± standard error)")
    heads = ["rank", "trial", f"search {objective}", *(part for name in names for part in (name, "±")), "text"]
    rows = [
        [
            place,
            address_of(study, one.trial),
            one.trial.metrics.get(objective),
            *(cell for name in names for cell in _cells(one.metrics.get(name))),
            _said(plan.evaluator.space, one),
        ]
        for place, one in enumerate(found, 1)
    ]
    render.table(heads, rows, right=[head for head in heads if head not in ("trial", "text")], spare=["text"])


def _cells(mean: Mean | None) -> tuple[Any, Any]:
    return (None, None) if mean is None else (mean.mean, mean.error)


def _said(space: SearchSpace, one: Ranked) -> str:
    """Why a trial has no rank, or the text of its architecture where its space has one."""
    from nas_core.space import HasNotation

    failed = next((run.verdict.reason for run in one.runs if run.verdict.reason), None)
    if failed is not None:
        return f"failed: {failed}"
    return space.to_text(one.trial.arch) if isinstance(space, HasNotation) else ""
