"""Candidates of a user's own space that go wrong: what is stored of them, and what the commands say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Say = Callable[..., tuple[int, str, str]]

SPACE = """
from pathlib import Path

from nas_core.choice import Choice
from nas_core.space import SearchSpace
from torch import nn


class Odd(nn.Module):
    def __init__(self, net, kind):
        super().__init__()
        self.net, self.kind = net, kind

    def forward(self, x, *edges):
        y = self.net(x)
        if self.kind == "dict":
            return {"logits": y}
        if self.kind == "auxiliary" and self.training:
            return y, y[:, 1:]
        if self.kind == "forward":
            return self.fails(y)
        return y

    def fails(self, y):
        with open("/no/such/folder/of/weights.bin") as file:
            return file


class Own(SearchSpace):
    name = "own"
    tasks = frozenset({"image-classification", "node-classification"})
    choices = (Choice("kind", KINDS),)

    def build(self, arch, task, size):
        kind = arch.values["kind"]
        if kind == "build" or Path("moody").exists():
            raise KeyError("boom")
        outputs = task.outputs + {"wide": 3, "narrow": -1}.get(kind, 0)
        inputs = 1
        for extent in task.input_shape:
            inputs *= extent
        return Odd(nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs)), kind)


space = Own()
"""


def search(say: Say, *kinds: str, more: tuple[str, ...] = ()) -> tuple[int, str, str]:
    Path("own.py").write_text(SPACE.replace("KINDS", repr(kinds)))
    data = () if "--data" in more else ("-s", "split.limit=100")
    command = ["search", "--study", "s", "--space", "own.py:space", "--strategy", "random", "--epochs", "1"]
    return say(*command, "--trials", str(len(kinds)), "--threads", "1", *data, *more)


def reasons(say: Say) -> dict[str, str]:
    code, out, _ = say("trials", "s", "--json")
    assert code == 0
    return {trial["architecture"]["kind"]: trial["reason"] for trial in json.loads(out)}


def test_the_shape_of_the_output_is_checked(folder: Path, say: Say) -> None:
    assert search(say, "wide", "narrow", "dict", "auxiliary", "plain")[0] == 0
    need = "64 samples and 10 classes need shape (64, 10)"
    assert reasons(say) == {
        "wide": f"wrong-shape: the network gives shape (64, 13); {need}",
        "narrow": f"wrong-shape: the network gives shape (64, 9); {need}",
        "dict": f"wrong-shape: the network gives a dict; {need}",
        "auxiliary": f"wrong-shape: the auxiliary head gives shape (64, 9); {need}",
        "plain": None,
    }


def test_the_shape_of_the_output_is_checked_on_graphs(folder: Path, say: Say) -> None:
    assert search(say, "wide", "plain", more=("--data", "karate"))[0] == 0
    found = reasons(say)
    assert found["plain"] is None
    assert found["wide"] == ("wrong-shape: the network gives shape (34, 7); 34 nodes and 4 classes need shape (34, 4)")


def test_an_exception_of_the_user_keeps_its_traceback(folder: Path, say: Say) -> None:
    code, out, err = search(say, "build", "forward")
    assert code == 1
    assert "2 failed: " in err
    assert "exception: KeyError: 'boom' (nas show s:" in err
    assert "nas trials s" in out
    code, out, _ = say("show", "s", "--json")
    pages = {}
    for number in (0, 1):
        code, out, _ = say("show", f"s:{number}")
        assert code == 0
        document = json.loads(say("show", f"s:{number}", "--json")[1])
        assert all(line.strip() in out for line in document["traceback"].splitlines())
        pages[document["architecture"]["kind"]] = document["traceback"]
    assert pages["build"].splitlines()[-1] == "KeyError: 'boom'"
    assert pages["build"].splitlines()[1].startswith('  File "own.py", line ')
    assert [line.split(", in ")[1] for line in pages["forward"].splitlines() if ", in " in line] == ["forward", "fails"]
    stored = (folder / "nas.db").read_bytes()
    assert str(folder).encode() not in stored.replace(f"sqlite:///{folder}".encode(), b"")
    assert b"/no/such/folder" not in stored
    code, _, err = say("best", "s")
    assert code == 3
    assert "2 failed: " in err
    assert "KeyError: 'boom'" in err


def test_what_some_candidates_failed_of_is_said_beside_the_best(folder: Path, say: Say) -> None:
    code, out, _ = search(say, "build", "plain", "wide")
    assert code == 0
    assert "2 failed: " in out
    assert "best: s:" in out
    document = json.loads(search(say, "build", "plain", "wide", more=("--json",))[1])
    assert {cause["count"] for cause in document["failures"]} == {1}


def test_a_training_that_fails_keeps_its_traceback(folder: Path, say: Say) -> None:
    search(say, "plain")
    Path("moody").touch()
    code, _, err = say("train", "s:0", "--recipe", "quick")
    assert (code, "exception: KeyError: 'boom'" in err) == (1, True)
    Path("moody").unlink()
    code, out, _ = say("show", "s:0")
    assert code == 0
    assert "s:0/train-1: exception: KeyError: 'boom'\n" in out
    assert '  File "own.py", line ' in out


def test_an_error_in_a_space_of_one_s_own_is_no_defect_of_ours(folder: Path, say: Say) -> None:
    own = SPACE.replace("KINDS", "('plain',)").replace(
        "    def build(", "    def allowed(self, choice, prefix):\n        return {}[choice.name]\n\n    def build("
    )
    Path("own.py").write_text(own)
    code, out, err = say("search", "--space", "own.py:space", "--trials", "1")
    assert (code, out) == (1, "")
    assert err.startswith("nas: own.py, line ")
    assert "in allowed: KeyError: 'kind'\nThis is your own code" in err


def test_scores_of_a_network_with_too_many_outputs(folder: Path, say: Say) -> None:
    Path("own.py").write_text(SPACE.replace("KINDS", "('wide', 'plain')"))
    code, _, err = say("score", "--space", "own.py:space", "--proxies", "grad_norm", "--sample", "2")
    assert code == 1
    assert "cannot score {'kind': 'wide'}: wrong-shape: the network gives shape (64, 13)" in err


@pytest.mark.slow
def test_a_candidate_that_ends_its_process_fails_in_one_of_its_own(folder: Path, say: Say) -> None:
    import subprocess
    import sys

    own = SPACE.replace('raise KeyError("boom")', "__import__('os')._exit(7)").replace("KINDS", "('build', 'plain')")
    Path("own.py").write_text(own)
    command = ["search", "--study", "s", "--space", "own.py:space", "--strategy", "random", "--epochs", "1", "-s",
               "split.limit=100", "--trials", "2", "--threads", "1"]  # fmt: skip
    died = subprocess.run([sys.executable, "-m", "nas_cli", *command], capture_output=True, text=True, timeout=120)
    assert died.returncode == 7
    code, _, err = say("resume", "s")
    assert code == 0
    assert "a process of their own" in err
    found = reasons(say)
    assert found["plain"] is None
    assert found["build"].startswith("worker-died: 3 processes ended in this candidate")
    assert found["build"].endswith("the last with exit code 7")
