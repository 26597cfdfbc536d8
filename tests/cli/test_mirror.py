"""`nas mirror`: Optuna reads the same best trial, front and constraints, and more of them later."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from studies.analysis.queries import best_trial, front_trials
from studies.store.store import Store
from tests.cli.test_bench import write

optuna = pytest.importorskip("optuna")

Say = Callable[..., tuple[int, str, str]]
WHERE = ["--space", "dials.py:space", "--table", "dials.csv", "--data", "made"]
KINDS = {
    "plain": ["--strategy", "random", "--objective", "val_accuracy"],
    "constrained": ["--strategy", "random", "--objective", "val_accuracy", "--constraint", "test_accuracy<=0.75"],
    "front": ["--strategy", "nsga2", "--objective", "val_accuracy", "--objective", "test_accuracy:min"],
    "bracket": ["--strategy", "hyperband", "--objective", "val_accuracy"],
    "minimised": ["--strategy", "local-search", "--objective", "test_accuracy:min"],
}


def there(name: str) -> optuna.Study:
    return optuna.load_study(study_name=name, storage="sqlite:///optuna.db")


@pytest.mark.parametrize("name", KINDS)
def test_the_same_best_front_and_constraints(folder: Path, say: Say, name: str) -> None:
    write(folder)
    assert say("search", *WHERE, *KINDS[name], "--trials", "12", "--study", name)[0] == 0
    code, out, err = say("mirror", name, "--optuna", "sqlite:///optuna.db")
    assert (code, err) == (0, "")
    found = there(name)
    with Store("sqlite:///nas.db", reading=True) as store:
        study = store.study(name)
        runs = list(store.trials(study))
        front = {f"{name}:{run.number}" for run in front_trials(store, study)}
        best = best_trial(store, study)
    assert out.startswith(f"mirror: {len(runs)} new trials, {len(runs)} in all;")
    assert {one.user_attrs["address"]: one.params for one in found.trials} == {
        f"{name}:{run.number}": dict(run.arch.values) for run in runs
    }
    if name == "front":
        assert {one.user_attrs["address"] for one in found.best_trials} >= front
        values = {tuple(one.values) for one in found.best_trials}
        assert values == {tuple(one.values) for one in found.trials if one.user_attrs["address"] in front}
    else:
        assert found.best_trial.user_attrs["address"] == f"{name}:{best.number}"
    if name == "bracket":  # what got less does not compare
        budgets = {f"{name}:{run.number}": run.proposal.budget or 0.0 for run in runs}
        less = {address for address, budget in budgets.items() if budget < max(budgets.values())}
        assert {one.user_attrs["address"] for one in found.trials if one.state.name == "PRUNED"} == less
        assert less
    if name == "constrained":
        broken = {f"{name}:{run.number}" for run in runs if run.verdict.values and not run.verdict.feasible}
        said = {one.user_attrs["address"]: one.system_attrs["constraints"] for one in found.trials if one.values}
        assert {address for address, violations in said.items() if max(violations) > 0} == broken
        assert broken
    assert len(optuna.importance.get_param_importances(found, target=lambda one: one.values[0])) == 4
    assert say("mirror", name, "--optuna", "sqlite:///optuna.db")[1].startswith("mirror: 0 new trials")
    assert say("resume", name, "--trials", "16")[0] == 0
    say("mirror", name, "--optuna", "sqlite:///optuna.db")
    with Store("sqlite:///nas.db", reading=True) as store:
        assert len(there(name).trials) == len(list(store.trials(store.study(name))))


def test_mistakes_are_a_line(folder: Path, say: Say) -> None:
    write(folder)
    assert say("search", *WHERE, *KINDS["plain"], "--trials", "2", "--study", "s")[0] == 0
    optuna.create_study(study_name="s", storage="sqlite:///optuna.db").add_trial(optuna.create_trial(value=1.0))
    Path("not.db").write_text("no database")
    for words, code, said in (
        (["s", "--optuna", "sqlite:///optuna.db"], 2, "has another study 's'; give the mirror another name by --name"),
        (["s", "--optuna", "sqlite:///nas.db"], 2, "holds studies of nas; a mirror needs a file of its own"),
        (["s", "--optuna", "sqlite:///not.db"], 2, "is no database"),
        (["s", "--optuna", "optuna.db"], 2, "is no database URL"),
        (["t", "--optuna", "sqlite:///optuna.db"], 3, "no study 't'"),
    ):
        found, out, err = say("mirror", *words)
        assert (found, out) == (code, "")
        assert said in err
        assert len(err.splitlines()) <= 2
    with sqlite3.connect("nas.db") as connection:
        assert "trial_params" not in {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    assert say("mirror", "s", "--optuna", "sqlite:///optuna.db", "--name", "mine")[0] == 0
    assert len(there("mine").trials) == 2
