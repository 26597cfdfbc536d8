"""`nas train STUDY --top K`: the best trials of a study trained again, and ranked by that."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
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
    store: Store, study: Study, plans: Sequence[Training], top: int, seeds: int, where: Where, as_json: bool
) -> int:
    """Train the best `top` trials with `seeds` seeds each, and print their ranking, of layers one for each host: the
    exit code.

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
    rankings: list[list[Ranked]] = []
    for plan in plans:
        trained: list[tuple[Run, Sequence[Run]]] = []
        for trial in trials:
            _, lines = remarks(study, trial, plan.evaluator, chosen=False)
            for line in lines:
                print(f"nas: {address_of(study, trial)}: {line}", file=sys.stderr)
            runs, code = driven(store, study, trial, plan.of(trial.arch), seeds, where)
            if len(runs) < seeds:
                words = [*again(study.name, plan.settings, seeds), "--top", str(top)]
                interrupted(study.name, words, places(store), runs, as_json)
                return code
            trained.append((trial, runs))
        rankings.append(ranked(study, trained))
        if not as_json:
            _print(study, plan, rankings[-1], seeds)
    if as_json:
        made = [_document(study, plan, found, seeds) for plan, found in zip(plans, rankings, strict=True)]
        render.emit(json.dumps(made[0] if len(made) == 1 else {"study": study.name, "hosts": made}))
    return 0 if all(one.metric is not None for found in rankings for one in found) else 1


def _objective(study: Study) -> str:
    return study.spec.objectives[0].rpartition(":")[0]


def _document(study: Study, plan: Training, found: Sequence[Ranked], seeds: int) -> dict[str, Any]:
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
    return {**head, "seeds": seeds, "ranking": ranking}


def _print(study: Study, plan: Training, found: Sequence[Ranked], seeds: int) -> None:
    from nas_cli import render
    from studies.address import address_of

    objective = _objective(study)
    by = next((one.metric for one in found if one.metric is not None), "")
    tested = [name for name in (found[0].metrics if found else ()) if name.startswith("test_") and name != "test_loss"]
    names = [name for name in dict.fromkeys((by, *tested)) if name]
    host = plan.settings["size"].get("host")
    count = f"{seeds} training{'s' if seeds > 1 else ''} each with {plan.settings['recipe_name']}"
    where = f" in {host}" if host else ""
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
