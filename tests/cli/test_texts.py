"""From a text to a language model of one's own, and to what it says of other texts, by the commands alone."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import nas

Say = Callable[..., tuple[int, str, str]]

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_language_model.py"
WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "ran")
DATA = "text:t.txt?window=16"
NET = "my_language_model.py:transformer(width=16, depth=1, heads=2)"

SPACE = '''
from typing import ClassVar

from torch import nn
from my_language_model import Transformer

from nas_core.choice import Choice
from nas_core.config import SizeConfig
from nas_core.space import SearchSpace


class Texts(SearchSpace):
    name = "texts"
    tasks = frozenset({"language-modelling"})
    choices = (Choice("width", (4, 8, 16), ordered=True), Choice("depth", (1, 2), ordered=True))

    def build(self, arch, task, size):
        return Transformer(*task.tokens(), arch.values["width"], arch.values["depth"], 2)


space = Texts()


class Seeing(nn.Module):
    """Reads the whole window for every answer."""

    def __init__(self, length, vocabulary):
        super().__init__()
        self.embedding, self.linear = nn.Embedding(vocabulary, 8), nn.Linear(8 * length, length * vocabulary)
        self.vocabulary = vocabulary

    def forward(self, tokens):
        return self.linear(self.embedding(tokens).flatten(1)).unflatten(1, (-1, self.vocabulary))


def seeing(task):
    return Seeing(*task.tokens())


def once(task):
    return nn.Sequential(nn.Embedding(task.tokens()[1], 4), nn.Flatten(), nn.Linear(64, task.outputs))
'''


@pytest.fixture
def own(folder: Path) -> Path:
    draws = np.random.default_rng(0)
    Path("t.txt").write_text(" ".join(WORDS[number] for number in draws.integers(0, len(WORDS), 1200)))
    Path("my_language_model.py").write_text(EXAMPLE.read_text())
    Path("my_space.py").write_text(SPACE)
    return folder


def test_data_check_shows_windows_characters_and_vocabulary(say: Say, own: Path) -> None:
    code, out, err = say("data", "check", DATA)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert "task        language-modelling" in lines
    assert "window      16" in lines
    assert next(line for line in lines if line.startswith("characters")).split()[1:4] == ["<unk>", "'", "'"]
    sizes = {line.split("\t")[0]: line.split("\t")[1:] for line in lines[-3:]}
    windows = {part: int(values[0]) for part, values in sizes.items()}
    assert all(values[1:] == [str(16 * windows[part]), "0"] for part, values in sizes.items())
    found = json.loads(say("data", "check", DATA, "--json")[1])
    assert (found["parts"], found["class_counts"], found["classes"]) == (windows, {}, [])
    assert found["characters"]["valid"] == {"predicted": 16 * windows["valid"], "unknown": 0}
    assert "text:FILE" in say("data", "list")[1].replace("\t", ":")


@pytest.mark.usefixtures("forked_checks")  # tests/training/test_export.py has one without
def test_from_a_text_to_what_a_network_says_of_another(say: Say, own: Path) -> None:
    code, out, err = say(
        "train", NET, "--data", DATA, "--epochs", "6", "-s", "lr=0.02", "-s", "batch_size=32", "--json"
    )
    assert code == 0, err
    study = json.loads(out)["trial"].partition(":")[0]
    (run,) = json.loads(out)["runs"]
    metrics = run["metrics"]
    assert metrics["val_bpc"] == pytest.approx(metrics["val_loss"] / math.log(2), rel=1e-5)
    assert metrics["val_loss"] < 0.8 * math.log(13)
    assert {"test_bpc", "test_accuracy", "params", "macs"} <= set(metrics)
    code, _, err = say("export", study, "--out", "out", "--format", "onnx,safetensors")
    assert code == 0, err
    (onnx,), (described,) = Path("out").glob("*.onnx"), Path("out").glob("*.json")
    assert "nas infer" in next(Path("out").glob("*.md")).read_text()

    text = " ".join(WORDS) + " ran and the mat"
    Path("new.txt").write_text(text)
    answers = [json.loads(say("infer", str(file), "text:new.txt", "--json")[1]) for file in (onnx, described)]
    (first,), (second,) = answers
    assert first["predicted"] == len(text) - 1
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-4)
    network, inputs = nas.load(described), json.loads(described.read_text())["inputs"]
    tokens = torch.tensor([[1 + inputs["characters"].index(one) for one in text[-16:]]])
    with torch.no_grad():
        best = int(network(tokens)[0, -1].argmax())
    assert first["classes"][0]["class"] == ["<unk>", *inputs["characters"]][best]
    code, out, _ = say("infer", str(onnx), "new.txt", "--top", "2")
    assert [line.split("\t")[0] for line in out.splitlines()] == [
        "input",
        "new.txt",
        "",
        "what may follow:",
        "input",
        *["new.txt"] * 2,
    ]

    drawn = say("infer", str(onnx), "new.txt", "--continue", "40", "--seed", "3", "--temperature", "0.5")
    assert drawn[0] == 0
    assert len(drawn[1].rstrip("\n")) == 40
    assert drawn == say("infer", str(onnx), "new.txt", "--continue", "40", "--seed", "3", "--temperature", "0.5")
    assert set(drawn[1]) <= set("".join(WORDS) + " \n")
    (document,) = json.loads(say("infer", str(onnx), "new.txt", "--continue", "5", "--json")[1])
    assert (document["input"], len(document["continuation"])) == ("new.txt", 5)


def test_a_search_over_texts_selects_by_bits_per_character(say: Say, own: Path) -> None:
    words = ("--space", "my_space.py:space", "--data", DATA, "--trials", "2", "--epochs", "1", "--study", "s")
    code, _, err = say("search", *words, "--strategy", "random", "--threads", "1")
    assert code == 0, err
    best = json.loads(say("best", "s", "--json")[1])
    trials = json.loads(say("trials", "s", "--json")[1])
    assert best["metrics"]["val_bpc"] == min(trial["metrics"]["val_bpc"] for trial in trials)
    assert say("resume", "s", "--trials", "3")[0] == 0
    assert len(json.loads(say("trials", "s", "--json")[1])) == 3


@pytest.mark.usefixtures("forked_checks")  # tests/training/test_export.py has one without
def test_experts_are_searched_for_texts(say: Say, own: Path) -> None:
    words = ("--space", "moe(backbone=text)", "--data", DATA, "--size", "width=8", "--epochs", "1", "--threads", "1")
    more = ("--trials", "1", "--strategy", "random", "--enqueue", "switch", "--baselines", "dense,dense-total")
    code, _, err = say("search", *words, *more, "--study", "s")
    assert code == 0, err
    (trial,) = json.loads(say("trials", "s", "--json")[1])
    assert trial["architecture"]["ffn"] == "switch"
    assert trial["metrics"]["val_bpc"] > 0
    assert "dense-total" in say("best", "s")[1]
    code, _, err = say("train", "s:0", "--epochs", "1")
    assert code == 0, err
    code, _, err = say("export", "s:0", "--out", "out", "--format", "onnx,safetensors")
    assert code == 0, err
    code, out, _ = say("infer", next(map(str, Path("out").glob("*.onnx"))), "t.txt", "--json")
    assert json.loads(out)[0]["predicted"] == len(Path("t.txt").read_text()) - 1


def test_experts_are_searched_for_questions(say: Say, folder: Path) -> None:
    data = "questions?pairs=1&samples=60"
    code, out, err = say("data", "check", data)
    assert (code, err) == (0, "")
    assert {"task        question-answering", "tokens      12", "train\t43", "test\t12"} <= set(out.splitlines())
    words = ("--space", "moe(backbone=text)", "--data", data, "--size", "width=8", "--epochs", "1", "--trials", "1")
    code, _, err = say("search", *words, "--strategy", "random", "--enqueue", "switch", "--study", "s")
    assert code == 0, err
    (trial,) = json.loads(say("trials", "s", "--json")[1])
    assert {"val_exact_match", "val_f1", "val_loss", "active_params"} <= set(trial["metrics"])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("train", "my_space.py:seeing", "--data", DATA, "--epochs", "1"), 1, "sees-the-future: the network's answers"),
        (("train", "my_space.py:once", "--data", DATA, "--epochs", "1"), 1, "need shape (64, 16, 13)"),
        (
            ("search", "--space", "nasbench201", "--data", DATA),
            2,
            "'nasbench201' is for image-classification, but the data",
        ),
        (
            ("search", "--space", "moe", "--data", DATA),
            2,
            "'moe' is for tabular-classification, tabular-regression, but the",
        ),
        (
            ("search", "--space", "moe(backbone=text, routers=(smear,))", "--data", DATA),
            2,
            "router smear needs later tokens, which the backbone text has not",
        ),
        (("train", NET, "--data", "digits", "--epochs", "1"), 2, "needed are sequences"),
        (("train", NET, "--data", "text:t.txt?window=4000"), 2, "windows of 4000 need at least 8,001"),
        (("train", NET, "--data", DATA, "-s", "augment.flip=true"), 2, "augment is for images"),
        (("train", NET, "--data", DATA, "-s", "loss=mse_loss"), 2, "loss mse_loss is not for language-modelling"),
        (("infer", "none.onnx", "new.txt", "--seed", "1"), 2, "--seed and --temperature are for --continue"),
    ],
)
def test_mistakes_are_said_in_a_line(say: Say, own: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    found, _, err = say(*arguments)
    assert said in err
    assert found == code
    assert "Traceback" not in err
