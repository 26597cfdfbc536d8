"""`nas export --part task=NAME`: the network of one task, by the commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import said_in
from training.data import load
from training.data.loading import Loading
from training.export import load_network

Say = Callable[..., tuple[int, str, str]]
SMALL = ("--data", "tasks:digits", "-s", "split.limit=100", "--size", "width=8", "--epochs", "1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with a trained network whose router goes by the task."""
    folder = tmp_path_factory.mktemp("tasks")
    space = "moe(backbone=tasks,routers=(task,),kinds=(gelu,))"
    search = ["search", "--study", "s", "--space", space, *SMALL, "--trials", "1"]
    said_in(folder, *search)
    said_in(folder, "train", "s:0", "--epochs", "1", "--size", "width=8")
    return folder


@pytest.fixture
def folder(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    return trained


@pytest.mark.usefixtures("forked_checks")
def test_it_answers_as_the_whole_network_bit_for_bit(folder: Path, say: Say) -> None:
    code, _, err = say("export", "s:0", "--format", "safetensors,json", "--out", "whole", "--no-verify")
    assert code == 0, err
    whole = load_network("whole/s-0.json", "whole/s-0.safetensors")
    image, *_ = next(iter(load("tasks:digits").bind("cpu", Loading(batch_size=16)).batches("train", 0, 0))).inputs
    code, out, err = say("export", "s:0", "--part", "task=parity", "--format", "safetensors,json", "--out", "part")
    assert code == 0, err
    assert "part/s-0-parity.safetensors" in out
    part = load_network("part/s-0-parity.json", "part/s-0-parity.safetensors")
    with torch.no_grad():
        assert torch.equal(part(image), whole(image, torch.full((len(image),), 2))[:, 12:])
    card = Path("part/s-0-parity.md").read_text()
    assert "test_accuracy.parity" in card
    assert "test_accuracy.digit" not in card


@pytest.mark.usefixtures("forked_checks")
def test_it_is_an_ordinary_network_for_images(folder: Path, say: Say) -> None:
    from PIL import Image

    Image.fromarray(load("tasks:digits").images[0, 0] * 15).save("one.png")  # type: ignore[attr-defined]
    code, _, err = say("export", "s:0", "--part", "task=parity", "--format", "safetensors,python", "--out", "python")
    assert code == 0, err
    answers = []
    for file in ("s-0-parity.safetensors", "s_0_parity.py"):
        code, out, err = say("infer", f"python/{file}", "one.png", "--json")
        assert code == 0, err
        answers.append({one["class"]: one["probability"] for one in json.loads(out)[0]["classes"]})
    assert set(answers[0]) == {"even", "odd"}
    assert answers[0] == pytest.approx(answers[1], abs=1e-6)
    code, _, err = say("train", "python/s-0-parity.json", "--data", "digits")
    assert code == 2


@pytest.mark.usefixtures("forked_checks")
def test_the_whole_network_is_written_as_python(folder: Path, say: Say) -> None:
    from PIL import Image

    Image.fromarray(load("tasks:digits").images[0, 0] * 15).save("asked.png")  # type: ignore[attr-defined]
    code, _, err = say("export", "s:0", "--format", "python", "--out", "written")
    assert code == 0, err
    answers = []
    for file in ("s_0.py", "s-0.safetensors"):
        code, out, err = say("infer", f"written/{file}", "asked.png?task=parity", "--json")
        assert code == 0, err
        answers.append({one["class"]: one["probability"] for one in json.loads(out)[0]["classes"]})
    assert set(answers[0]) == {"parity=even", "parity=odd"}
    assert answers[0] == pytest.approx(answers[1], abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("s:0", "--part", "task=pairty"), "unknown task 'pairty'; did you mean 'parity'"),
        (("s:0", "--part", "layer", "--format", "python"), "space 'moe' has no parts"),
    ],
)
def test_what_cannot_be_cut_is_refused(folder: Path, say: Say, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = say("export", *arguments, "--out", "refused")
    assert (code, out) == (2, "")
    assert message in err
    assert not Path("refused").exists()
