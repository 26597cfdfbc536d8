"""Drawn networks of `moe`, on every backbone: trained, written as Python, asked and loaded.
Faster, and one of each: `test_moe.py`, `test_texts.py`, `test_export_task.py`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import nas
from training.data import load

Say = Callable[..., tuple[int, str, str]]

WINDOW = 12
DATA = {
    "table": ("--data", "csv:t.csv?target=y"),
    "text": ("--data", f"text:t.txt?window={WINDOW}"),
    "patches": ("--data", "digits", "-s", "split.limit=80"),
    "tasks": ("--data", "tasks:digits", "-s", "split.limit=80"),
}
KINDS = ("", ",kinds=('mixed',)")
ASKED = {"table": "csv:new.csv", "text": "new.txt", "patches": "one.png", "tasks": "one.png?task=parity"}


@pytest.fixture
def made(folder: Path) -> Path:
    """A folder with data of every backbone, and files to ask networks of."""
    drawn = random.Random(0)
    rows = [[round(drawn.gauss(0, 1), 3) for _ in range(3)] for _ in range(90)]
    Path("t.csv").write_text("\n".join(["a,b,c,y", *(f"{a},{b},{c},{a * b + c:.4f}" for a, b, c in rows)]) + "\n")
    Path("new.csv").write_text("a,b,c\n0.1,0.2,0.3\n1.5,-2,0.4\n")
    Path("t.txt").write_text(" ".join(drawn.choice(["the", "cat", "sat", "on", "a", "mat"]) for _ in range(400)))
    Path("new.txt").write_text("the cat sat on a mat and the cat ran on a mat")
    Image.fromarray(load("digits").images[0, 0] * 15).save("one.png")  # type: ignore[attr-defined]
    return folder


def numbers(value: Any) -> list[float]:
    """All numbers of an answer, in order."""
    if isinstance(value, dict):
        return [each for key in sorted(value) for each in numbers(value[key])]
    if isinstance(value, list):
        return [each for item in value for each in numbers(item)]
    return [float(value)] if isinstance(value, int | float) else []


def inputs(backbone: str) -> tuple[Tensor, ...]:
    if backbone == "table":
        return (torch.randn(2, 3),)
    if backbone == "text":
        return (torch.randint(0, 5, (2, WINDOW)),)
    image = torch.rand(2, 1, 8, 8)
    return (image,) if backbone == "patches" else (image, torch.tensor([0, 2]))


@pytest.mark.slow
@pytest.mark.usefixtures("forked_checks")
@pytest.mark.parametrize("backbone", DATA)
@pytest.mark.parametrize("kinds", KINDS)
def test_three_drawn_networks_are_written_and_asked(say: Say, made: Path, backbone: str, kinds: str) -> None:
    study = ("--study", "s", "--space", f"moe(backbone={backbone}{kinds})", *DATA[backbone])
    drawn = ("--strategy", "random", "--seed", "5", "--trials", "3", "--threads", "1")
    code, _, err = say("search", *study, *drawn, "--size", "width=8", "--epochs", "1")
    assert code == 0, err
    code, _, err = say("train", "s", "--top", "3", "--epochs", "1", "--size", "width=8")
    assert code == 0, err
    for trial in range(3):
        place = Path(f"out{trial}")
        code, _, err = say("export", f"s:{trial}", "--format", "python,safetensors", "--out", str(place))
        assert code == 0, err
        answers = []
        for file in (place / f"s_{trial}.py", place / f"s-{trial}.safetensors"):
            code, out, err = say("infer", str(file), ASKED[backbone], "--json")
            assert code == 0, err
            answers.append(numbers(json.loads(out)))
        assert answers[0]
        assert answers[0] == pytest.approx(answers[1], rel=1e-4, abs=1e-5)
        network = nas.load(place / f"s-{trial}.json")
        with torch.inference_mode():
            output = network(*inputs(backbone))
        assert len(output) == 2
        assert torch.isfinite(output).all()


@pytest.mark.slow
@pytest.mark.usefixtures("forked_checks")
@pytest.mark.parametrize("backbone", DATA)
@pytest.mark.parametrize("kinds", KINDS)
def test_three_drawn_networks_are_made_smaller_or_say_what_stands_in_the_way(
    say: Say, made: Path, backbone: str, kinds: str
) -> None:
    study = ("--study", "s", "--space", f"moe(backbone={backbone}{kinds})", *DATA[backbone])
    drawn = ("--strategy", "random", "--seed", "5", "--trials", "3", "--threads", "1")
    assert say("search", *study, *drawn, "--size", "width=8", "--epochs", "1")[0] == 0
    assert say("train", "s", "--top", "3", "--epochs", "1", "--size", "width=8")[0] == 0
    less, smaller = ("--method", "magnitude", "--target", "params<=0.9x"), 0
    for trial in range(3):
        code, out, err = say("compress", f"s:{trial}", *less, "--plan")
        planned = code
        assert code in (0, 2), err
        code, out, err = say("compress", f"s:{trial}", *less, "--epochs", "0", "--json")
        assert code == planned, err
        if code:
            assert " in '" in err, err  # an operator in a module
            continue
        smaller += 1
        (run,) = json.loads(out)["runs"]
        assert run["metrics"]["params"] <= 0.9 * run["metrics"]["base_params"]
    assert smaller
