"""An evaluator of the user's own in a file: searched with, resumed, and refused once the file has changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Say = Callable[..., tuple[int, str, str]]

FILE = '''
from nas_core.config import Config
from nas_core.errors import TrialError
from nas_core.evaluation import Metric, Report
from nas_core.task import Task


class Count:
    """How often an operation is chosen, less a price for convolutions."""

    class Settings(Config):
        operation: str = "skip_connect"
        price: float = 0.5
        data: str = "made"

    metrics = (Metric("score"), Metric("convolutions", "min", cost=True))
    fidelity = None
    deterministic = True
    in_process = True
    task = Task(kind="image-classification", input_shape=(1, 8, 8), outputs=10)

    @classmethod
    def open(cls, settings, problem):
        return cls(settings), f"{settings.data}"

    def __init__(self, settings):
        self.settings = settings

    def identity(self, arch):
        return None

    def costs(self, arch, names):
        found = sum("conv" in str(value) for value in arch.values.values())
        return {"convolutions": float(found)} if "convolutions" in names else {}

    def evaluate(self, proposal, budget, context):
        values = list(proposal.arch.values.values())
        if "none" in values:
            raise TrialError("empty", "an edge is empty")
        costs = self.costs(proposal.arch, ["convolutions"])
        yield Report(1, {"score": values.count(self.settings.operation) - self.settings.price * costs["convolutions"],
                         **costs})
'''
SEARCH = ("search", "--space", "nasbench201", "--evaluator", "mine.py:Count", "--seed", "3", "--strategy", "random")


@pytest.fixture
def mine(folder: Path) -> Path:
    path = folder / "mine.py"
    path.write_text(FILE)
    return path


def test_a_search_is_resumed_until_the_file_changes(say: Say, mine: Path) -> None:
    code, _, err = say(*SEARCH, "--study", "own", "--trials", "3", "-s", "evaluator.price=0.25")
    assert code == 0, err
    assert say(*SEARCH, "--study", "whole", "--trials", "6", "-s", "evaluator.price=0.25")[0] == 0
    assert say("resume", "own", "--trials", "6")[0] == 0

    def trials(name: str) -> list[tuple[object, ...]]:
        found = json.loads(say("trials", name, "--json")[1])
        return [(one["architecture"], one["metrics"], one["state"], one["reason"]) for one in found]

    assert trials("own") == trials("whole")
    assert {state for _, _, state, _ in trials("own")} == {"complete", "failed"}
    shown = say("show", "own")[1]
    assert "mine.py:Count" in shown
    assert "price=0.25" in shown
    assert [one["evaluator"] for one in json.loads(say("ls", "--json")[1])] == ["mine.py:Count"] * 2
    assert say("verify", "own")[0] == 0

    code, _, err = say(*SEARCH, "--study", "own", "--trials", "6", "-s", "evaluator.price=0.75")
    assert (code, "exists with another configuration (evaluator" in err) == (2, True)
    mine.write_text(FILE.replace('"an edge is empty"', '"no edge"'))
    code, _, err = say("resume", "own", "--trials", "8")
    assert (code, "the file of evaluator 'mine.py:Count' has changed since the study was made" in err) == (2, True)
    mine.unlink()
    assert say("show", "own")[0] == 0
    assert say("ls")[0] == 0
    assert say("resume", "own", "--trials", "8")[0] == 3


def test_its_costs_are_limits_and_its_metrics_objectives(say: Say, mine: Path) -> None:
    code, out, err = say(
        *SEARCH, "--trials", "5", "--objective", "score:min", "--constraint", "convolutions<=3", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["best"]["metrics"]["convolutions"] <= 3


def test_in_worker_processes(say: Say, mine: Path) -> None:
    code, _, err = say(*SEARCH, "--study", "two", "--trials", "2", "--workers", "2", "--lag", "2")
    assert code == 0, err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-s", "evaluator.prize=1"), "unknown key 'prize'; did you mean 'price'?"),
        (("-s", "evaluator.price=much"), "price"),
        (("--epochs", "3"), "unknown key 'epochs'"),
        (("--evaluator", "mine.py:Nothing"), "no object 'Nothing'"),
        (("--evaluator", "none.py:Count"), "there is no file 'none.py'"),
        (("--evaluator", "mine.py:Report"), "has no class Settings"),
        (("--evaluator", "trian"), "did you mean 'train'"),
    ],
)
def test_bad_input(say: Say, mine: Path, arguments: tuple[str, ...], words: str) -> None:
    code, _, err = say(*SEARCH, *arguments)
    assert code in (2, 3)
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (
            'cls(settings), f"{settings.data}"',
            "cls(settings)",
            "open returned a Count; wanted the evaluator",
        ),
        ('cls(settings), f"{settings.data}"', "1 / 0", "open: ZeroDivisionError"),
        ("    task = Task", "    other = Task", "without task"),
        ("    def open(", "    def opened(", "has no open(settings, problem)"),
    ],
)
def test_bad_classes(say: Say, mine: Path, before: str, after: str, words: str) -> None:
    assert before in FILE
    mine.write_text(FILE.replace(before, after))
    code, _, err = say(*SEARCH)
    assert code == 2
    assert words in err
    assert len(err.strip().splitlines()) <= 2
