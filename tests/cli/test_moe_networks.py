"""Drawn networks of `moe`, on every backbone: trained, written as Python, asked and loaded.
Faster, and one of each: `test_moe.py`, `test_texts.py`, `test_export_task.py`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.cli.drawn import Say, made_smaller, written_and_asked
from training.data import load

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
    written_and_asked(say, Path(), ASKED[backbone], inputs(backbone), 2)


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
    made_smaller(say, epochs=0)
