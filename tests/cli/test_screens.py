"""`--screen`: candidates that are turned down, in progress, pages and documents, and what a study holds of a screen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nas_cli import live

Say = Callable[..., tuple[int, str, str]]

SPACE = """
import math

from nas_core.choice import Choice
from nas_core.space import SearchSpace


class Widths(SearchSpace):
    name = "widths"
    tasks = frozenset({"image-classification"})
    choices = tuple(Choice(f"layer{n}", (1, 2, 3, 4)) for n in range(3))

    def unsound(self, arch):
        return "narrow: one unit at the start" if arch.values["layer0"] == 1 else None

    def build(self, arch, task, size):
        from torch import nn

        width, inputs = sum(arch.values.values()), math.prod(task.input_shape)
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, task.outputs))
"""
SCREENS = """
def wide(network, arch):
    return "wide: more than 8" if sum(arch.values.values()) > 8 else None


def slow(epoch, report):
    return f"slow: {report['val_accuracy']:.2f}" if epoch == 1 and report["val_accuracy"] < 0.3 else None
"""
SEARCH = (
    "search", "--study", "s", "--space", "widths.py:Widths", "--strategy", "random", "--trials", "6", "--epochs", "2",
    "--recipe", "quick", "-s", "split.limit=200", "-s", "recipe.batch_size=16", "--device", "cpu", "--threads", "1",
)  # fmt: skip
SCREENED = (*SEARCH, "--screen", "finite", "--screen", "mine.py:wide", "--screen", "mine.py:slow")


@pytest.fixture
def files(folder: Path) -> Path:
    (folder / "widths.py").write_text(SPACE)
    (folder / "mine.py").write_text(SCREENS)
    return folder


def test_a_screened_search(say: Say, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PLAIN_SECONDS", 0.0)
    code, _, err = say(*SCREENED)
    assert code == 0, err
    last = err.strip().splitlines()[-1]
    assert last.startswith("s: 6/6 trials | ")
    document = json.loads(say("show", "s", "--json")[1])
    by_reason = {one["reason"]: one for one in document["rejections"]}
    assert set(by_reason) == {"narrow", "wide", "slow"}
    assert sum(one["count"] for one in by_reason.values()) == document["states"]["rejected"]
    total = sum(document["states"].values())
    assert [one["share"] for one in by_reason.values()] == [one["count"] / total for one in by_reason.values()]
    assert by_reason["narrow"]["seconds"] == 0
    assert by_reason["slow"]["seconds"] > 0
    counts = ", ".join(f"{one['reason']} {one['count']}" for one in document["rejections"])
    assert f"rejected {document['states']['rejected']}: " in last
    for part in counts.split(", "):
        assert part in last
    page = say("show", "s")[1]
    assert "rejected" in page
    assert f"{by_reason['slow']['count']} ({by_reason['slow']['share']:.1%}, " in page
    assert document["evaluator"]["kind"] == "screened"
    assert list(document["evaluator"]["hashes"]) == ["mine.py:wide", "mine.py:slow"]
    assert say("verify", "s")[0] == 0


def test_a_changed_screen_is_refused(say: Say, files: Path) -> None:
    assert say(*SCREENED, "--trials", "1")[0] == 0
    (files / "mine.py").write_text(SCREENS.replace("> 8", "> 9"))
    code, _, err = say("resume", "s", "--trials", "2")
    assert code == 2
    assert "the file of 'mine.py:wide' has changed since the study was made" in err


def test_where_no_candidate_passes(say: Say, files: Path) -> None:
    (files / "mine.py").write_text("def no(network): return 'never: as the user wants'\n")
    code, _, err = say(*SEARCH, "--screen", "mine.py:no", "--time", "20")
    assert code == 4
    assert "was evaluated in full; rejected: never" in err
    assert "loosen 'never' in a new study" in err


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("--screen", "mine.py:nothing"), "mine.py"),
        (("--screen", "finit"), "did you mean 'finite'?"),
        (("--screen", "blind", "--screen", "blind"), "screen 'blind' is given twice"),
        (("--screen", "blind", "--objective", "params:min"), "params:min needs no training; leave it out"),
    ],
)
def test_bad_input(say: Say, files: Path, arguments: tuple[str, ...], wanted: str) -> None:
    code, _, err = say(*SEARCH, *arguments)
    assert code in (2, 3)
    assert wanted in err
    assert "Traceback" not in err
    assert not (files / "nas.db").exists()


def test_a_table_trains_nothing_to_look_at(say: Say, files: Path) -> None:
    rows = ["layer0,layer1,layer2,valid"] + [f"{a},{b},{c},{a + b + c}" for a in (1, 2) for b in (1, 2) for c in (1, 2)]
    (files / "t.csv").write_text("\n".join(rows) + "\n")
    (files / "t.yaml").write_text(
        "files: [t.csv]\nspace: widths\nmatch: architecture\n"
        "row: {choices: {layer0: layer0, layer1: layer1, layer2: layer2}}\ndata:\n  made:\n"
        "    task: {kind: image-classification, input_shape: [1, 8, 8], outputs: 10}\n"
        "    metrics: {val_accuracy: {column: valid}}\n"
    )
    code, _, err = say(
        "search", "--space", "widths.py:Widths", "--table", "t.csv", "--data", "made", "--screen", "blind"
    )
    assert code == 2
    assert "--screen blind looks at networks that are trained, and evaluator 'table' trains none" in err


def test_screens_that_train(say: Say, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With their settings, from the command line and the environment; what is stored is what was asked for."""
    monkeypatch.setenv("NAS_SCREENS", "finite,quality(steps=2,bar=0.1),stability(steps=1, bar=1e3)")
    code, _, err = say(*SEARCH, "--trials", "2")
    assert code == 0, err
    wanted = ["finite", "quality(steps=2,bar=0.1)", "stability(steps=1, bar=1e3)"]
    assert json.loads(say("show", "s", "--json")[1])["evaluator"]["screens"] == wanted
    monkeypatch.delenv("NAS_SCREENS")
    code, _, err = say(*SEARCH, "--study", "low", "--time", "60", "--screen", "quality(steps=2, bar=10)")
    assert code == 4
    assert "rejected: quality" in err
    assert "loosen 'quality' in a new study" in err
    monkeypatch.setenv("NAS_SCREENS", "quality(steps=2")
    code, _, err = say(*SEARCH, "--study", "odd")
    assert (code, "screen 'quality(steps=2' is malformed" in err) == (2, True)
    code, _, err = say(*SEARCH, "--study", "odd", "--screen", "quality(steps=9999)")
    assert (code, "9999 steps are more than" in err) == (2, True)
    assert "Traceback" not in err
