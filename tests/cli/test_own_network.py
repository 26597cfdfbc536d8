"""A network of the user's own, by the commands of a study's: trained, measured, scored, compressed, exported, run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import nas
from nas_core.task import image_task
from nas_core.user_files import load_file
from training.spaces import load

Say = Callable[..., tuple[int, str, str]]
SMALL = ["--data", "digits", "--epochs", "1"]

NETWORK = '''
"""A small residual network."""

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x):
        return torch.relu(x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


class ResNet(nn.Module):
    def __init__(self, width=4, outputs=10):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.head = nn.Linear(width, outputs)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def net(task, width=4):
    return ResNet(width, task.outputs)


def make():
    return ResNet()


torch.manual_seed(0)
ready = ResNet()
number = 3


def wrong():
    return 3


def failing():
    raise RuntimeError("no")
'''


@pytest.fixture
def own(folder: Path) -> Path:
    (folder / "my_net.py").write_text(NETWORK)
    module, _ = load_file(Path("my_net.py"), "network")
    torch.manual_seed(1)
    safetensors.torch.save_file(module.ResNet().state_dict(), "given.safetensors")
    return folder


@pytest.mark.usefixtures("forked_checks")
def test_it_is_worked_on_by_the_commands_of_a_study(own: Path, say: Say) -> None:
    train = ["train", "my_net.py:net", *SMALL, "-s", "lr=1e-9", "--weights", "given.safetensors"]
    code, out, err = say(*train, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert "100.0% of the values, from given.safetensors" in err
    (run,) = found["runs"]
    assert run["address"] == "net-digits-1:0/train-1"
    parameters = 4 * 9 + 4 + 4 * (16 * 9 + 8) + 50  # stem, four convolutions with their normalisation, head
    assert run["metrics"]["params"] == parameters
    assert run["metrics"]["macs"] == 64 * (4 * 9 + 4 * 16 * 9) + 40
    # Once more, by whatever path, is the same training of the same study; other data are another study.
    assert json.loads(say(*train, "--json")[1])["runs"] == [run]
    assert json.loads(say("ls", "--json")[1])[0]["study"] == "net-digits-1"
    code, out, err = say("show", "net-digits-1:0", "--latency", "--json")
    assert code == 0, err
    assert json.loads(out)["latency"]["ms"] > 0
    code, out, err = say("score", "--space", "my_net.py:net", "--proxies", "synflow", "--sample", "1", "--json")
    assert code == 0, err
    code, out, err = say("export", "net-digits-1", "--format", "onnx,safetensors,json,python", "--out", "out")
    assert code == 0, err
    network = nas.load("out/net-digits-1-0.json")
    given = safetensors.torch.load_file("given.safetensors")
    state = network.state_dict()
    assert all(torch.allclose(state[name], given[name], atol=1e-6) for name in given if name.endswith("weight"))
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save("a.png")
    answers = [say("infer", f"out/net-digits-1-0.{suffix}", "a.png", "--json") for suffix in ("onnx", "json")]
    answers.append(say("infer", "out/net_digits_1_0.py", "a.png", "--json"))
    found = [json.loads(out)[0]["classes"] for _, out, _ in answers]
    assert (
        [one["class"] for one in found[0]] == [one["class"] for one in found[1]] == [one["class"] for one in found[2]]
    )


@pytest.mark.parametrize("name", ["make", "ResNet", "ready", "net(width=2)"])
def test_what_a_network_may_be(own: Path, say: Say, name: str) -> None:
    code, _, err = say("train", f"my_net.py:{name}", *SMALL, "--json")
    assert code == 0, err
    assert f"nas train my_net.py:{name} --data" in say("spaces", "check", f"my_net.py:{name}")[2]


def test_an_instance_keeps_its_weights(own: Path, say: Say) -> None:
    code, _, err = say("train", "my_net.py:ready", *SMALL, "-s", "lr=1e-9", "--json")
    assert code == 0, err
    module, _ = load_file(Path("my_net.py"), "network")
    left = safetensors.torch.load_file(next((own / "nas-files").rglob("weights.safetensors")))
    assert all(torch.allclose(left[key], one, atol=1e-6) for key, one in module.ready.named_parameters())


def test_every_network_is_a_copy_of_an_instance(own: Path) -> None:
    space = load("my_net.py:ready").object
    task = image_task((1, 8, 8), 10)
    one, other = (space.build(space.architecture, task, space.Size()) for _ in range(2))
    with torch.no_grad():
        one.stem.weight.zero_()
    assert float(other.stem.weight.abs().sum()) > 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["my_net.py:wrong", *SMALL], 2, "'my_net.py:wrong' makes a int, not a torch.nn.Module"),
        (["my_net.py:number", *SMALL], 2, "'my_net.py:number' is a int"),
        (["my_net.py:failing", *SMALL], 2, "cannot be made: RuntimeError: no"),
        (["my_net.py:ready(width=2)", *SMALL], 2, "ready is a module that is made already; it takes no arguments"),
        (["my_net.py:gone", *SMALL], 3, "no object 'gone' in it"),
        (["my_net.py:net"], 2, "name what it is trained on by --data"),
    ],
)
def test_what_is_none(own: Path, say: Say, words: list[str], code: int, message: str) -> None:
    found, _, err = say("train", *words)
    assert (found, message in err) == (code, True), err
    assert say("ls", "--json")[0] == 3 or json.loads(say("ls", "--json")[1]) == []  # nothing is stored


def test_a_file_that_has_changed_is_refused(own: Path, say: Say) -> None:
    assert say("train", "my_net.py:net", *SMALL)[0] == 0
    (own / "my_net.py").write_text(NETWORK + "\n# other\n")
    code, _, err = say("train", "net-digits-1:0", "--epochs", "1")
    assert (code, "has changed since the study was made" in err) == (2, True)
