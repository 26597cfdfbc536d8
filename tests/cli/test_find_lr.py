"""`nas train --find-lr` through the real command line."""

from __future__ import annotations

import csv
import json
import shlex
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from nas_cli.app import run
from nas_cli.find_lr import suggestion
from nas_core.task import Task
from training.range_test import RangeTest
from training.recipe import Recipe, recipe
from training.tasks import all_kinds

Say = Callable[..., tuple[int, str, str]]

SIZE = ["--size", "channels=2,cells=1"]


@pytest.fixture
def study(folder: Path, say: Say) -> str:
    """A study with one trial."""
    words = [*SIZE, "--epochs", "1", "--threads", "1", "-s", "split.limit=200", "--study", "s", "--trials", "1"]
    assert say("search", *words, "--strategy", "random", "--seed", "1")[0] == 0
    return "s"


@pytest.fixture
def graph(folder: Path, say: Say) -> str:
    words = ["--space", "nasbench_graph", "--data", "karate", "--epochs", "2", "--threads", "1", "--study", "g"]
    assert say("search", *words, "--strategy", "random", "--trials", "1")[0] == 0
    return "g"


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Range tests of fewer steps, where their outcome does not matter."""
    monkeypatch.setattr("training.range_test.FEWEST_STEPS", 60)


def stored(folder: Path) -> list[str]:
    with sqlite3.connect(folder / "nas.db") as connection:
        return list(connection.iterdump())


def test_it_suggests_writes_and_names_a_command_that_works(study: str, folder: Path, say: Say) -> None:
    before = stored(folder)
    code, out, err = say("train", study, "--find-lr", *SIZE)
    assert code == 0, err
    assert out.startswith("s:0: learning-rate range test, 300 steps from 1e-05 to 10\n")
    suggested = dict(line.split()[:2] for line in out.splitlines()[1:4])
    assert suggested.keys() == {"lr_max", "lr_base", "lr_steepest"}
    assert float(suggested["lr_base"]) == pytest.approx(float(suggested["lr_max"]) / 4, rel=0.01)
    assert "learning rates: step 300/300" in err
    assert stored(folder) == before

    curve = folder / "nas-files" / "s" / "trial-0" / "lr-range.csv"
    picture = curve.with_suffix(".svg")
    assert f"curve: {curve.relative_to(folder)}\npicture: {picture.relative_to(folder)}\n" in out
    with curve.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == [str(step) for step in range(1, 301)]
    assert float(rows[0]["lr"]) == pytest.approx(1e-5)
    lowest = min(rows, key=lambda row: float(row["smoothed_loss"]))
    assert float(suggested["lr_max"]) == pytest.approx(float(lowest["lr"]) / 3, rel=0.01)
    assert "<svg " in picture.read_text()

    command = out.splitlines()[-1].strip()
    assert command.startswith(f"nas train s:0 --recipe standard {shlex.join(SIZE)}")
    assert f"-s lr={suggested['lr_max']} -s lr_base={suggested['lr_base']} -s schedule=triangular2" in command
    words = shlex.split(command)[1:]
    code, out, err = say(*words, "-s", "epochs=8")
    assert code == 0, err
    assert "s:0: 1 training with standard" in out


def test_json_is_one_document_and_the_picture_lies_where_it_should(
    study: str, short: None, folder: Path, say: Say
) -> None:
    (folder / "found.csv").write_text("mine")
    given = ["-s", "warmup_epochs=2", "-s", "batch_size=32"]
    code, out, err = say("train", "s:0", "--find-lr", *SIZE, "--picture", "found.png", "--json", *given)
    assert code == 0, err
    found = json.loads(out)
    assert found.keys() == {
        "trial", "lr_max", "lr_base", "lr_steepest", "blew_up", "steps", "curve", "picture", "next",
    }  # fmt: skip
    assert found["picture"] == "found.png"
    assert (folder / "found.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / found["curve"]).is_file()
    assert (folder / "found.csv").read_text() == "mine"
    assert "-s batch_size=32 -s lr=" in found["next"]
    assert "warmup" not in found["next"]


def test_a_graph_is_tested_in_full_batches(graph: str, say: Say) -> None:
    code, out, err = say("train", graph, "--find-lr", "--epochs", "100", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["steps"] <= 300
    assert "-s cycle_epochs=10" in found["next"]
    code, out, err = say(*shlex.split(found["next"])[1:])
    assert code == 0, err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--find-lr", "--seeds", "2"], "--seeds 2 is for trainings; --find-lr tests one network"),
        (["--picture", "x.svg"], "--picture is the picture of --find-lr"),
        (["--find-lr", "--picture", "x.pdf"], "--picture 'x.pdf': the name of a picture ends in .png or .svg"),
        (["--find-lr", "--picture", "no/x.svg"], "there is no folder 'no'"),
        (["--find-lr", "-s", "schedule=triangular2", "--epochs", "9"], "no whole number of cycles"),
    ],
)
def test_what_does_not_fit_is_one_line(study: str, folder: Path, say: Say, options: list[str], message: str) -> None:
    code, out, err = say("train", study, *options)
    assert (code, out) == (2, "")
    assert message in err
    assert not (folder / "x.svg").exists()


def test_a_network_that_does_not_learn_is_one_line(
    study: str, short: None, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.range_test.FALL", 1.0)  # more than any loss falls
    code, out, err = say("train", study, "--find-lr", *SIZE)
    assert (code, out) == (1, "")
    assert "nas: the learning-rate range test of s:0 failed: no-descent: the loss does not fall" in err


@pytest.fixture(scope="module")
def found() -> RangeTest:
    rates = tuple(10.0**power for power in range(-4, 2))
    return RangeTest(rates, (2.0, 1.9, 1.0, 0.8, 0.9, 9.0), (2.0, 1.9, 1.0, 0.8, 0.9, 9.0), True)


def trainings() -> list[tuple[str, Task, dict[str, int]]]:
    """Named recipes as they are and with other lengths, where they can have them."""
    named = [(name, kind.example) for kind in all_kinds() for name in kind.recipes]
    lengths = [(name, task, {"epochs": epochs}) for name, task in named for epochs in (2, 7, 34) if name != "ae-cnn"]
    return [*((name, task, {}) for name, task in named), *lengths]


@pytest.mark.parametrize(("name", "task", "changes"), trainings())
def test_the_suggested_changes_are_a_recipe(found: RangeTest, name: str, task: Task, changes: dict[str, int]) -> None:
    chosen = recipe(name, task, **changes)
    suggested = suggestion(found, chosen, task.kind == "node-classification")
    made = recipe(name, task, **{**changes, **suggested})
    assert (made.schedule, made.lr, made.lowest) == ("triangular2", 0.0333, 0.00833)
    assert chosen.epochs <= made.epochs < chosen.epochs + 8


def test_a_recipe_in_cycles_keeps_its_schedule(found: RangeTest) -> None:
    chosen = Recipe(epochs=12, schedule="exp_range", gamma=0.999, cycle_epochs=3)
    assert suggestion(found, chosen, False) == {"lr": 0.0333, "lr_base": 0.00833}


def test_help_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--help"]) == 0
    assert "--find-lr" in capsys.readouterr().out
