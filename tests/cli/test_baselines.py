"""`--baselines` and `--enqueue`: known architectures beside a search, or at its beginning."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Say = Callable[..., tuple[int, str, str]]

SPACE = """
import math

from nas_core.architecture import Architecture
from nas_core.choice import Choice
from nas_core.space import SearchSpace


class Widths(SearchSpace):
    name = "widths"
    tasks = frozenset({"image-classification"})
    choices = tuple(Choice(f"layer{n}", (4, 8, 16)) for n in range(2))
    named = {
        "small": Architecture("widths", {"layer0": 4, "layer1": 4}),
        "large": Architecture("widths", {"layer0": 16, "layer1": 16}),
    }

    def build(self, arch, task, size):
        from torch import nn

        widths = [math.prod(task.input_shape), *arch.values.values()]
        layers = [nn.Sequential(nn.Linear(one, two), nn.ReLU()) for one, two in zip(widths, widths[1:])]
        return nn.Sequential(nn.Flatten(), *layers, nn.Linear(widths[-1], task.outputs))
"""
SEARCH = (
    "search", "--study", "s", "--space", "widths.py:Widths", "--strategy", "random", "--trials", "3", "--epochs", "2",
    "--recipe", "quick", "-s", "split.limit=200", "-s", "recipe.batch_size=16", "--device", "cpu", "--threads", "1",
)  # fmt: skip


@pytest.fixture
def files(folder: Path) -> Path:
    (folder / "widths.py").write_text(SPACE)
    return folder


def test_baselines_beside_a_search(say: Say, files: Path) -> None:
    code, _, err = say(
        *SEARCH, "--objective", "val_accuracy", "--objective", "params:min", "--baselines", "small,large"
    )
    assert code == 0, err
    assert "s: 2/2 baselines evaluated" in err
    document = json.loads(say("show", "s", "--json")[1])
    assert sum(document["states"].values()) == 3
    small, large = document["baselines"]
    assert (small["name"], small["address"], large["name"]) == ("small", "s/baseline-1", "large")
    accuracy, params = small["compared"]
    best = document["best"]["metrics"]
    assert accuracy["difference"] == best["val_accuracy"] - small["metrics"]["val_accuracy"]
    assert (params["metric"], params["says"], params["interval"]) == (
        "params", "no difference" if best["params"] == small["metrics"]["params"] else "worse", None,
    )  # fmt: skip
    page = say("show", "s")[1]
    assert "best beside baselines" in page
    assert [line.split()[:3] for line in page.splitlines() if line.startswith("s/baseline-")] == [
        ["s/baseline-1", "small", "complete"],
        ["s/baseline-2", "large", "complete"],
    ]
    assert json.loads(say("best", "s", "--json")[1])["baselines"] == document["baselines"]
    assert f"small: params {small['metrics']['params']:,.0f}, best " in say("best", "s")[1]
    assert "s/baseline-2" in say("front", "s")[1]
    point = "val_accuracy=0,params=1e9"
    assert len(json.loads(say("front", "s", "--reference", point, "--json")[1])["baselines"]) == 2
    assert say("verify", "s")[0] == 0


def test_seeds_of_both_make_an_interval(say: Say, files: Path) -> None:
    assert say(*SEARCH, "--baselines", "named")[0] == 0
    for address in ("s", "s/baseline-1", "s/baseline-2"):
        code, out, err = say("train", address, "--recipe", "quick", "--epochs", "1", "--seeds", "2", "--json")
        assert code == 0, err
    assert json.loads(out)["trial"] == "s/baseline-2"
    assert json.loads(out)["runs"][1]["address"] == "s/baseline-2/train-2"
    first, _ = json.loads(say("best", "s", "--json")[1])["baselines"]
    (found,) = first["compared"]
    low, high = found["interval"]
    assert low <= found["difference"] <= high
    assert found["seeds"] == [2, 2]
    assert (found["says"] == "no difference") == (low <= 0 <= high)
    assert ", 2 and 2 seeds): " in say("best", "s")[1]
    page = say("show", "s/baseline-1")[1]
    assert "name      small" in page
    assert "s/baseline-1/train-2" in page
    assert say("show", "s/baseline-1/train-2")[0] == 0
    code, out, err = say("export", "s", "--format", "safetensors", "--no-verify", "--json")
    assert code == 0, err
    card = next(Path(path) for path in json.loads(out)["files"] if path.endswith(".md")).read_text()
    assert "| baseline small | val_accuracy | valid |" in card
    code, out, _ = say("export", "s/baseline-1", "--format", "safetensors", "--no-verify", "--json")
    names = {Path(path).name for path in json.loads(out)["files"]}
    assert (code, "s-baseline-1.safetensors" in names) == (0, True)
    assert "The architecture small, a baseline in study s" in (files / "export" / "s-baseline-1.md").read_text()


def test_enqueued_ones_are_trials_and_more_baselines_are_added(say: Say, files: Path) -> None:
    assert say(*SEARCH, "--enqueue", "large", "--enqueue", "small")[0] == 0
    trials = json.loads(say("trials", "s", "--sort", "number", "--json")[1])
    assert sorted((trial["number"], *trial["architecture"].values()) for trial in trials)[:2] == [
        (0, 16, 16),
        (1, 4, 4),
    ]
    assert json.loads(say("show", "s", "--json")[1])["strategy_config"]["names"] == ["large", "small"]
    code, _, err = say(*SEARCH, "--enqueue", "large,small", "--baselines", "small")
    assert code == 0, err
    assert [one["name"] for one in json.loads(say("show", "s", "--json")[1])["baselines"]] == ["small"]
    code, _, err = say(*SEARCH)
    assert code == 2
    assert "exists with another configuration" in err


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("--baselines", "smal"), "did you mean 'small'?"),
        (("--enqueue", "smal"), "did you mean 'small'?"),
        (("--baselines", "small,small"), "architecture 'small' is named twice"),
        (("--space", "nasbench201", "--baselines", "x"), "space 'nasbench201' knows no architecture by name"),
        (
            ("--space", "nasbench201", "--strategy", "darts", "--enqueue", "x"),
            "--enqueue is for strategies that propose",
        ),
        (("--evaluator", "told", "--baselines", "small"), "nothing evaluates them"),
    ],
)
def test_bad_input(say: Say, files: Path, arguments: tuple[str, ...], wanted: str) -> None:
    plain = ("search", "--space", "widths.py:Widths", "--trials", "2")
    code, _, err = say(*(plain if "--space" not in arguments else ("search",)), *arguments)
    assert code == 2
    assert wanted in err
    assert "Traceback" not in err
    assert not (files / "nas.db").exists()


def test_a_study_without(say: Say, files: Path) -> None:
    assert say(*SEARCH)[0] == 0
    assert json.loads(say("show", "s", "--json")[1])["baselines"] == []
    assert "baselines" not in say("show", "s")[1]
    code, _, err = say("show", "s/baseline-1")
    assert code == 3
    assert "study 's' has no baseline 1; it has none" in err
