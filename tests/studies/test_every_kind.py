"""Studies of every kind that were stored by schema 0005, and what must go on working with them.

They were made by `schemas/make_every_kind.py`; no later version can make them again.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nas_cli.app import run
from nas_core.records import StopAt
from studies.store.store import Store
from tests.studies.schemas.make_every_kind import AFTER, DUMP, FOLDER, STUDIES

SCHEMAS = Path(__file__).parent / "schemas"
ARCHIVE = SCHEMAS / "0005-every-kind.tar.gz"
OLDER = sorted(SCHEMAS.glob("*.sql"))
FRESH = ("--db", "sqlite:///fresh.db", "--files", "fresh")

BENCH = [f"ranking/{strategy}/{seed}" for strategy in ("random", "local-search") for seed in (0, 1)]
SUPERNETS = ["shared", "derived"]  # whose own search is over when the supernet is trained
SEARCHES = [*(name for name in STUDIES if name not in SUPERNETS), "shared-random"]
TABULAR = ["plain", "snapshots", "front", "bracket", "neighbours", "recorded", "free", "warm", "generator"]
# What the gate goes on with; of the others it repeats every decision, and the slow tests go on with them too.
RESUMED = ["plain", "snapshots", "front", "bracket", "recorded", "warm", "own", "continued"]
REPEATED = ["plain", "front", "recorded", "limited", "own", "derived"]

Say = Callable[..., str]


def some(names: list[str], gate: list[str]) -> list[Any]:
    return [pytest.param(name, marks=[pytest.mark.slow] * (name not in gate)) for name in names]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the archive, with the database."""
    folder = tmp_path_factory.mktemp("every-kind")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def dump(unpacked: Path) -> Iterator[sqlite3.Connection]:
    """The rows as they were stored, whatever the schema is now."""
    with sqlite3.connect(":memory:") as connection:
        connection.executescript((unpacked / DUMP).read_text())
        yield connection
    connection.close()


def filled(unpacked: Path, folder: Path) -> Path:
    """A copy of the folder, with the database as it was."""
    shutil.copytree(unpacked, folder)
    with sqlite3.connect(folder / "nas.db") as connection:
        connection.executescript((folder / DUMP).read_text().replace(FOLDER, str(folder)))
    connection.close()
    return folder


def entered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    for name in [name for name in os.environ if name.startswith("NAS_")]:
        monkeypatch.delenv(name)
    return folder


@pytest.fixture
def folder(unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of one's own, as working folder."""
    return entered(filled(unpacked, tmp_path / "work"), monkeypatch)


@pytest.fixture(scope="module")
def shared(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy for all tests that only look; the first of them upgrades the database."""
    return filled(unpacked, tmp_path_factory.mktemp("shared") / "work")


@pytest.fixture
def look(shared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """As `say`, in the shared copy."""
    entered(shared, monkeypatch)
    return saying(capsys)


@pytest.fixture
def say(folder: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    return saying(capsys)


def saying(capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs a command that must succeed; its stdout."""

    def command(*arguments: str) -> str:
        code = run(arguments)
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    return command


def trajectory(name: str, url: str = "sqlite:///nas.db", values: bool = False) -> list[tuple[Any, ...]]:
    """What was proposed; with `values` also what came of it."""
    with Store(url, create=False) as store:
        return [
            (run.arch, dict(run.note), run.proposal.budget, run.proposal.continues, run.identity, run.reuses)
            + ((run.state, run.verdict.values, run.verdict.violations, run.metrics) if values else ())
            for run in store.trials(store.study(name), metrics=True)
        ]


def test_every_study_is_listed_with_what_it_had(say: Say, dump: sqlite3.Connection) -> None:
    names = {name for (name,) in dump.execute("SELECT name FROM studies")}
    assert names == {*STUDIES, *BENCH, "shared-random"}
    listed = {study["study"]: study for study in json.loads(say("ls", "--json"))}
    assert listed.keys() | {*BENCH} == names
    for name, study in listed.items():
        states = "SELECT state, count(*) FROM trials WHERE study = ? AND state <> 'running' GROUP BY state"
        assert study["states"] == dict(dump.execute(states, [name])), name
    assert [bench["bench"] for bench in json.loads(say("bench", "ls", "--json"))] == ["ranking"]
    assert "local-search" in say("bench", "show", "ranking")
    for command in ("best own", "front front", "trials pruned", "show bracket"):
        assert say(*command.split())
    states = {state for (state,) in dump.execute("SELECT DISTINCT state FROM runs")}
    assert states == {"complete", "failed", "pruned", "rejected", "reused", "running"}


@pytest.mark.parametrize("name", [*STUDIES, "shared-random"])
def test_every_study_is_shown(look: Say, name: str, dump: sqlite3.Connection) -> None:
    shown = json.loads(look("show", name, "--json"))
    assert shown["study"] == name
    if name != "shared":  # whose supernet is the result
        (key,) = dump.execute("SELECT architecture FROM trials WHERE study = ? AND number = 0", [name]).fetchone()
        assert json.loads(look("show", f"{name}:0", "--json"))["architecture"] == json.loads(key)["values"]


@pytest.mark.parametrize("name", [*STUDIES, "shared-random", *BENCH])
def test_every_study_is_verified(look: Say, shared: Path, name: str) -> None:
    caches = sorted(shared.glob("nas-files/_kept/*.kept"))
    look("verify", name)
    assert sorted(shared.glob("nas-files/_kept/*.kept")) == caches  # the generator of then was found


@pytest.mark.parametrize("name", some(SEARCHES, RESUMED))
def test_a_study_is_resumed_to_what_an_uninterrupted_search_finds(say: Say, name: str) -> None:
    with Store("sqlite:///nas.db", create=False) as store, Store("sqlite:///fresh.db") as fresh:
        study = store.study(name)
        more = StopAt(
            trials=None if study.stop_at.trials is None else study.stop_at.trials + 2,
            spent=None if study.stop_at.spent is None else study.stop_at.spent + 2,
        )
        fresh.create_study(name, study.spec, more)
    before = trajectory(name, values=True)
    budget = ("--spend", str(more.spent)) if more.trials is None else ("--trials", str(more.trials))
    say("resume", name, *budget)
    say("resume", name, *FRESH)
    after = trajectory(name, values=name in TABULAR)
    assert len(after) > len(before)
    assert after == trajectory(name, "sqlite:///fresh.db", values=name in TABULAR)
    assert trajectory(name, values=True)[: len(before)] == before or name == "stopped"


def test_an_unfinished_trial_goes_on_from_its_checkpoint(say: Say, dump: sqlite3.Connection) -> None:
    query = "SELECT m.step, m.name, m.value FROM metrics m JOIN runs r ON r.id = m.run JOIN studies s ON s.id = r.study"
    query += " WHERE s.name = 'stopped' ORDER BY m.step, m.name"
    before = dump.execute(query).fetchall()
    assert {step for step, _, _ in before} == {1.0, 2.0, 3.0}
    say("resume", "stopped")
    curve = json.loads(say("show", "stopped:0", "--json"))["curve"]
    assert [row["step"] for row in curve] == list(range(1, 9))
    assert [row[name] for row in curve[:3] for name in sorted(row.keys() & {"train_loss", "val_loss"})] == [
        value for _, name, value in before if name in ("train_loss", "val_loss")
    ]


@pytest.mark.parametrize("name", some([name for name in STUDIES if name != "stopped"], REPEATED))
def test_the_command_of_then_finds_its_study_done(say: Say, name: str) -> None:
    before = trajectory(name, values=True)
    say(*shlex.split(STUDIES[name]), "--study", name)
    assert trajectory(name, values=True) == before


def test_scores_of_then_are_found(say: Say, folder: Path) -> None:
    with Store("sqlite:///nas.db", create=False) as store:
        before = store.query("SELECT count(*), sum(seconds) FROM scores")
    (command,) = (command for command in AFTER if command.startswith("score --of"))
    say(*shlex.split(command))
    with Store("sqlite:///nas.db", create=False) as store:
        assert store.query("SELECT count(*), sum(seconds) FROM scores") == before


@pytest.mark.parametrize("name", some(["own", "plain", "graph", "trained"], ["own", "plain"]))
def test_stored_trainings_are_exported_and_more_are_made(say: Say, folder: Path, name: str) -> None:
    which = "trained:0" if name == "trained" else name  # its best trial was not trained
    files = json.loads(say("export", which, "--format", "safetensors,json", "--no-verify", "--out", "again", "--json"))
    assert len(files["files"]) >= 3
    trial = json.loads(say("best", name, "--json"))["number"]
    data = ("--data", "digits") if name == "plain" else ()
    trained = json.loads(say("train", f"{name}:{trial}", "--recipe", "quick", "--epochs", "2", *data, "--json"))
    assert trained["runs"][0]["metrics"]["test_accuracy"] >= 0
    assert ("test_recall" in trained["runs"][0]["metrics"]) == (name == "own")


def test_files_of_then_are_loaded(folder: Path) -> None:
    import safetensors.torch
    import torch

    from studies.extract import load_extracted
    from training.export import load_network

    network = load_network("export/trained-0.json", "export/trained-0.safetensors")
    weights = safetensors.torch.load_file("export/trained-0.safetensors")
    assert network.state_dict().keys() == weights.keys()
    assert all(torch.equal(network.state_dict()[name], weight) for name, weight in weights.items())
    assert load_extracted("extracted")(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


def test_a_supernet_of_then_is_extracted_from(say: Say, folder: Path) -> None:
    import safetensors.torch
    import torch

    say("extract", "shared-random", "--to", "again")
    then, now = (safetensors.torch.load_file(f"{place}/weights.safetensors") for place in ("extracted", "again"))
    assert then.keys() == now.keys()
    assert all(torch.allclose(then[name], now[name], atol=1e-4) for name in then)  # statistics are taken anew


@pytest.mark.slow
def test_a_supernet_that_is_trained_again_derives_the_same(say: Say) -> None:
    """The fast test of it is one epoch of each one-shot strategy in tests/golden."""
    say("search", *shlex.split(STUDIES["derived"])[1:], "--study", "derived", *FRESH)
    assert trajectory("derived") == trajectory("derived", "sqlite:///fresh.db")


@pytest.mark.slow
def test_a_bench_of_then_is_done(say: Say) -> None:
    """The fast test of it is that each of its searches is verified."""
    (command,) = (command for command in AFTER if command.startswith("bench"))
    shown = say("bench", "show", "ranking", "--json")
    assert json.loads(say(*shlex.split(command), "--json")) == json.loads(shown)
    assert json.loads(say("bench", "resume", "ranking", "--json")) == json.loads(shown)


@pytest.mark.parametrize("script", OLDER, ids=lambda path: path.stem)
def test_studies_of_every_schema_are_listed_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], script: Path
) -> None:
    """Their space and evaluator were of the tests of then, so that nothing more can be done with them."""
    monkeypatch.chdir(tmp_path)
    with sqlite3.connect("nas.db") as connection:
        connection.executescript(script.read_text())
    connection.close()
    assert run(["ls", "--json"]) == 0
    name = json.loads(capsys.readouterr().out)[0]["study"]
    for arguments in (("show", name), ("show", f"{name}:0")):
        assert run([*arguments, "--json"]) == 0, capsys.readouterr().err
        assert json.loads(capsys.readouterr().out)
    assert run(["verify", name]) in (2, 3)
    assert capsys.readouterr().err.startswith("nas: unknown space 'letters'")
