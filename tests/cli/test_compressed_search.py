"""`nas search --compress`: candidates are judged by what a method has left of them; stopped and resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Say = Callable[..., tuple[int, str, str]]

SPACE = """
from nas_core.choice import Choice
from nas_core.space import SearchSpace


class Widths(SearchSpace):
    name = "widths"
    tasks = frozenset({"image-classification"})
    choices = (Choice("width", (8, 12, 16)),)

    def build(self, arch, task, size):
        from torch import nn

        width = arch.values["width"]
        return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, task.outputs))
"""
SEARCH = (
    "search", "--study", "s", "--space", "widths.py:Widths", "--strategy", "random", "--epochs", "1", "--device", "cpu",
    "-s", "split.limit=200", "--threads", "1", "--compress", "svd", "--compress-to", "macs<=0.5x",
    "--constraint", "macs<=500", "-s", "evaluator.compress_settings.classifier=true",
)  # fmt: skip


@pytest.fixture
def files(folder: Path) -> Path:
    (folder / "widths.py").write_text(SPACE)
    return folder


@pytest.mark.slow  # its fast siblings are in tests/compressors/test_evaluator.py
def test_a_search_over_what_is_left(say: Say, files: Path) -> None:
    code, _, err = say(*SEARCH, "--trials", "1")
    assert code == 0, err
    code, _, err = say("resume", "s", "--trials", "2")
    assert code == 0, err
    study = json.loads(say("show", "s", "--json")[1])
    asked = study["evaluator"]
    assert (asked["kind"], asked["compress"], asked["compress_to"]) == ("compressed", "svd", ["macs<=0.5x"])
    trials = [json.loads(say("show", f"s:{number}", "--json")[1]) for number in range(2)]
    for trial in trials:
        metrics = trial["metrics"]
        assert metrics["base_macs"] in {74 * width for width in (8, 12, 16)}
        assert 0 < metrics["macs"] <= metrics["base_macs"] / 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--compress", "magnitud", "-s", "evaluator.compress_settings={}"), "did you mean 'magnitude'"),
        (("--compress-to", "mac<=0.5x"), "did you mean 'macs'"),
        (("-s", "evaluator.compress_settings.clasifier=true"), "did you mean 'classifier'"),
    ],
)
def test_what_cannot_be_is_one_line(say: Say, files: Path, options: tuple[str, ...], says: str) -> None:
    code, _, err = say(*SEARCH, "--trials", "2", *options)
    assert (code, says in err) == (2, True), err
    assert err.count("\n") == 1
