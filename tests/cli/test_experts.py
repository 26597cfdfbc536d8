"""`examples/my_experts.py`: a space of one's own with layers of experts, through the commands."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from studies.jobs import proof, rounds
from studies.jobs.proof import Claim

Say = Callable[..., tuple[int, str, str]]


def proved_elsewhere(claim: Claim) -> dict[str, float]:
    """As a process does that has not loaded the user's file: what it is told must not hold anything of that."""
    told = pickle.dumps(claim)
    for name in [name for name in sys.modules if name.startswith("nas_user_")]:
        del sys.modules[name]
    return proof.compared(pickle.loads(told))


@pytest.fixture
def address(folder: Path, say: Say) -> str:
    """A trained network with experts."""
    shutil.copy(Path(__file__).resolve().parents[2] / "examples" / "my_experts.py", folder)
    data = ["--data", "digits", "-s", "split.limit=200", "--epochs", "1", "--trials", "2", "--seed", "1"]
    code, _, err = say("search", "--study", "e", "--space", "my_experts.py:space", *data)
    assert code == 0, err
    listed = json.loads(say("trials", "e", "--json")[1])
    number = next(one["number"] for one in listed if one["architecture"]["block"] != "dense")
    assert say("train", f"e:{number}", "--epochs", "1")[0] == 0
    return f"e:{number}"


def test_trained_experts_are_compressed(address: str, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "prove", proved_elsewhere)
    less = ["--method", "magnitude", "--target", "params<=0.8x", "--epochs", "0"]
    code, out, err = say("compress", address, *less, "--json")
    assert code == 0, err
    (run,) = json.loads(out)["runs"]
    assert run["metrics"]["params"] <= 0.8 * run["metrics"]["base_params"]


@pytest.mark.slow
def test_trained_experts_are_deployed(address: str, say: Say) -> None:
    code, _, err = say("export", address, "--format", "onnx,pt2", "--out", "out")
    assert code == 0, err
    assert {path.suffix for path in Path("out").iterdir()} >= {".onnx", ".pt2"}
