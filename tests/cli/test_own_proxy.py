"""A zero-cost proxy in a user's file: its content counts, in what is stored and in studies; its mistakes are said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Say = Callable[..., tuple[int, str, str]]
EXAMPLE = Path(__file__).parents[2] / "examples" / "my_proxy.py"
SMALL = ["--size", "channels=2,cells=1"]
SCORE = ["score", *SMALL, "--proxies", "my_proxy.py:Spread", "--sample", "3", "--json"]


@pytest.fixture
def own(folder: Path) -> Path:
    (folder / "my_proxy.py").write_text(EXAMPLE.read_text())
    return folder


def change(folder: Path, before: str, after: str) -> None:
    text = (folder / "my_proxy.py").read_text()
    assert before in text
    (folder / "my_proxy.py").write_text(text.replace(before, after))


def scores(out: str) -> list[float]:
    return [one["scores"]["my_proxy.py:Spread"] for one in json.loads(out)["architectures"]]


def test_a_changed_file_is_scored_anew(own: Path, say: Say) -> None:
    code, first, err = say(*SCORE)
    assert code == 0, err
    assert scores(say(*SCORE)[1]) == scores(first)
    change(own, '{"spread": float(', '{"spread": 100 * float(')
    code, second, err = say(*SCORE)
    assert code == 0, err
    assert sorted(scores(second)) == pytest.approx([100 * value for value in sorted(scores(first))])


def test_a_study_goes_on_with_the_same_file_alone(own: Path, say: Say) -> None:
    search = ["search", *SMALL, "--study", "s", "--epochs", "1", "--threads", "1", "-s", "split.limit=120"]
    guided = ["--strategy", "proxy-filter", "-s", "strategy.inner=random", "-s", "strategy.candidates=2"]
    code, _, err = say(*search, *guided, "-s", "strategy.predictor=my_proxy.py:Spread", "--trials", "1")
    assert code == 0, err
    assert say("resume", "s", "--trials", "2")[0] == 0
    change(own, '{"spread": float(', '{"spread": 100 * float(')
    code, _, err = say("resume", "s", "--trials", "3")
    assert (code, "the file of 'my_proxy.py' has changed since the study was made" in err) == (2, True), err
    assert say("show", "s")[0] == 0


def test_other_components_than_it_says_are_its_mistake(own: Path, say: Say) -> None:
    change(own, '{"spread": float(', '{"spred": float(')
    code, _, err = say(*SCORE)
    assert (code, "gives ['spred'], but its components are ['spread']" in err) == (1, True), err
