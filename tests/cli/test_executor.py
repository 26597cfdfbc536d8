"""`--executor`: where candidates are evaluated, which changes nothing of the study."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli import test_bench as table

Say = Callable[..., tuple[int, str, str]]
SEARCH = ["--size", "channels=2,cells=1", "--epochs", "1", "-s", "split.limit=200", "--threads", "1", "--lag", "2"]


def trials(say: Say, study: str) -> list[object]:
    found = json.loads(say("trials", study, "--json")[1])
    return [(one["architecture"], one["metrics"], one["state"]) for one in found]


@pytest.mark.usefixtures("forked_workers")
def test_a_study_may_move_while_it_is_searched(folder: Path, say: Say) -> None:
    code, _, err = say("search", "--study", "a", *SEARCH, "--trials", "2", "--executor", "inline")
    assert code == 0, err
    code, _, err = say("resume", "a", "--trials", "4", "--executor", "processes")
    assert code == 0, err
    assert say("search", "--study", "b", *SEARCH, "--trials", "4")[0] == 0
    assert trials(say, "a") == trials(say, "b")
    assert say("search", "--study", "a", *SEARCH, "--trials", "4", "--executor", "inline")[0] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--executor", "proceses"], "unknown executor 'proceses'; did you mean 'processes'?"),
        (["--executor", "inline", "--workers", "2"], "--executor inline evaluates one at a time"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_stored(
    folder: Path, say: Say, options: list[str], said: str
) -> None:
    for command in (["search", "--study", "a"], ["resume", "a"], ["train", "a"], ["compress", "a", "--method", "svd"]):
        code, _, err = say(*command, *options)
        assert (code, said in err) == (2, True), err
    assert not (folder / "nas.db").exists()


@pytest.mark.parametrize("executor", ["queue", "queue:30", "inline"])
def test_a_bench_has_no_queue_and_says_so_before_anything_is_stored(folder: Path, say: Say, executor: str) -> None:
    table.write(folder)
    code, _, err = say(*table.COMMAND, "--executor", executor)
    name = executor.partition(":")[0]
    assert code == 2
    assert f"--executor {name}: that works for one study, and a bench searches in many; use processes or ray" in err
    assert not (folder / "nas.db").exists()
    assert say("bench", "resume", "small", "--executor", executor)[0] == 2
