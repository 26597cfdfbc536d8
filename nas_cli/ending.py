"""What a search prints when it ends: the best architecture, and the exact next commands."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import asdict
from typing import Any

from nas_cli import baselines_view
from nas_cli.options import DEFAULT_DB
from nas_cli.render import clean, emit, number
from nas_core.config import size_text
from nas_core.errors import InfeasibleError, NotFoundError
from nas_core.records import RETRAIN, Run
from nas_core.strategy import State
from reports.metrics import batch_size, shown
from studies.analysis.baselines import compared
from studies.analysis.queries import Cause, best_trials, causes, causes_text, state_counts
from studies.documents import objectives_of
from studies.records import Study
from studies.search.endings import Ending
from studies.setup.supernets import caution
from studies.store.store import Store


def print_ending(store: Store, study: Study, ending: Ending, as_json: bool) -> None:
    """To stdout: text, or one JSON document."""
    counts, failed = state_counts(store, study), causes(store, study)
    try:
        leading, trouble = best_trials(store, study), ""
    except (InfeasibleError, NotFoundError) as error:
        leading, trouble = {}, str(error)
    best = next(iter(leading.values()), None)
    if as_json:
        emit(json.dumps(_document(study, ending, counts, leading, failed)))
        return
    evaluated = sum(counts.get(state, 0) for state in (State.COMPLETE, State.PRUNED, State.FAILED))
    supernet = study.spec.supernet is not None
    trials = "" if supernet and not counts else f"{evaluated} trial{'s' * (evaluated != 1)} evaluated; "
    emit(f"study {study.name}: {trials}{ending}")
    if supernet and not counts:
        pass  # nothing was to be evaluated yet, or the supernet is the result
    elif best is None:
        print(trouble, file=sys.stderr)
    else:
        if failed:
            emit(clean(causes_text(study, failed)))
        for metric, run in leading.items():
            emit(f"\nbest{'' if run is best else f' {metric}'}: {study.name}:{run.number}")
            _best(study, run, list(leading))
        baselines_view.comparisons(compared(store, study, best, objectives_of(study.spec)))
    emit("\nnext:")
    for command in next_commands(store, study, ending, best):
        emit(f"  {command}")


def _best(study: Study, run: Run, objectives: list[str]) -> None:
    """Its metrics, objectives first, and its choices."""
    for name in shown(dict(sorted(run.metrics.items())), batch_size(study.spec), objectives):
        emit(f"  {name:<14} {number(run.metrics[name])}")
    note = caution(study.spec)
    if note is not None:
        emit(f"  note: {note}")
    emit("  " + "\n  ".join(f"{name} = {value}" for name, value in run.arch.values.items()))


def database(store: Store) -> str:
    """The option with which a next command finds the same database; a password is never printed."""
    if store.url == os.environ.get("NAS_DB", DEFAULT_DB):
        return ""
    return " --db URL" if store.place != store.url else f" --db {shlex.quote(store.url)}"


def places(store: Store) -> str:
    """The same for a command that uses the files of the store too."""
    options = database(store)
    if store.files != store.default_files and str(store.files) != os.environ.get("NAS_FILES"):
        options += f" --files {shlex.quote(str(store.files))}"
    return options


def next_commands(store: Store, study: Study, ending: Ending, best: Run | None) -> list[str]:
    """Commands that work as they are, copied into a shell."""
    db, name = places(store), study.name
    if ending == Ending.INTERRUPTED:
        return [f"nas resume {name}{db}"]
    if ending == Ending.SUPERNET:
        return [
            f"nas search --space {shlex.quote(study.spec.space)} --size {_size(study)} --evaluator supernet:{name}{db}",
            f"nas show {name}{db}",
        ]
    commands = [f"nas trials {name}{database(store)}"]
    if ending == Ending.TIME:
        commands.append(f"nas resume {name}{db}")
    elif ending == Ending.TRIALS:
        commands.append(f"nas resume {name} --trials {(study.stop_at.trials or 20) * 2}{db}")
    if best is None:
        return commands
    found = [f"nas front {name}{database(store)}"] if len(study.spec.objectives) > 1 else []
    found.append(f"nas show {name}:{best.number}{db}")
    facts = study.spec.evaluator.facts
    if facts.data is not None and not facts.looks_up:
        found.append(f"nas train {name}:{best.number}{db}")
    if any(child.state == State.COMPLETE for child in store.children(best, RETRAIN)):
        found.append(f"nas export {name}:{best.number}{db}")
    if facts.supernet is not None:
        found.append(f"nas extract {name}:{best.number}{db}")
    return found + commands


def _size(study: Study) -> str:
    return shlex.quote(size_text(study.spec.size))


def _document(
    study: Study, ending: Ending, counts: dict[str, int], leading: dict[str, Run], failed: list[Cause]
) -> dict[str, Any]:
    documents = {
        metric: {"number": run.number, "architecture": dict(run.arch.values), "metrics": dict(run.metrics)}
        for metric, run in leading.items()
    }
    return {
        "study": study.name,
        "ending": ending.name.lower(),
        "trials": counts,
        "failures": [asdict(cause) for cause in failed],
        "best": next(iter(documents.values()), None),
        "best_by_objective": documents,
    }
