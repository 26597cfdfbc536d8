"""One-shot searches through the command line: supernets, what is derived, searches on shared weights, mistakes."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from studies.executors.queue_worker import QueueWorker, local
from studies.store.store import Store
from tests.crash.sessions import contents

Say = Callable[..., tuple[int, str, str]]

SMALL = ("--size", "channels=2,cells=1", "-s", "split.limit=200", "--epochs", "1", "--threads", "1")
SPOS = ("search", "--strategy", "spos", "-s", "strategy.epochs=2", *SMALL)
NOTHING = """
from nas_core.errors import InfeasibleError
from strategies.one_shot.darts import Darts


class Nothing(Darts):
    def result(self):
        raise InfeasibleError("nothing fits")
"""
DARTS = ("search", "--strategy", "darts", "-s", "strategy.epochs=2", *SMALL)


def test_darts_derives_a_trial_that_is_trained_and_verified(say: Say) -> None:
    code, out, err = say(*DARTS, "--study", "d", "--json")
    assert code == 0, err
    document = json.loads(out)
    assert (document["ending"], document["trials"], document["best"]["number"]) == ("derived", {"complete": 1}, 0)
    with sqlite3.connect("nas.db") as connection:
        epochs = connection.execute("SELECT epoch, metrics, strengths FROM epochs").fetchall()
        assert [epoch for epoch, _, _ in epochs] == [1, 2]
        assert {"train_loss", "alpha_loss", "parameter_free", "skips"} <= json.loads(epochs[0][1]).keys()
        scores = json.loads(epochs[1][2])
        assert len(scores) == 6
        assert all(abs(sum(weights) - 1) < 1e-5 for weights in scores.values())
        (result,) = connection.execute("SELECT derived FROM runs WHERE kind = 'supernet'").fetchone()
        (trained,) = connection.execute("SELECT architecture FROM runs WHERE kind = 'trial'").fetchone()
        assert json.loads(result) == [trained]
    assert say("verify", "d")[0] == 0
    # The same command again, and a resume, find everything done.
    assert json.loads(say(*DARTS, "--study", "d", "--json")[1]) == document
    assert json.loads(say("resume", "d", "--json")[1]) == document
    weights = Path("nas-files/d/supernet/weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    code, _, err = say("verify", "d")
    assert code == 7
    assert "SHA-256" in err


def test_what_was_learned_on_validation_nodes_is_said(say: Say) -> None:
    """A graph has too few training nodes to be halved: see "Data of the search" in docs/one-shot.md."""
    graph = ("--space", "nasbench_graph", "--data", "karate", "--size", "hidden=4", "--epochs", "1", "--threads", "1")
    code, out, err = say("search", "--strategy", "darts", "-s", "strategy.epochs=1", *graph, "--study", "bilevel")
    assert code == 0, err
    assert "learned on the validation nodes" in out
    assert "learned on the validation nodes" in say("best", "bilevel")[1]
    assert "architecture learned on  validation nodes" in say("show", "bilevel")[1]
    single = ("-s", "strategy.epochs=1", "-s", "strategy.bilevel=false")
    code, out, err = say("search", "--strategy", "darts", *single, *graph, "--study", "single")
    assert code == 0, err
    assert "validation nodes" not in out + say("best", "single")[1] + say("show", "single")[1]
    assert "half of the training part" in said_of_images(say)


def test_settings_that_came_later_do_not_make_another_study(say: Say) -> None:
    """A study stored before strategies and recipes had all of their settings, and the command that made it."""
    code, _, err = say(*DARTS, "--study", "d")
    assert code == 0, err
    with sqlite3.connect("nas.db") as connection:
        stored = connection.execute("SELECT strategy_config, evaluator, supernet FROM studies").fetchone()
        config, evaluator, supernet = (json.loads(text) for text in stored)
        del (
            config["schedule"],
            config["label_smoothing"],
            evaluator["recipe"]["augment"]["cutout"],
            supernet["learns_on"],
        )
        texts = [json.dumps(settings) for settings in (config, evaluator, supernet)]
        connection.execute("UPDATE studies SET strategy_config = ?, evaluator = ?, supernet = ?", texts)
    assert say(*DARTS, "--study", "d")[0] == 0
    code, _, err = say(*DARTS, "--study", "d", "-s", "strategy.schedule=linear")
    assert code == 2
    assert "exists with another configuration (strategy_config" in err


def said_of_images(say: Say) -> str:
    assert say(*DARTS, "--study", "images")[0] == 0
    assert "validation nodes" not in say("best", "images")[1]
    return say("show", "images")[1]


def test_spos_and_a_search_on_its_shared_weights(say: Say) -> None:
    then = ("--then", "regularized-evolution", "--trials", "4", "-s", "then.population=2", "-s", "then.sample=1")
    code, out, err = say(*SPOS, "--study", "s", *then, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert (document["study"], document["ending"]) == ("s-regularized-evolution", "trials")
    assert "supernet_accuracy" in document["best"]["metrics"]
    assert "val_accuracy" not in document["best"]["metrics"]
    assert say("verify", document["study"])[0] == 0
    assert json.loads(say(*SPOS, "--study", "s", *then, "--json")[1]) == document
    code, out, err = say("search", "--evaluator", "supernet:s", *SMALL[:2], "--strategy", "random", "-n", "2")
    assert code == 0, err
    assert "nas extract nasbench201-digits-1:" in out
    code, out, err = say(
        "train", document["study"], "--recipe", "quick", "--epochs", "1", "--size", "channels=2,cells=1", "--json"
    )
    assert code == 0, err
    assert "val_accuracy" in json.loads(out)["metrics"]


def test_the_networks_of_all_rounds_are_derived(say: Say) -> None:
    """A front of sizes: the largest first."""
    graph = ("--data", "karate", "--epochs", "1", "--threads", "1")
    size = ("--size", "node=4,relation=3,node_output=4")
    rounds = ("-s", "strategy.rounds=2", "-s", "strategy.epochs=3")
    command = ("search", "--space", "argnp(vertices=4)", "--strategy", "argnp", *rounds, *size, *graph, "--study", "p")
    code, out, err = say(*command, "--json")
    assert code == 0, err
    assert json.loads(out)["trials"] == {"complete": 2}
    with sqlite3.connect("nas.db") as connection:
        join = "runs JOIN architectures ON architectures.key = architecture WHERE kind = 'trial' ORDER BY number"
        found = connection.execute(f"SELECT json FROM {join}").fetchall()
        epochs = connection.execute("SELECT metrics, strengths FROM epochs ORDER BY epoch").fetchall()
    assert [json.loads(arch)["values"]["vertices"] for (arch,) in found] == [4, 2]
    assert [json.loads(metrics)["round"] for metrics, _ in epochs] == [1, 2, 2]
    assert [len(json.loads(strengths)) for _, strengths in epochs] == [10, 12, 12]
    assert say("verify", "p")[0] == 0
    code, out, err = say("show", "p")
    assert code == 0, err
    assert "relation/edge.4-5" in out
    code, out, err = say("search", "--evaluator", "supernet:p", "--space", "argnp(vertices=4)", *size, "-n", "2")
    assert code == 2
    assert "are of 'argnp-4-round2', on which the last round of its search was" in err
    assert len(err.splitlines()) == 1
    for space, said in (
        ("argnp(vertices=3)", "2 rounds are too many for space 'argnp-3', which has room for 1"),
        ("nasbench_graph", "space 'nasbench_graph' does not say how"),
    ):
        code, _, err = say("search", "--space", space, "--strategy", "argnp", *rounds, *graph, "--study", "q")
        assert code == 2
        assert said in err
        assert len(err.splitlines()) == 1


def test_the_guard_wraps_a_strategy(say: Say) -> None:
    code, _, err = say(*DARTS, "--guard", "hessian", "--study", "g")
    assert code == 0, err
    with sqlite3.connect("nas.db") as connection:
        for (metrics,) in connection.execute("SELECT metrics FROM epochs"):
            assert "alpha_eigenvalue" in json.loads(metrics)


@contextmanager
def worker(db: str, files: str, study: str) -> Iterator[None]:
    """One is there for what a study wants."""
    ended = threading.Event()

    def work() -> None:
        with Store(f"sqlite:///{db}", Path(files)) as store:
            while study not in store.study_names() and not ended.is_set():
                time.sleep(0.02)
            found = store.study(study)
            QueueWorker(store, found, local(store, found), idle=60, stopping=ended.is_set).run()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.filterwarnings("ignore:study '.' waits for workers")
def test_a_supernet_is_the_same_wherever_it_is_trained(folder: Path, say: Say) -> None:
    search = (*DARTS, "--study", "d")
    assert say(*search, "--db", "here.db", "--files", "here")[0] == 0
    expected = contents(folder / "here.db", durations=False)
    away = ("--db", "processes.db", "--files", "processes", "--executor", "processes")
    code, _, err = say(*search, *away)
    assert code == 0, err
    assert contents(folder / "processes.db", durations=False) == expected
    with worker("queue.db", "queue", "d"):
        code, _, err = say(*search, "--db", "queue.db", "--files", "queue", "--executor", "queue")
    assert code == 0, err
    found = contents(folder / "queue.db", durations=False)
    queues = {"queues": None, "attempts": None, "messages": None}
    assert {**found, **queues} == {**expected, **queues}
    assert found["attempts"] == found["messages"] == []
    for files in ("here", "processes", "queue"):
        left = {path.relative_to(files).as_posix() for path in Path(files).rglob("*") if path.is_file()}
        assert left - {"d/queue", "d/lock"} == {"d/supernet/weights.safetensors"}


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.filterwarnings("ignore:study '.' waits for workers")
@pytest.mark.parametrize("executor", ["inline", "processes", "queue"])
def test_a_supernet_of_which_nothing_fits_is_said(folder: Path, say: Say, executor: str) -> None:
    (folder / "nothing.py").write_text(NOTHING)
    search = ("search", "--strategy", "nothing.py:Nothing", "-s", "strategy.epochs=1", *SMALL, "--study", "d")
    with worker("nas.db", "nas-files", "d") if executor == "queue" else nullcontext():
        code, _, err = say(*search, "--executor", executor)
    assert code == 4, err
    assert "nas: nothing fits\n" in err
    assert "nothing fits" in say("show", "d/supernet")[1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((*DARTS, "--space", "regnet", "--size", "search"), 2, "space 'regnet' is not relaxable: "),
        ((*DARTS, "--trials", "3"), 2, "leave out --trials"),
        ((*DARTS, "-s", "strategy.epoch=3"), 2, "did you mean 'epochs'"),
        ((*DARTS, "--guard", "sharpness"), 2, "guard"),
        ((*DARTS, "--search-on", "digit"), 2, "did you mean 'digits'"),
        ((*SPOS, "--guard", "hessian"), 2, "darts"),
        (("search", "--strategy", "random", "--then", "random"), 2, "trains no supernet"),
        (("search", "--evaluator", "supernet:s"), 3, "there is no database"),
        (("search", "--evaluator", "supernet"), 2, "write supernet:STUDY"),
    ],
)
def test_mistakes_end_in_a_line(say: Say, arguments: tuple[str, ...], code: int, message: str) -> None:
    found, out, err = say(*arguments)
    assert (found, out) == (code, "")
    assert message in err
    assert len(err.strip().splitlines()) <= 2


def test_a_supernet_of_something_else_is_refused(say: Say) -> None:
    assert say(*SPOS, "--study", "s")[0] == 0
    assert say("search", "--strategy", "random", *SMALL, "-n", "1", "--study", "r")[0] == 0
    for arguments, message in {
        ("--evaluator", "supernet:s", "--size", "channels=4,cells=1"): "search with --size channels=2,cells=1",
        ("--evaluator", "supernet:s", "--space", "nasnet"): "search with --space nasbench201",
        ("--evaluator", "supernet:r"): "study 'r' has no supernet",
        ("--evaluator", "supernet:q"): "no study 'q'",
    }.items():
        code, _, err = say("search", *arguments)
        assert code == (3 if arguments[1].endswith("q") else 2)
        assert message in err
