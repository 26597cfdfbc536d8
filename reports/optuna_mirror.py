"""A study as Optuna stores one, for optuna-dashboard, its extensions of VS Code and JupyterLab, and Optuna's analysis.

Objectives, directions, choices, states and constraints are the study's; the attribute `address` names a trial.
What got less than the largest budget counts as pruned, as its value does not compare. Ours stays the truth: a mirror is
added to, and made anew where the largest budget has grown.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_core.choice import Value
from nas_core.errors import MachineError, UsageError
from nas_core.records import Run
from nas_core.strategy import FINISHED, State
from studies.documents import View
from studies.store.store import Store

if TYPE_CHECKING:
    import optuna

SOURCE, FULL, ADDRESS = "nas:study", "nas:budget", "address"
"""Attributes of Optuna's study that say whose mirror it is and what its largest budget was; and of its trials."""
PART = 200  # trials that are written at a time


def check(url: str) -> None:
    """Raises UsageError for a file that holds studies of ours: Optuna's tables are called as ours are."""
    file = Path(url.removeprefix("sqlite:///").partition("?")[0])
    if not url.startswith("sqlite:///") or not file.is_file():
        return
    try:
        with sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True) as connection:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        connection.close()
    except sqlite3.Error as error:
        raise UsageError(f"--optuna '{url}' is no database: {error}") from None
    if "runs" in tables:
        raise UsageError(f"--optuna '{url}' holds studies of nas; a mirror needs a file of its own")


def mirror(
    store: Store, view: View, url: str, name: str, progress: Callable[[int], None] = lambda count: None
) -> tuple[int, int]:
    """Write what is new: how many trials, and how many the mirror has then.

    Raises UsageError where the mirror is of another study, or the space cannot say its options; MachineError where the
    database cannot be reached.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    from strategies.parts import optuna_view

    check(url)
    try:
        with optuna_view.quiet():
            return _mirror(store, view, url, name, progress)
    except (SQLAlchemyError, StorageInternalError, ModuleNotFoundError) as error:
        raise MachineError(f"--optuna '{url}' cannot be used: {str(error).splitlines()[0]}") from None


def _mirror(store: Store, view: View, url: str, name: str, progress: Callable[[int], None]) -> tuple[int, int]:
    import optuna

    options = _options(view)
    runs = [run for run in store.trials(view.study) if run.state in FINISHED]
    full = max((_budget(run) for run in runs if run.verdict.values is not None), default=math.inf)
    source = f"{view.study.name} {view.study.created!r}"
    goals = ["maximize" if goal.goal == "max" else "minimize" for goal in view.objectives]
    made = optuna.create_study(storage=url, study_name=name, directions=goals, load_if_exists=True)
    known = made.user_attrs
    if known.get(SOURCE, source) != source or (SOURCE not in known and made.get_trials(deepcopy=False)):
        raise UsageError(f"--optuna '{url}' has another study '{name}'; give the mirror another name by --name")
    if known.get(FULL, str(full)) != str(full):
        optuna.delete_study(study_name=name, storage=url)
        made = optuna.create_study(storage=url, study_name=name, directions=goals)
    for key, value in ((SOURCE, source), (FULL, str(full))):
        made.set_user_attr(key, value)
    if not made.metric_names:
        made.set_metric_names([goal.metric for goal in view.objectives])
    there = {trial.user_attrs.get(ADDRESS) for trial in made.get_trials(deepcopy=False)}
    new = [run for run in runs if view.address(run) not in there]
    curves = store.curves(view.study, view.objectives[0].metric) if new else {}
    trials = list(_trials(view, new, options, full, curves))
    for start in range(0, len(trials), PART):
        made.add_trials(trials[start : start + PART])
        progress(min(start + PART, len(trials)))
    return len(new), len(there) + len(new)


def _options(view: View) -> dict[str, list[Value]]:
    """Of every choice what it may be: Optuna wants the same of all trials, those to come too."""
    if view.space is None:
        raise UsageError(f"a mirror needs the options of space '{view.study.spec.space}': {view.trouble}")
    return {choice.name: list(choice.options) for choice in view.space.choices}


def _trials(
    view: View,
    runs: Sequence[Run],
    options: dict[str, list[Value]],
    full: float,
    curves: dict[int, list[tuple[float, float]]],
) -> Iterator[optuna.trial.FrozenTrial]:
    from optuna.distributions import CategoricalDistribution
    from optuna.trial import FrozenTrial, TrialState

    distributions = {name: CategoricalDistribution(values) for name, values in options.items()}
    for run in runs:
        values = None if run.verdict.values is None else [*view.values(run).values()]
        measured = run.state in (State.COMPLETE, State.REUSED) and values is not None
        if measured:
            state = TrialState.COMPLETE if _budget(run) == full else TrialState.PRUNED
        else:
            state = TrialState.PRUNED if run.state == State.PRUNED else TrialState.FAIL
        system: dict[str, Any] = {}
        if view.study.spec.constraints and run.verdict.violations:
            system["constraints"] = list(run.verdict.violations)
        attributes = {ADDRESS: view.address(run), "state": str(run.state), "reason": run.verdict.reason}
        complete = state == TrialState.COMPLETE
        yield FrozenTrial(
            number=-1,  # Optuna numbers what is added
            trial_id=-1,
            state=state,
            value=None,
            values=values if complete else None,
            datetime_start=datetime.fromtimestamp(run.started or run.ended or 0.0),
            datetime_complete=datetime.fromtimestamp(run.ended or run.started or 0.0),
            params=dict(run.arch.values),
            distributions={name: distributions[name] for name in run.arch.values},
            user_attrs={key: value for key, value in attributes.items() if value is not None},
            system_attrs=system,
            intermediate_values={
                int(step): value
                for step, value in (curves.get(run.number, ()) if len(view.objectives) == 1 else ())
                if math.isfinite(value) and step == int(step)
            },
        )


def _budget(run: Run) -> float:
    return math.inf if run.proposal.budget is None else run.proposal.budget
