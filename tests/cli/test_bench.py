"""`nas bench` on a small table: its figures are those of the stored trials, and a stopped bench is the same bench."""

from __future__ import annotations

import contextlib
import csv
import heapq
import io
import itertools
import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
import xml.etree.ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from nas_cli.app import run
from nas_core.strategy import State
from studies.store.store import Store

QUERIES, SEEDS, LOW, HIGH = 12, 4, 3, 12

SPACE = '''"""Four choices of six."""
from nas_core.choice import Choice
from nas_core.space import SearchSpace

class Dials(SearchSpace):
    name = "dials"
    tasks = frozenset({"image-classification"})
    choices = tuple(Choice(f"dial{n}", (0, 1, 2, 3, 4, 5)) for n in range(4))

    def build(self, arch, task, size):
        raise NotImplementedError

space = Dials()
'''

STRATEGY = '''"""Strategies that are slow, raise, and end their process."""
import os
import time
from strategies.basic.random_search import RandomSearch

class Slow(RandomSearch):
    def ask(self, number, pending):
        time.sleep(0.01)
        return super().ask(number, pending)

class Raising(RandomSearch):
    def ask(self, number, pending):
        return super().ask(number, pending) if number < 3 else 1 / 0

class Dying(RandomSearch):
    def ask(self, number, pending):
        return super().ask(number, pending) if number < 3 else os._exit(7)
'''

MAPPING = f"""
files: [dials.csv]
space: dials
row: {{choices: {{dial0: d0, dial1: d1, dial2: d2, dial3: d3}}}}
data:
  made:
    task: {{kind: image-classification, input_shape: [1, 8, 8], outputs: 10}}
    metrics:
      val_accuracy: {{columns: {{{LOW}: low, {HIGH}: high}}}}
      test_accuracy: {{columns: {{{LOW}: low_test, {HIGH}: high_test}}}}
    seconds: {{column: seconds, per_unit: true}}
  loss:
    task: {{kind: image-classification, input_shape: [1, 8, 8], outputs: 10}}
    metrics: {{loss: {{column: low_test, goal: min}}}}
"""

# `label=strategy`; hyperband pays both schedules of the table.
CONTENDERS = "random,ea=regularized-evolution,hyperband,slow=own.py:Slow"
COMMAND = [
    *("bench", "strategies", "--space", "dials.py:space", "--table", "dials.csv", "--strategies", CONTENDERS),
    *("--queries", str(QUERIES), "--seeds", str(SEEDS), "--name", "small", "--jobs", "2"),
    *("-s", "ea.population=4", "-s", "ea.sample=2"),
]
LABELS = ["random", "ea", "hyperband", "slow"]


def rows() -> list[dict[str, float]]:
    """Accuracies without ties that every dial contributes to, with a little that looks like noise."""
    found = []
    for n, dials in enumerate(itertools.product(range(6), repeat=4)):
        high = 0.5 + sum((weight + 1) * dial for weight, dial in enumerate(dials)) / 110 + (n * 7919 % 1297) / 40_000
        found.append(
            {f"d{position}": dial for position, dial in enumerate(dials)}
            | {"low": high - 0.2 + (n * 31 % 101) / 1_000, "high": high, "low_test": high / 2, "high_test": high - 0.01}
            | {"seconds": 1 + n * 13 % 17}
        )
    return found


def write(folder: Path) -> None:
    (folder / "dials.py").write_text(SPACE)
    (folder / "own.py").write_text(STRATEGY)
    (folder / "dials.yaml").write_text(MAPPING)
    with (folder / "dials.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows()[0]))
        writer.writeheader()
        writer.writerows(rows())


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder in which the command has run, and its document."""
    folder = tmp_path_factory.mktemp("done")
    write(folder)
    before, printed = Path.cwd(), io.StringIO()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(printed):
            assert run([*COMMAND, "--json", "--plot", "curves.svg"]) == 0
    finally:
        os.chdir(before)
    return folder, json.loads(printed.getvalue())


@pytest.fixture
def finished(done: tuple[Path, dict[str, Any]], folder: Path) -> dict[str, Any]:
    """The document, in a folder with a copy of the database."""
    for name in ("nas.db", "dials.csv", "dials.py", "dials.yaml", "own.py"):
        (folder / name).write_bytes((done[0] / name).read_bytes())
    return done[1]


def curve(store: Store, label: str, seed: int) -> list[float]:
    """Validation of the incumbent after 1, 2, ... queries, counted trial by trial."""
    table = rows()
    mean = statistics.fmean(row["high"] for row in table)
    spent, best, after = 0.0, None, [mean] * (QUERIES + 1)
    for trial in store.trials(store.study(f"small/{label}/{seed}"), metrics=True):
        if trial.state != State.COMPLETE:
            continue
        budget = HIGH if trial.proposal.budget is None else trial.proposal.budget
        spent += budget / HIGH
        if budget == HIGH:
            best = max(best or 0.0, trial.metrics["val_accuracy"])
            for query in range(1, QUERIES + 1):
                if query >= spent - 1e-9:
                    after[query] = best
    return after[1:]


def test_the_figures_are_those_of_the_stored_trials(finished: dict[str, Any]) -> None:
    values = sorted((row["high"] for row in rows()), reverse=True)
    assert (finished["rows"], finished["top_rows"]) == (1296, 2)
    assert (finished["optimum"], finished["top_threshold"]) == (values[0], values[1])
    with Store("sqlite:///nas.db", create=False) as store:
        curves = {label: [curve(store, label, seed) for seed in range(SEEDS)] for label in LABELS}
    blind = values[0] - statistics.fmean(values)
    regrets = {label: [values[0] - one[-1] for one in of] for label, of in curves.items()}
    ranked = stats.rankdata([regrets[label] for label in LABELS], axis=0).mean(axis=1)
    for place, standing in enumerate(finished["strategies"]):
        label, of = standing["label"], curves[standing["label"]]
        last = [one[-1] for one in of]
        assert standing["validation"][str(QUERIES)]["mean"] == pytest.approx(statistics.fmean(last))
        assert standing["validation"][str(QUERIES)]["std"] == pytest.approx(statistics.stdev(last))
        assert standing["test"][str(QUERIES)]["mean"] == pytest.approx(statistics.fmean(last) - 0.01)
        areas = [statistics.fmean((values[0] - value) / blind for value in one) for one in of]
        assert standing["area"]["mean"] == pytest.approx(statistics.fmean(areas))
        first = [next((q for q, value in enumerate(one, 1) if value >= values[1]), QUERIES + 1) for one in of]
        assert standing["to_top"] == {
            "median": sorted(first)[1],
            "p90": sorted(first)[3],
            "missed": first.count(QUERIES + 1),
        }
        assert standing["rank"] == pytest.approx(ranked[place])
        if label == "random":
            assert standing["paired"] is None
        else:
            expected = stats.ttest_rel(regrets[label], regrets["random"], alternative="less").pvalue
            interval = stats.ttest_rel(regrets[label], regrets["random"]).confidence_interval(0.95)
            half = 0.0 if label == "slow" else (interval.high - interval.low) / 2
            assert standing["paired"]["half"] == pytest.approx(half)
            # Slow is random search too, with the same seeds: no difference at all.
            assert standing["paired"]["p_t"] == pytest.approx(1.0 if label == "slow" else expected)
        assert standing["spent"] == pytest.approx(QUERIES, abs=1)
        assert 0 < standing["ask_seconds"] < 1
    assert finished["friedman"]["p"] == pytest.approx(stats.friedmanchisquare(*regrets.values()).pvalue)
    assert finished["baseline"] == "random"
    assert [standing["label"] for standing in finished["strategies"]] == LABELS
    assert finished["strategies"][3]["ask_seconds"] > 0.01


def test_a_bracket_pays_fractions_and_both_schedules(finished: dict[str, Any]) -> None:
    with Store("sqlite:///nas.db", create=False) as store:
        budgets = [trial.proposal.budget for trial in store.trials(store.study("small/hyperband/0"))]
        curves = [curve(store, "hyperband", seed) for seed in range(SEEDS)]
    assert set(budgets) == {LOW, HIGH}
    assert len(budgets) > QUERIES
    assert all(one == sorted(one) for one in (of[2:] for of in curves))


def test_show_prints_the_same_from_the_database(
    finished: dict[str, Any], say: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, err = say("bench", "show", "small", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == finished
    code, out, _ = say("bench", "show", "small")
    assert code == 0
    lines = {line.split()[0]: line for line in out[out.index("ranking") :].splitlines() if line}
    for standing in finished["strategies"]:
        assert f"\t{standing['rank']:g}" in lines[standing["label"]]
    assert f">{QUERIES}" in out  # misses
    assert "one-sided paired tests" in out
    assert "regret - random's" in out


def test_the_picture_is_one(done: tuple[Path, dict[str, Any]]) -> None:
    text = (done[0] / "curves.svg").read_text()
    assert xml.etree.ElementTree.fromstring(text).tag.endswith("svg")


def test_show_draws_png(finished: dict[str, Any], folder: Path, say: Callable[..., tuple[int, str, str]]) -> None:
    assert say("bench", "show", "small", "--plot", "curves.png")[0] == 0
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_command_runs_nothing_again(
    finished: dict[str, Any], say: Callable[..., tuple[int, str, str]]
) -> None:
    runs = count("SELECT COUNT(*) FROM runs")
    code, out, _ = say(*COMMAND, "--json")
    assert (code, json.loads(out)) == (0, finished)
    unnamed = [word for word in COMMAND if word not in ("--name", "small")]
    assert json.loads(say(*unnamed, "--json")[1])["bench"] == "small"  # found by its configuration
    assert count("SELECT COUNT(*) FROM runs") == runs
    listed = json.loads(say("bench", "ls", "--json")[1])
    assert [(one["bench"], one["finished"], one["searches"]) for one in listed] == [("small", 16, 16)]


def test_children_are_studies_that_do_not_flood_the_list(
    finished: dict[str, Any], say: Callable[..., tuple[int, str, str]]
) -> None:
    assert json.loads(say("ls", "--json")[1]) == []
    assert len(json.loads(say("trials", "small/ea/3", "--json")[1])) >= QUERIES
    assert say("verify", "small/hyperband/1")[0] == 0


def test_another_configuration_under_the_name_is_refused_with_the_differences(
    finished: dict[str, Any], say: Callable[..., tuple[int, str, str]]
) -> None:
    other = [word.replace("12", "13").replace("population=4", "population=5") for word in COMMAND]
    code, out, err = say(*other)
    assert (code, out) == (2, "")
    assert "queries: 12 there, 13 now" in err
    assert "ea.population: 4 there, 5 now" in err
    assert "seeds" not in err
    assert "nas bench resume small" in err


def test_a_bench_that_was_interrupted_and_killed_comes_to_the_same(finished: dict[str, Any], folder: Path) -> None:
    whole = children(folder / "nas.db")
    start = [*COMMAND, "--db", "cut.db"]
    first = launch(start)
    wait_for(lambda: count("SELECT COUNT(*) FROM studies WHERE measured IS NOT NULL", "cut.db") >= 2)
    os.killpg(first.pid, signal.SIGINT)
    assert first.wait(60) == 130
    assert "go on: nas bench resume small --db sqlite:///cut.db" in first.stderr.read()  # type: ignore[union-attr]
    interrupted = count("SELECT COUNT(*) FROM studies WHERE measured IS NOT NULL", "cut.db")
    assert 2 <= interrupted < len(whole)

    second = launch(["bench", "resume", "small", "--db", "cut.db", "--jobs", "2"])
    wait_for(lambda: count("SELECT COUNT(*) FROM studies WHERE measured IS NOT NULL", "cut.db") >= interrupted + 2)
    second.kill()
    second.wait(60)
    wait_for(lambda: not alive(second.pid))
    assert len(children(folder / "cut.db")) < len(whole) or children(folder / "cut.db") != whole

    last = launch(["bench", "resume", "small", "--db", "cut.db", "--jobs", "1", "--json"])
    out, _ = last.communicate(timeout=120)
    assert last.returncode == 0
    assert children(folder / "cut.db") == whole
    assert timeless(json.loads(out)) == timeless(finished)


def test_simulated_workers_pass_the_recorded_seconds(folder: Path, say: Callable[..., tuple[int, str, str]]) -> None:
    write(folder)
    words = [word.replace(CONTENDERS, "random") for word in COMMAND if not word.startswith("ea.") and word != "-s"]
    code, out, _ = say(*words, "--workers", "3", "--clock", "simulated", "--json")
    assert code == 0
    document = json.loads(out)
    assert (document["workers"], document["simulated"]) == (3, True)
    ends = []
    with Store("sqlite:///nas.db", create=False) as store:
        for seed in range(SEEDS):
            workers = [0.0] * 3
            for trial in store.trials(store.study(f"small/random/{seed}")):  # each goes to the first free worker
                heapq.heapreplace(workers, workers[0] + (trial.verdict.seconds or 0.0))
            ends.append(max(workers))
    assert document["strategies"][0]["simulated_seconds"] == pytest.approx(statistics.median(ends))
    assert "simulated hours" in say("bench", "show", "small")[1]


def test_a_search_that_ends_early_keeps_its_last_incumbent(
    folder: Path, say: Callable[..., tuple[int, str, str]]
) -> None:
    """Random search has nothing left after the rows of a small space; a minimised metric is printed as it is."""
    write(folder)
    lines = (folder / "dials.csv").read_text().splitlines()
    (folder / "dials.py").write_text(SPACE.replace("(0, 1, 2, 3, 4, 5)", "(0, 1)"))
    small = [line for line in lines[1:] if set(line.split(",")[:4]) <= {"0", "1"}]
    (folder / "dials.csv").write_text("\n".join([lines[0], *small]) + "\n")
    command = "bench strategies --space dials.py:space --table dials.csv --data loss --objective loss --seeds 2"
    code, out, _ = say(*command.split(), "--queries", "40", "--strategies", "random", "--json")
    assert code == 0
    document = json.loads(out)
    lowest = min(float(line.split(",")[6]) for line in small)
    standing = document["strategies"][0]
    assert (document["rows"], document["optimum"], standing["spent"]) == (16, lowest, 16)
    assert (standing["validation"]["40"]["mean"], standing["regret"]["mean"]) == (lowest, 0)
    assert standing["test"] is None
    assert standing["to_top"]["p90"] <= 16


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("Raising", "strategy 'Raising', seed 0 (small/Raising/0): ZeroDivisionError: division by zero"),
        ("Dying", "3 processes died, the last with exit code 7, while they searched with 'Dying', seed 0"),
    ],
)
def test_a_broken_strategy_ends_the_bench_in_one_line(
    folder: Path, say: Callable[..., tuple[int, str, str]], strategy: str, message: str
) -> None:
    write(folder)
    command = "bench strategies --space dials.py:space --table dials.csv --queries 5 --seeds 1 --name small"
    code, out, err = say(*command.split(), "--strategies", f"own.py:{strategy}")
    assert (code, out) == (1, "")
    assert message in err.splitlines()[-1]
    assert count("SELECT COUNT(*) FROM runs") == 3
    code, _, err = say("bench", "show", "small")
    assert code == 3
    assert "no seed yet that every strategy has finished" in err


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        (["--strategies", "random,evolve"], 2, "unknown strategy 'evolve'"),
        (["--strategies", "random,hyperband,asha", "--data", "loss", "--objective", "loss"], 2,
         "not for space 'dials' with this table: hyperband, asha;"),
        (["--strategies", "random,random"], 2, "'random' is there twice"),
        (["--strategies", ","], 2, "no strategies"),
        (["--strategies", "a.b=random"], 2, "'a.b=random' has no usable name"),
        (["--queries", "0"], 2, "--queries 0: must be at least 1"),
        (["--seeds", "-1"], 2, "--seeds -1: must be at least 1"),
        (["--table", "nowhere.csv"], 3, "there is no table 'nowhere.csv'"),
        (["--data", "other"], 2, "unknown data set of table 'dials.csv' 'other'"),
        (["--objective", "speed"], 2, "unknown metric 'speed'"),
        (["-s", "evolution.population=3"], 2, "unknown strategy in -s 'evolution'"),
        (["-s", "ea.size=3"], 2, "strategy ea: unknown key 'size'"),
        (["-s", "ea=3"], 2, "write ea.KEY=VALUE"),
        (["--clock", "real"], 2, "unknown clock 'real'"),
        (["--data", "loss", "--objective", "loss", "--strategies", "random", "--workers", "2"], 2,
         "records no seconds"),
        (["--plot", "curves.pdf"], 2, ".png or .svg"),
        (["--plot", "nowhere/curves.png"], 2, "there is no folder 'nowhere'"),
        (["--name", "a/b"], 2, "--name 'a/b'"),
        (["--space", "nasbench201"], 2, "describes space 'dials'"),
    ],
)  # fmt: skip
def test_mistakes_are_said_before_anything_runs(
    folder: Path, say: Callable[..., tuple[int, str, str]], changes: list[str], code: int, message: str
) -> None:
    write(folder)
    words = [*COMMAND[:-4], *changes] if "--strategies" in changes else [*COMMAND, *changes]
    found, out, err = say(*words)
    assert (found, out) == (code, "")
    assert err.startswith("nas: ")
    assert message in err
    assert not (folder / "nas.db").exists() or count("SELECT COUNT(*) FROM benches") == 0


@pytest.mark.parametrize("command", [["bench", "show", "small"], ["bench", "resume", "small"]])
def test_a_bench_that_is_not_there(folder: Path, say: Callable[..., tuple[int, str, str]], command: list[str]) -> None:
    with Store("sqlite:///nas.db") as store:
        store.create_bench("smile", {})
    code, _, err = say(*command)
    assert code == 3
    assert "no bench 'small'" in err
    assert "did you mean 'smile'?" in err


# -- helpers ----------------------------------------------------------------------------------------------------


def count(query: str, database: str = "nas.db") -> int:
    """The number that a query answers; 0 while there is no such table."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
            return int(connection.execute(query).fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def children(database: Path) -> dict[str, list[Any]]:
    """What each child study holds, without moments and durations."""
    query = """
        SELECT s.name, r.number, r.architecture, r.state, r.budget, r.asked_after, r.told, r.objective
        FROM runs r JOIN studies s ON s.id = r.study WHERE s.measured IS NOT NULL ORDER BY s.name, r.number"""
    found: dict[str, list[Any]] = {}
    with contextlib.closing(sqlite3.connect(database)) as connection:
        for name, *row in connection.execute(query):
            found.setdefault(name, []).append(row)
    return found


def timeless(document: dict[str, Any]) -> dict[str, Any]:
    measured = ("ask_seconds", "tell_seconds")
    standings = [
        {key: value for key, value in standing.items() if key not in measured} for standing in document["strategies"]
    ]
    return {**document, "strategies": standings}


def launch(arguments: list[str]) -> subprocess.Popen[str]:
    """A bench in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "nas_cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def alive(group: int) -> bool:
    """Whether any process of a group still runs."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)
