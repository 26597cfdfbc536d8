"""From a csv file to a network for its rows, and to the answers for new ones, by the commands alone."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Say = Callable[..., tuple[int, str, str]]

SMALL = ("--size", "width_scale=0.25", "--threads", "1", "--strategy", "random")
BUYS, PRICE = "csv:t.csv?target=buys&drop=price", "csv:t.csv?target=price&drop=buys"


def write_table(count: int = 300) -> None:
    """Ages with missing ones, colours, pay; a class and a number that follow from them."""
    rng = np.random.default_rng(0)
    with Path("t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "colour", "pay", "buys", "price"])
        for number in range(count):
            age, pay, colour = int(rng.integers(20, 60)), rng.normal(100, 15), ("red", "green", "blue")[number % 3]
            price = 1000 + 20 * age + (300 if colour == "red" else 0) + pay
            writer.writerow(
                [age if number % 9 else "", colour, f"{pay:.2f}", "no" if price > 1900 else "yes", f"{price:.2f}"]
            )


def trials(say: Say, study: str) -> list[tuple[str, dict[str, float]]]:
    found = json.loads(say("trials", study, "--json")[1])
    assert all(trial["state"] == "complete" for trial in found)
    return [(trial["key"], trial["metrics"]) for trial in found]


def answers(say: Say, model: Path) -> list[dict[str, Any]]:
    code, out, err = say("infer", str(model), "csv:new.csv", "--json")
    assert (code, err) == (0, "")
    found: list[dict[str, Any]] = json.loads(out)
    assert [answer["input"] for answer in found] == [f"new.csv:{line}" for line in range(2, 42)]
    return found


def searched(say: Say, data: str, study: str, count: int) -> None:
    words = ("--space", "mlp", "--data", data, "--study", study, "--epochs", "1", "--trials", str(count))
    code, _, err = say("search", *words, *SMALL)
    assert code == 0, err


def trained(say: Say, data: str, *, epochs: int = 12) -> tuple[str, dict[str, float]]:
    """Of the best of two candidates."""
    searched(say, data, "s", 2)
    code, out, err = say("train", "s", "--epochs", str(epochs), "-s", "batch_size=32", "-s", "lr=0.01", "--json")
    assert code == 0, err
    (training,) = json.loads(out)["runs"]
    return training["address"], training["metrics"]


@pytest.fixture
def table(folder: Path) -> Path:
    write_table()
    lines = Path("t.csv").read_text().splitlines()
    # The target is not there, the columns come in another order, and there is one more.
    cells = [line.split(",") for line in lines[1:41]]
    new = ["pay,note,colour,age", *(f"{pay},x,{colour},{age}" for age, colour, pay, _, _ in cells)]
    Path("new.csv").write_text("\n".join(new) + "\n")
    return folder


def rows_of(column: int) -> list[str]:
    """What the first 40 rows have there."""
    return [line.split(",")[column] for line in Path("t.csv").read_text().splitlines()[1:41]]


def test_a_search_that_was_stopped_is_the_one_that_was_not(say: Say, table: Path) -> None:
    searched(say, BUYS, "whole", 3)
    searched(say, BUYS, "parts", 1)
    assert say("resume", "parts", "--trials", "3")[0] == 0
    assert trials(say, "parts") == trials(say, "whole")


def test_classes_from_file_to_answers(say: Say, table: Path) -> None:
    address, metrics = trained(say, BUYS)
    assert metrics["test_accuracy"] > 0.7
    assert say("export", address, "--format", "safetensors", "--out", "model", "--no-verify")[0] == 0
    (described,) = Path("model").glob("*.json")
    inputs = json.loads(described.read_text())["inputs"]
    assert [column["name"] for column in inputs["columns"]] == ["age", "colour", "pay"]
    assert inputs["columns"][0]["indicator"] is True
    assert inputs["classes"] == ["no", "yes"]
    best = [answer["classes"][0]["class"] for answer in answers(say, described)]
    assert np.mean([one == other for one, other in zip(best, rows_of(3), strict=True)]) > 0.7


def test_numbers_are_predicted_in_their_unit(say: Say, table: Path) -> None:
    address, metrics = trained(say, PRICE)
    assert 0 < metrics["val_mae"] <= metrics["val_rmse"] < 250  # prices deviate by 270
    assert metrics["test_rmse"] < 250
    page = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in say("show", "s")[1].splitlines()}
    assert page["objectives"] == "val_rmse:min"
    assert page["task"] == "tabular-regression, 6 to 1 numbers"
    assert page["columns"] == "age, colour, pay"
    assert page["inputs"].startswith("target=price ")
    assert say("export", address, "--format", "safetensors", "--out", "model", "--no-verify")[0] == 0
    found = answers(say, next(Path("model").glob("*.json")))
    errors = [answer["numbers"][0] - float(price) for answer, price in zip(found, rows_of(4), strict=True)]
    assert math.sqrt(np.square(errors).mean()) < 250


@pytest.mark.slow  # the fast ones: those above, and test_drawn_architectures_of_every_space
@pytest.mark.parametrize("data", [BUYS, PRICE], ids=["classes", "numbers"])
def test_every_written_file_gives_the_same_answers(say: Say, table: Path, data: str) -> None:
    """Verified in a process of its own against rows of the validation part, and asked for new ones."""
    address, _ = trained(say, data, epochs=3)
    code, _, err = say("export", address, "--format", "onnx,pt2,safetensors,json,python", "--out", "model")
    assert code == 0, err
    endings = (".onnx", ".pt2", ".safetensors", ".py")
    found = {ending: answers(say, next(Path("model").glob(f"*{ending}"))) for ending in endings}
    for ending, others in found.items():
        for one, other in zip(found[".safetensors"], others, strict=True):
            assert values(one) == pytest.approx(values(other), rel=1e-4), ending


def values(answer: dict[str, Any]) -> list[float]:
    """The predicted numbers, or the probabilities in the order of the names of their classes."""
    if "numbers" in answer:
        return list(answer["numbers"])
    return [each["probability"] for each in sorted(answer["classes"], key=lambda each: each["class"])]


@pytest.mark.slow  # the fast one: test_rows_of_a_file_are_read_for_a_network
def test_files_without_a_header_keep_the_places_of_their_columns(say: Say, folder: Path) -> None:
    """Exports are checked by rows of the data, in which a column is dropped and another one is the target."""
    write_table()
    Path("h.csv").write_text("\n".join(Path("t.csv").read_text().splitlines()[1:]) + "\n")
    data = "csv:h.csv?header=no&target=c3&drop=c1"
    searched(say, data, "s", 1)
    assert say("train", "s", "--epochs", "1")[0] == 0
    code, _, err = say("export", "s", "--format", "onnx", "--out", "model")
    assert code == 0, err
    code, out, err = say("infer", "model", "csv:h.csv", "--json")
    assert code == 0, err
    assert len(json.loads(out)) == 300


def test_several_numbers_are_columns_of_their_own(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    import training.infer
    from training.infer.classify import Answer

    answers = [Answer("a", numbers=(1.0, 2.5)), Answer("b", numbers=(3.0, 4.0))]
    monkeypatch.setattr(training.infer, "open_model", lambda path: path)
    monkeypatch.setattr(training.infer, "classify", lambda model, argument, top: (answers, ""))
    code, out, err = say("infer", "model.json", "npz:rows.npz")
    assert (code, err) == (0, "")
    head, *rows = [line.split() for line in out.splitlines()]
    assert head == ["input", "answer", "1", "answer", "2"]
    assert rows == [["a", "1", "2.5"], ["b", "3", "4"]]
