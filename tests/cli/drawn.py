"""What the three networks that a study `s` has drawn have to do, of whatever space they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import nas

Say = Callable[..., tuple[int, str, str]]
TRIALS = range(3)


def numbers(value: Any) -> list[float]:
    """All numbers of an answer, in order."""
    if isinstance(value, dict):
        return [each for key in sorted(value) for each in numbers(value[key])]
    if isinstance(value, list):
        return [each for item in value for each in numbers(item)]
    return [float(value)] if isinstance(value, int | float) else []


def answer(say: Say, file: Path, asked: str) -> list[float]:
    """What a file of a network answers to what is `asked`."""
    code, said, err = say("infer", str(file), asked, "--json")
    assert code == 0, err
    found = numbers(json.loads(said))
    assert found
    return found


def written_and_asked(say: Say, place: Path, asked: str, inputs: tuple[Tensor, ...], answers: int) -> None:
    """Source and weights answer alike for what is `asked`, and a loaded network has so many `answers` to `inputs`."""
    for trial in TRIALS:
        out = place / f"out{trial}"
        code, _, err = say("export", f"s:{trial}", "--format", "python,safetensors", "--out", str(out))
        assert code == 0, err
        weights = answer(say, out / f"s-{trial}.safetensors", asked)
        assert answer(say, out / f"s_{trial}.py", asked) == pytest.approx(weights, rel=1e-4, abs=1e-5)
        network = nas.load(out / f"s-{trial}.json")
        with torch.inference_mode():
            output = network(*inputs)
        assert len(output) == answers
        assert torch.isfinite(output).all()


def made_smaller(say: Say, epochs: int) -> None:
    """Each by a tenth, or refused by its plan, which names an operator and a module; one at least is."""
    less, smaller = ("--method", "magnitude", "--target", "params<=0.9x"), 0
    for trial in TRIALS:
        planned, _, err = say("compress", f"s:{trial}", *less, "--plan")
        assert planned in (0, 2), err
        code, out, err = say("compress", f"s:{trial}", *less, "--epochs", str(epochs), "--json")
        assert code == planned, err
        if code:
            assert " in '" in err, err  # an operator in a module
            continue
        smaller += 1
        (run,) = json.loads(out)["runs"]
        assert run["metrics"]["params"] <= 0.9 * run["metrics"]["base_params"]
    assert smaller
