"""`--hosts`: layers that are searched in several networks, from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Say = Callable[..., tuple[int, str, str]]

SPACE = ("--space", "evonorm", "--data", "digits", "-s", "split.limit=120", "--threads", "1", "--device", "cpu")
SMALL = ("--size", "width=4,depth=1", "-s", "checkpoint_seconds=0")
SEARCH = ("search", "--study", "s", *SPACE, *SMALL, "--hosts", "resnet,vgg", "--strategy", "random", "--epochs", "2")
KNOWN = ("--enqueue", "gn-relu,evonorm-b0", "--trials", "2")


def found(say: Say, *arguments: str) -> dict[str, object]:
    code, out, err = say(*arguments, "--json")
    assert code == 0, err
    document: dict[str, object] = json.loads(out)
    return document


def test_a_search_in_two_hosts(say: Say, folder: Path) -> None:
    """Metrics of one host are objectives and constraints; the study is resumed, shown and verified like any other."""
    code, _, err = say(
        *SEARCH, "--enqueue", "gn-relu,evonorm-b0", "--trials", "1", "--objective", "val_loss.vgg", "--objective",
        "val_loss:min", "--constraint", "val_accuracy.resnet>=0", "--screen", "blind",
    )  # fmt: skip
    assert code == 0, err
    code, _, err = say("resume", "s", "--trials", "2")
    assert code == 0, err
    study = found(say, "show", "s")
    assert study["evaluator"]["kind"] == "hosts"  # type: ignore[index]
    assert study["size"]["host"] == study["final_size"]["host"] == "resnet"  # type: ignore[index]
    for number in range(2):
        metrics: dict[str, float] = found(say, "show", f"s:{number}")["metrics"]  # type: ignore[assignment]
        assert metrics["val_loss"] == pytest.approx((metrics["val_loss.resnet"] + metrics["val_loss.vgg"]) / 2)
    assert say("verify", "s")[0] == 0


def test_brackets_continue_the_trainings_of_all_hosts(say: Say, folder: Path) -> None:
    search = (
        "search",
        "--study",
        "s",
        *SPACE,
        *SMALL,
        "--hosts",
        "vgg,mobilenet",
        "--epochs",
        "2",
        "--strategy",
        "asha",
    )
    code, _, err = say(*search, "-s", "strategy.eta=2", "--trials", "5")
    assert code == 0, err
    trials = json.loads(say("trials", "s", "--json")[1])
    promoted = [trial for trial in trials if trial["continues"] is not None and trial["state"] == "complete"]
    assert promoted
    assert all(trial["metrics"]["val_accuracy.mobilenet"] is not None for trial in promoted)
    assert say("verify", "s")[0] == 0


def test_the_configuration_comes_back(say: Say, folder: Path) -> None:
    code, printed, err = say(*SEARCH, *KNOWN, "--print-config")
    assert code == 0, err
    (folder / "again.yaml").write_text(printed)
    assert say("search", "again.yaml", "--print-config")[1] == printed
    assert "hosts:" in printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--space", "nasbench201", "--hosts", "vgg"), "space 'nasbench201' are no layers; leave it out"),
        (("--space", "evonorm", "--hosts", "resnet,vggg"), "unknown host 'vggg'; did you mean 'vgg'?"),
        (("--space", "evonorm", "--hosts", "gcn"), "host 'gcn' learns node-classification, and the data is image"),
        (("--space", "evonorm", "--data", "karate", "--hosts", "vgg"), "and the data is node-classification; use gcn"),
        (("--space", "evonorm", "--size", "host=rsnet"), "unknown host 'rsnet'; did you mean 'resnet'?"),
        (("--space", "evonorm", "--hosts", "vgg", "--objective", "val_accuracy.resnet"), "unknown metric"),
        (("--space", "evonorm", "--hosts", "vgg", "--evaluator", "told"), "trains none; leave it out"),
    ],
)
def test_what_does_not_fit_is_one_line(say: Say, folder: Path, arguments: tuple[str, ...], says: str) -> None:
    code, _, err = say("search", *arguments)
    assert code == 2
    assert says in err
    assert len(err.strip().splitlines()) <= 2
