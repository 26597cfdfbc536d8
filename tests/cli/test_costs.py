"""`--costs`: objectives and constraints from a table of costs, for tables and for trainings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Say = Callable[..., tuple[int, str, str]]
TOY = """
from nas_core.choice import Choice
from nas_core.space import SearchSpace


class Toy(SearchSpace):
    name = "toy"
    tasks = frozenset({"image-classification"})
    choices = (Choice("depth", (1, 2)), Choice("width", (8, 16)))

    def build(self, arch, task, size):
        from torch import nn

        pixels = task.input_shape[0] * task.input_shape[1] * task.input_shape[2]
        width = arch.values["width"]
        layers = [nn.Flatten(), nn.Linear(pixels, width), nn.ReLU()]
        for _ in range(arch.values["depth"] - 1):
            layers += [nn.Linear(width, width), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(width, task.outputs))


space = Toy()
"""
ROWS = "depth,width,accuracy,phone,board\n1,8,60,1.5,10\n1,16,65,2.5,20\n2,8,70,3.5,\n2,16,75,4.5,40\n"
RESULTS = """
space: toy
row: {choices: {depth: depth, width: width}}
data:
  pictures:
    task: {kind: image-classification, input_shape: [1, 8, 8], outputs: 10}
    metrics: {val_accuracy: {column: accuracy, scale: 0.01}}
"""
COSTS = """
space: toy
row: {choices: {depth: depth, width: width}}
costs:
  latency_ms.phone: {column: phone, unit: ms}
  latency_ms.board: {column: board, unit: ms}
"""


@pytest.fixture
def toy(folder: Path) -> tuple[str, ...]:
    """The arguments of a search in a table with costs beside it."""
    (folder / "toy.py").write_text(TOY)
    for name, mapping in (("results", RESULTS), ("costs", COSTS)):
        (folder / f"{name}.csv").write_text(ROWS)
        (folder / f"{name}.yaml").write_text(mapping)
    space = ("--space", "toy.py:space", "--strategy", "random", "--trials", "4")
    return "search", *space, "--table", "results.csv", "--data", "pictures", "--costs", "costs.csv", "--study", "s"


def trials(say: Say) -> list[dict[str, object]]:
    code, out, _ = say("trials", "s", "--json")
    assert code == 0
    found = json.loads(out)
    return list(found["trials"] if isinstance(found, dict) else found)


def test_an_objective_and_a_constraint_from_the_table(say: Say, toy: tuple[str, ...], folder: Path) -> None:
    wanted = (
        "--objective",
        "val_accuracy",
        "--objective",
        "latency_ms.phone:min",
        "--constraint",
        "latency_ms.phone<=4",
    )
    code, _, err = say(*toy, *wanted)
    assert code == 0, err
    states = {row["state"] for row in trials(say)}
    assert states == {"complete", "rejected"}
    code, out, _ = say("front", "s", "--json")
    assert code == 0
    assert "latency_ms.phone" in out
    assert say("verify", "s")[0] == 0
    assert say(*toy, *wanted)[0] == 0  # the same study
    code, _, err = say(*[word for word in toy if word not in ("--costs", "costs.csv")], "--objective", "val_accuracy")
    assert code == 2
    assert "another configuration" in err


def test_an_empty_cell_fails_only_what_needs_it(say: Say, toy: tuple[str, ...]) -> None:
    code, _, err = say(*toy, "--objective", "val_accuracy", "--objective", "latency_ms.board:min")
    assert code == 0, err
    assert sorted(str(row["state"]) for row in trials(say)) == ["complete", "complete", "complete", "failed"]


def test_the_table_of_costs_is_part_of_the_study(say: Say, toy: tuple[str, ...], folder: Path) -> None:
    assert say(*toy, "--objective", "latency_ms.phone:min", "--trials", "2")[0] == 0
    (folder / "elsewhere").mkdir()
    for name in ("costs.csv", "costs.yaml"):
        (folder / name).rename(folder / "elsewhere" / name)
    code, _, err = say("resume", "s", "--trials", "4")
    assert code == 3
    assert "costs.csv" in err
    assert say("resume", "s", "--trials", "3", "--costs", "elsewhere/costs.csv")[0] == 0
    assert say("verify", "s", "--costs", "elsewhere/costs.csv")[0] == 0
    (folder / "elsewhere" / "costs.csv").write_text(ROWS.replace("1.5", "1.6"))
    code, _, err = say("resume", "s", "--trials", "4", "--costs", "elsewhere/costs.csv")
    assert code == 2
    assert "with the costs 'elsewhere/costs.csv' is not what the study was made with" in err


def test_studies_without_costs_are_what_they_were(say: Say, toy: tuple[str, ...]) -> None:
    assert say(*[word for word in toy if word not in ("--costs", "costs.csv")])[0] == 0
    code, out, _ = say("query", "SELECT evaluator, split_hash FROM studies", "--json")
    assert code == 0
    assert "costs" not in out
    code, _, err = say("resume", "s", "--costs", "costs.csv")
    assert code == 2
    assert "no table of costs" in err


def test_beside_a_training(say: Say, toy: tuple[str, ...]) -> None:
    training = ("search", "--space", "toy.py:space", "--strategy", "random", "--epochs", "1", "--trials", "1")
    code, _, err = say(
        *training, "--costs", "costs.csv", "--study", "s", "--threads", "1",
        "--objective", "val_accuracy", "--objective", "latency_ms.phone:min",
    )  # fmt: skip
    assert code == 0, err
    (row,) = trials(say)
    assert row["state"] == "complete"
    assert say("verify", "s")[0] == 0


def test_what_does_not_fit(say: Say, toy: tuple[str, ...]) -> None:
    code, _, err = say(*toy, "--objective", "latency_ms.phones:min")
    assert code == 2
    assert "did you mean 'latency_ms.phone'" in err
    code, _, err = say(*[word.replace("costs.csv", "absent.csv") for word in toy])
    assert code == 3
    assert "there is no table 'absent.csv'" in err


def test_latency_of_a_device_of_nasbench201(say: Say, shared_data: Path) -> None:
    code, _, err = say(
        "search", "--table", str(shared_data / "nb201.csv.gz"), "--data", "cifar10", "--trials", "12", "--study", "s",
        "--costs", str(shared_data / "nb201_latency_ms.csv.gz"), "--strategy", "random",
        "--objective", "val_accuracy", "--objective", "latency_ms.raspi4:min",
    )  # fmt: skip
    assert code == 0, err
    assert {row["state"] for row in trials(say)} == {"complete"}
    code, out, _ = say("front", "s", "--json")
    assert code == 0
    assert "latency_ms.raspi4" in out
