"""GraphGym by command: with an operator of one's own, on one graph and on many, to a deployed network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

Say = Callable[..., tuple[int, str, str]]
OPERATOR = Path(__file__).resolve().parents[2] / "examples" / "my_operator.py"
SHORT = ("--epochs", "1", "--threads", "1")


def test_an_operator_of_ones_own_is_searched(folder: Path, say: Say) -> None:
    shutil.copy(OPERATOR, folder / "my_operator.py")
    space = "graphgym(operators=('general', 'gcn', 'my_operator.py:Contrast(hops=2)'), training=False)"
    words = ("--data", "karate", "--space", space, "--size", "hidden=4", "--enqueue", "gcn", "--trials", "4")
    code, out, err = say("search", "--study", "own", *words, *SHORT)
    assert code == 0, err
    code, out, err = say("trials", "own", "--json")
    assert code == 0, err
    assert {trial["state"] for trial in json.loads(out)} == {"complete"}


def test_many_graphs_to_a_program(folder: Path, say: Say) -> None:
    data = "random-graphs?target=degrees&graphs=30"
    words = ("--data", data, "--space", "graphgym", "--size", "target_params=1000", "--trials", "1")
    code, out, err = say("search", "--study", "many", *words, *SHORT)
    assert code == 0, err
    code, out, err = say("show", "many:0", "--json")
    assert code == 0, err
    assert json.loads(out)["metrics"]["params"] >= 1000
    code, out, err = say("train", "many:0", "--epochs", "1")
    assert code == 0, err
    code, out, err = say("export", "many:0", "--format", "pt2,python,safetensors,json")
    assert code == 0, err


def test_a_number_of_parameters_that_no_network_has(folder: Path, say: Say) -> None:
    words = ("--data", "karate", "--space", "graphgym", "--size", "target_params=3", "--trials", "1")
    code, _, err = say("search", "--study", "few", *words, *SHORT)
    assert code == 2, err
    assert "target_params 3 is below" in err
    code, _, err = say("search", "--study", "few", "--space", "graphgym(operators=('gcnn',))", *words[:2], *SHORT)
    assert code == 2
    assert "unknown graph operator 'gcnn'; did you mean 'gcn'" in err
