"""`nas search` and `nas resume` through the real command line."""

from __future__ import annotations

import json
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest

from nas_cli.app import run
from nas_core import moves
from nas_core.records import StopAt
from search_spaces.nasbench201.space import NasBench201
from studies.store.store import Store

FAST = ["-s", "split.limit=200", "--size", "channels=2,cells=1", "--epochs", "2", "--trials", "3", "--threads", "1"]


@cache
def all_cells() -> str:
    space = NasBench201()
    cells = enumerate(moves.enumerate_all(space))
    rows = [f"{space.to_text(cell)},{n % 97 / 100},{n % 300}" for n, cell in cells]
    return "arch,valid,params\n" + "\n".join(rows) + "\n"


@pytest.fixture
def table(folder: Path) -> list[str]:
    """Arguments for a search on a made table of all cells, with a mapping of its own."""
    (folder / "cells.csv").write_text(all_cells())
    (folder / "cells.yaml").write_text(
        "files: [cells.csv]\nspace: nasbench201\nmatch: architecture\nrow: {text: arch}\ndata:\n  made:\n"
        "    task: {kind: image-classification, input_shape: [3, 32, 32], outputs: 10}\n"
        "    metrics: {val_accuracy: {column: valid}}\n    costs: {params: {column: params}}\n"
    )
    return ["--table", "cells.csv", "-s", "mapping=cells.yaml", "--data", "made", "--strategy", "random"]


def test_a_real_search_and_what_follows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search", *FAST]) == 0
    out, err = capsys.readouterr()
    assert "study nasbench201-digits-1: 3 trials evaluated" in out
    assert len([line for line in err.splitlines() if "3/3 trials" in line]) == 1
    assert "micro_batch" not in out
    address = next(line.split()[1] for line in out.splitlines() if line.startswith("best:"))
    assert f"nas train {address}" in out
    assert "nas export" not in out  # nothing is trained that could be exported
    train = ["train", address, "--size", "channels=2,cells=1", "--epochs", "2", "--seeds", "2", "--json"]
    assert run(train) == 0
    trained = json.loads(capsys.readouterr().out)
    assert trained["seeds"] == 2
    assert 0 <= trained["metrics"]["test_accuracy"]["mean"] <= 1
    assert run(train) == 0  # done already: nothing is trained again
    assert json.loads(capsys.readouterr().out) == trained
    assert run(["export", address, "--format", "safetensors,json", "--json"]) == 0
    files = [Path(file) for file in json.loads(capsys.readouterr().out)["files"]]
    assert {file.suffix for file in files} == {".safetensors", ".json", ".md"}
    assert all(file.is_file() for file in files)
    assert f"nas train {address}" in next(file for file in files if file.suffix == ".md").read_text()
    assert run(["verify", address.split(":")[0]]) == 0


def test_the_same_search_again_is_the_same_study(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, name in ((1, "one"), (1, "two"), (2, "three")):
        assert run(["search", *FAST, "--seed", str(seed), "--study", name]) == 0
    with sqlite3.connect(folder / "nas.db") as connection:
        rows = connection.execute(
            "SELECT study, number, identity, objective FROM trials ORDER BY study, number"
        ).fetchall()
    one, two, three = ([row[1:] for row in rows if row[0] == name] for name in ("one", "two", "three"))
    assert one == two
    assert one != three


def test_a_taken_name_with_another_configuration(
    folder: Path, table: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["search", *table, "--study", "s", "--trials", "5"]) == 0
    assert run(["search", *table, "--study", "s", "--trials", "8"]) == 0  # goes on
    capsys.readouterr()
    assert run(["search", *table, "--study", "s", "--seed", "4"]) == 2
    err = capsys.readouterr().err
    assert "seed: 0 there, 4 now" in err
    assert "nas resume s" in err


def test_resume_raises_the_budget(folder: Path, table: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search", *table, "--study", "s", "--trials", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trials"] == {"complete": 5}
    assert run(["resume", "s", "--trials", "9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trials"] == {"complete": 9}
    assert run(["resume", "s", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trials"] == {"complete": 9}
    assert run(["resume", "s", "--trials", "4"]) == 2
    assert "has 9 evaluated trials already" in capsys.readouterr().err


def test_constraints_and_several_objectives(folder: Path, table: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--objective", "val_accuracy", "--objective", "params:min", "--constraint", "params<=150"]
    assert run(["search", *table, *options, "--study", "s", "--trials", "12"]) == 0
    out, _ = capsys.readouterr()
    assert out.splitlines()[out.splitlines().index("next:") + 1] == "  nas front s"
    assert run(["front", "s", "--json"]) == 0
    front = json.loads(capsys.readouterr().out)
    best = {
        "val_accuracy": max(front, key=lambda trial: trial["metrics"]["val_accuracy"])["address"],
        "params": min(front, key=lambda trial: trial["metrics"]["params"])["address"],
    }
    assert best["val_accuracy"] != best["params"]
    lines = [f"best: {best['val_accuracy']}", f"best params: {best['params']}"]
    assert [line for line in out.splitlines() if line.startswith("best")] == lines
    assert run(["best", "s"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("best")] == lines
    with sqlite3.connect(folder / "nas.db") as connection:
        states = dict(connection.execute("SELECT state, COUNT(*) FROM trials GROUP BY state").fetchall())
        worst = connection.execute("SELECT MAX(value) FROM trials_flat WHERE metric = 'params' AND state = 'complete'")
        assert worst.fetchone()[0] <= 150
    assert states["rejected"] > 0


def test_nothing_feasible_is_exit_code_4(folder: Path, table: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search", *table, "--constraint", "val_accuracy>=2", "--trials", "5"]) == 4
    assert "val_accuracy>=2" in capsys.readouterr().err


def test_precedence(folder: Path, table: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Flag over -s over environment over file over default."""
    from studies.setup.configuration import gather

    file = folder / "search.yaml"
    file.write_text("seed: 1\nlag: 1\ntrials: 1\nthreads: 1\nstrategy: {name: random}\nobjectives: val_accuracy\n")
    monkeypatch.setenv("NAS_LAG", "2")
    monkeypatch.setenv("NAS_TRIALS", "2")
    monkeypatch.setenv("NAS_THREADS", "2")
    config = gather(file, ["trials=3", "threads=3", "strategy.population=7"], {"threads": 4, "data": None})
    assert (config.seed, config.lag, config.trials, config.evaluator.compute) == (1, 2, 3, ("auto", 4, False))
    assert (config.strategy, config.strategy_config) == ("random", {"population": 7})
    assert config.objectives == ("val_accuracy",)


WRONG: list[tuple[list[str], int, str]] = [
    (["--space", "nasbench202"], 2, "unknown space 'nasbench202'; did you mean 'nasbench201'?"),
    (["--strategy", "evolution"], 2, "unknown strategy 'evolution'"),
    (["--data", "digit"], 2, "did you mean 'digits'?"),
    (["--data", "idx:nowhere"], 3, "nowhere"),
    (["--objective", "accuracy"], 2, "unknown metric 'accuracy'"),
    (["--objective", "val_accuracy:up"], 2, "val_accuracy:max or val_accuracy:min"),
    (["--constraint", "params<5"], 2, "constraint 'params<5' is malformed"),
    (["--constraint", "sise<=5"], 2, "unknown metric 'sise'"),
    (["--size", "huge"], 2, "unknown size preset 'huge'"),
    (["--size", "channels=none"], 2, "channels"),
    (["--recipe", "fast"], 2, "unknown recipe 'fast'"),
    (["-s", "strategy.popluation=3"], 2, "did you mean 'population'?"),
    (["-s", "nonsense"], 2, "key=value"),
    (["-s", "spacee=regnet"], 2, "did you mean 'space'?"),
    (["--trials", "0"], 2, "trials"),
    (["--trials", "many"], 2, "'--trials'"),
    (["--space", "nasbench_graph"], 2, "node-classification, node-regression, but the data"),
    (["--space", "nowhere.py:space"], 3, "there is no file 'nowhere.py'"),
    (["--table", "nowhere.csv"], 3, "there is no table 'nowhere.csv'"),
    (["--evaluator", "oracle"], 2, "unknown evaluator 'oracle'"),
    (["--db", "sqlite:////nowhere/nas.db"], 5, "does not exist"),
    (["--db", "sqlite:////proc/nas.db"], 5, "/proc/nas.db"),
    (["--device", "tpu"], 2, "tpu"),
    (["--study", "a/b"], 2, "study"),
    (["nowhere.yaml"], 3, "there is no configuration file 'nowhere.yaml'"),
    (["--what"], 2, "--what"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), WRONG, ids=[" ".join(row[0]) for row in WRONG])
def test_bad_input(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert run(["search", *arguments]) == code
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) <= 2
    assert "Traceback" not in err
    assert not (folder / "nas.db").exists()


def test_bad_files(folder: Path, table: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "types.yaml").write_text("strategy: [random]\n")
    (folder / "list.yaml").write_text("- space\n")
    (folder / "broken.yaml").write_text("space: [\n")
    (folder / "space.py").write_text("space = 3\n")
    (folder / "fails.py").write_text("import nothing_of_the_kind\n")
    (folder / "bare.csv").write_text("arch\n|none~0|+|none~0|none~1|+|none~0|none~1|none~2|\n")
    for arguments, code, message in (
        (["list.yaml"], 2, "must hold keys and values"),
        (["broken.yaml"], 2, "is not YAML"),
        (["types.yaml"], 2, "strategy is ['random']"),
        (["--space", "space.py:space"], 2, "is a int: neither a search space"),
        (["--space", "space.py:other"], 3, "no object 'other'"),
        (["--space", "fails.py:space"], 2, "nothing_of_the_kind"),
        (["--table", "bare.csv", "-s", "mapping=cells.yaml", "--data", "made"], 2, "no column 'valid'"),
        ([*table, "--data", "other"], 2, "'other'"),
        ([*table, "--epochs", "7"], 2, "--epochs 7"),
    ):
        assert run(["search", *arguments]) == code, arguments
        err = capsys.readouterr().err
        assert message in err
        assert len(err.strip().splitlines()) <= 2


def test_unknown_studies_and_addresses(folder: Path, table: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["resume", "s"]) == 3
    assert "there is no database 'nas.db'" in capsys.readouterr().err
    assert run(["search", *table, "--study", "cells", "--trials", "3"]) == 0
    capsys.readouterr()
    for arguments, code, message in (
        (["resume", "cell"], 3, "did you mean 'cells'?"),
        (["train", "cells:99"], 3, "has no trial 99"),
        (["train", "cells:x"], 2, "'cells:x' is no address"),
        (["train", "cells:0"], 2, "name data to train on by --data"),
        (["export", "cells:0"], 3, "run 'nas train cells:0' first"),
    ):
        assert run(arguments) == code, arguments
        assert message in capsys.readouterr().err


def test_a_changed_table_is_refused(folder: Path, table: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search", *table, "--study", "s", "--trials", "3"]) == 0
    file = folder / "cells.csv"
    moved = folder / "moved.csv"
    moved.write_text(file.read_text())
    file.write_text(file.read_text().replace("0.04", "0.05"))
    capsys.readouterr()
    assert run(["resume", "s", "--trials", "5"]) == 2
    assert "is not what the study was made with" in capsys.readouterr().err
    assert run(["resume", "s", "--trials", "5", "--data", "moved.csv"]) == 0


def test_two_definitions_of_a_space(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = (Path(__file__).resolve().parents[2] / "examples" / "my_space.py").read_text()
    (folder / "mine.py").write_text(code)
    (folder / "other.py").write_text(code.replace("(3, 5)", "(3, 7)"))
    fast = ["-s", "split.limit=100", "--epochs", "1", "--trials", "1", "--threads", "1"]
    assert run(["search", "--space", "mine.py:space", "--study", "s", *fast]) == 0
    capsys.readouterr()
    assert run(["search", "--space", "other.py:space", *fast]) == 2
    assert "another definition of space 'my-space'" in capsys.readouterr().err
    (folder / "mine.py").write_text(code + "\n# changed\n")
    assert run(["resume", "s", "--trials", "2"]) == 2
    assert "has changed since the study was made" in capsys.readouterr().err


@pytest.mark.usefixtures("forked_checks")
def test_damaged_weights_are_trained_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search", *FAST, "--study", "s"]) == 0
    train = ["train", "s:0", "--size", "channels=2,cells=1", "-s", "epochs=2"]
    assert run(train) == 0
    (weights,) = (folder / "nas-files").glob("s/*/weights.safetensors")
    intact = weights.read_bytes()
    weights.write_bytes(intact[:-4] + b"1234")
    capsys.readouterr()
    assert run(["export", "s:0", "--format", "safetensors"]) == 7
    again = shlex.split(capsys.readouterr().err.splitlines()[-1])
    assert run(again[1:]) == 0
    assert weights.read_bytes() == intact
    assert run(["export", "s:0", "--format", "safetensors"]) == 0


def test_a_user_s_files_stay(folder: Path, table: list[str]) -> None:
    (folder / "s" / "7").mkdir(parents=True)
    (folder / "s" / "trial-notes").mkdir()
    (folder / "s" / "7" / "file").write_text("precious")
    assert run(["search", *table, "--study", "s", "--files", ".", "--trials", "10"]) == 0
    assert (folder / "s" / "7" / "file").read_text() == "precious"
    assert (folder / "s" / "trial-notes").is_dir()


@pytest.mark.parametrize("database", ["", ":memory:", "sqlite://", "mysql://x/y", "nas:what:is"])
def test_databases_that_keep_nothing(folder: Path, table: list[str], database: str) -> None:
    assert run(["search", *table, "--db", database]) == 2 or database == "nas:what:is"


def test_a_refused_resume_changes_nothing(folder: Path, table: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search", *table, "--study", "s", "--trials", "3"]) == 0
    with Store("sqlite:///nas.db") as store, store.lock(store.study("s")):
        for files in ([], ["--files", "elsewhere"]):
            assert run(["resume", "s", "--trials", "9", *files]) == 2
            assert "another process" in capsys.readouterr().err
    for options in (["--trials", "0"], ["--trials", "-5"], ["--time", "nan"], ["--time", "inf"], ["--time", "-1"]):
        assert run(["resume", "s", *options]) == 2
    with Store("sqlite:///nas.db") as store:
        assert store.study("s").stop_at == StopAt(trials=3)


def test_next_commands_find_the_same_place(
    folder: Path, table: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_DB", "sqlite:///other.db")
    assert run(["search", *table, "--study", "s", "--db", "sqlite:///nas.db", "--files", "f", "--trials", "3"]) == 0
    shown = [line.strip() for line in capsys.readouterr().out.split("next:")[1].splitlines() if line.strip()]
    assert all("--db sqlite:///nas.db" in line for line in shown)
    assert all("--files f" in line for line in shown if not line.startswith("nas trials"))
    for line in shown:
        assert run(shlex.split(line)[1:]) == 0, line


BROKEN_SPACE = """
import sys, time
from nas_core.choice import Choice
from nas_core.space import SearchSpace
class Broken(SearchSpace):
    name, tasks = "broken", frozenset({"image-classification"})
    choices = (Choice("a", (1, 2)),)
    def allowed(self, choice, prefix):
        return () if MODE == "empty" else choice.options
    def build(self, arch, task, size):
        if MODE == "exit":
            sys.exit(0)
        if MODE == "hang":
            while True:
                time.sleep(0.01)
        return None
space = Broken()
"""


@pytest.mark.parametrize(
    ("mode", "code", "message"),
    [
        ("empty", 2, "allows no option of 'a'"),
        ("exit", 1, "exception: SystemExit"),
        ("none", 1, "returned NoneType, not a torch.nn.Module"),
        ("hang", 1, "time-limit: the candidate did not stop within 0.5 s"),
    ],
)
def test_spaces_that_misbehave(
    folder: Path, capsys: pytest.CaptureFixture[str], mode: str, code: int, message: str
) -> None:
    (folder / f"{mode}.py").write_text(f"MODE = {mode!r}\n{BROKEN_SPACE}")
    limit = ["--trials", "1", "--trial-time", "0.5", "--threads", "1", "--study", "s"]
    assert run(["search", "--space", f"{mode}.py:space", *limit]) == code
    said = capsys.readouterr()
    if code == 1:
        with Store("sqlite:///nas.db") as store:
            assert message in (store.trial(store.study("s"), 0).verdict.reason or "")
    else:
        assert message in said.err
        assert len(said.err.splitlines()) == 1


def interrupted(folder: Path) -> subprocess.Popen[str]:
    """A long training search that got SIGINT once its first epoch was stored."""
    arguments = ["search", "--study", "s", "--epochs", "500", "--trials", "2", "--size", "channels=2,cells=1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "nas_cli", *arguments, "--threads", "1", "-s", "split.limit=200"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    begun = time.monotonic()
    while time.monotonic() - begun < 60:
        database = folder / "nas.db"
        if database.exists():
            try:
                with sqlite3.connect(database, timeout=30) as connection:
                    if connection.execute("SELECT COUNT(*) FROM metrics").fetchone()[0] > 0:
                        break
            except sqlite3.OperationalError:  # the tables are not there yet
                pass
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    return process


def test_ctrl_c_stops_after_a_checkpoint(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = interrupted(folder)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "nas resume s" in out
    assert "Traceback" not in err
    assert list((folder / "nas-files" / "s" / "trial-0").glob("*.safetensors"))
    with sqlite3.connect(folder / "nas.db") as connection:
        before = connection.execute("SELECT MAX(step) FROM metrics").fetchone()[0]
    for seconds in ("0.5", "4", "30"):  # as long as the machine needs
        assert run(["resume", "s", "--time", seconds]) in (0, 1)
        with sqlite3.connect(folder / "nas.db") as connection:
            after = connection.execute("SELECT MAX(step) FROM metrics").fetchone()[0]
        if after > before:
            break
    assert after > before


def test_a_full_folder_of_files_loses_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint that cannot be written stops the search with everything stored."""
    (folder / "files").mkdir()
    (folder / "files" / "s").mkdir()
    (folder / "files" / "s" / "trial-0").write_text("in the way of the trial's folder")
    assert run(["search", *FAST, "--study", "s", "--files", "files", "-s", "checkpoint_seconds=0"]) == 5
    err = capsys.readouterr().err
    assert "Traceback" not in err
    (folder / "files" / "s" / "trial-0").unlink()
    assert run(["resume", "s", "--files", "files"]) == 0
