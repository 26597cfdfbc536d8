"""A search whose trainings begin with the weights of the best one, as its user sees it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.studies.test_transfer import SPACE, STRATEGY

Say = Callable[..., tuple[int, str, str]]
SEARCH = ["search", "--study", "a", "--strategy", "heirs.py:Heirs", "--trials", "4", "--seed", "5", "--threads", "1"]


def test_trials_say_whose_weights_they_begin_with(folder: Path, say: Say) -> None:
    (folder / "acts.py").write_text(SPACE)
    (folder / "heirs.py").write_text(STRATEGY)
    code, _, err = say(*SEARCH, "--space", "acts.py:space", "-s", "split.limit=100", "--epochs", "1")
    assert code == 0, err
    found = json.loads(say("trials", "a", "--json")[1])
    assert [one["transfer"] for one in found][:2] == [None, 0]
    table = [line.split() for line in say("trials", "a")[1].splitlines()]
    assert "begins with" in say("trials", "a")[1].splitlines()[0]
    assert "a:0" in table[2][1:]
    code, out, err = say("show", "a:1")
    assert code == 0, err
    assert ["begins", "with", "a:0"] in [line.split() for line in out.splitlines()]
    assert "transferred" in out


def test_what_trains_no_network_begins_with_no_weights(folder: Path, say: Say) -> None:
    (folder / "acts.py").write_text(SPACE)
    (folder / "heirs.py").write_text(STRATEGY)
    features = f"{Path(__file__).parents[2] / 'examples' / 'my_evaluator.py'}:RandomFeatures"
    code, _, err = say(*SEARCH, "--space", "acts.py:space", "--evaluator", features)
    assert code == 2
    assert "begins trainings with the weights of other trials, which evaluator" in err
