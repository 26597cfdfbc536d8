"""A network for several tasks, by the commands: data, training, export, and answers to files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data import load

Say = Callable[..., tuple[int, str, str]]
EXAMPLE = Path(__file__).parents[2] / "examples" / "my_tasks.py"
TASKS = ("at_least_five", "digit", "parity")


def test_data_are_shown_with_their_tasks(say: Say) -> None:
    code, out, _ = say("data", "check", "tasks:digits")
    assert code == 0
    assert "at_least_five (2 classes), digit (10 classes), parity (2 classes)" in out
    assert "image, task" in out
    assert "parity=odd" in out


def test_a_space_for_one_task_names_what_learns_several(say: Say) -> None:
    code, _, err = say("search", "--space", "nasbench201", "--data", "tasks:digits", "--trials", "1")
    assert code == 2
    assert "is multi-task-classification; take another space ('moe(backbone=tasks)')" in err


@pytest.mark.usefixtures("forked_checks")
def test_a_network_may_be_given_the_image_alone(folder: Path, say: Say) -> None:
    source = "from torch import nn\n\n\ndef net(task):\n    c, h, w = task.images()\n"
    Path("one.py").write_text(f"{source}    return nn.Sequential(nn.Flatten(), nn.Linear(c * h * w, task.outputs))\n")
    code, _, err = say("train", "one.py:net", "--data", "tasks:digits", "--epochs", "1")
    assert code == 2
    assert "takes images alone" in err
    code, _, err = say("train", "one.py:net", "--data", "tasks:digits?inputs=image", "--epochs", "1")
    assert code == 0, err
    code, _, err = say("export", "net-tasks-1:0", "--format", "safetensors", "--out", "out")
    assert code == 0, err
    Image.fromarray(load("tasks:digits").images[0, 0] * 15).save("one.png")  # type: ignore[attr-defined]
    code, out, _ = say("infer", "out", "one.png", "one.png?task=parity", "--json")
    assert [one["classes"][0]["class"].partition("=")[0] for one in json.loads(out)] == [*TASKS, "parity"]


@pytest.mark.usefixtures("forked_checks")
def test_a_network_for_several_tasks_is_trained_exported_and_asked(folder: Path, say: Say) -> None:
    shutil.copy(EXAMPLE, folder)
    small = ["--epochs", "1"]
    code, out, err = say("train", "my_tasks.py:Net(width=4)", "--data", "tasks:digits", *small, "--json")
    assert code == 0, err
    metrics = json.loads(out)["runs"][0]["metrics"]
    for part in ("val", "test"):
        assert metrics[f"{part}_accuracy"] == pytest.approx(
            sum(metrics[f"{part}_accuracy.{task}"] for task in TASKS) / len(TASKS)
        )
    assert {f"val_loss.{task}" for task in TASKS} < set(metrics)
    code, out, err = say("export", "Net-tasks-1:0", "--format", "safetensors,python", "--out", "out")
    assert code == 0, err
    source = load("tasks:digits")
    Image.fromarray(source.images[0, 0] * 15).save("one.png")  # type: ignore[attr-defined]
    np.savez("few.npz", images=source.images[:4], task=np.array(["digit", "parity", "parity", "digit"]))  # type: ignore
    code, out, _ = say("infer", "out", "one.png", "--json")
    assert [answer["classes"][0]["class"].partition("=")[0] for answer in json.loads(out)] == list(TASKS)
    for answer in json.loads(out):
        assert sum(one["probability"] for one in answer["classes"]) <= 1 + 1e-9
    code, out, _ = say("infer", "out/Net-tasks-1-0.safetensors", "one.png?task=parity", "npz:few.npz", "--json")
    assert code == 0
    found = [[one["class"].partition("=")[0] for one in answer["classes"]] for answer in json.loads(out)]
    assert found == [["parity"] * 2, ["digit"] * 5, ["parity"] * 2, ["parity"] * 2, ["digit"] * 5]
    assert sum(one["probability"] for one in json.loads(out)[0]["classes"]) == pytest.approx(1)
    code, _, err = say("infer", "out", "one.png?task=colour")
    assert code == 2
    assert "unknown task 'colour'" in err
