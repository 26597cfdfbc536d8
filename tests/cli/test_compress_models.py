"""`nas compress MODEL`: an export, or a network of the user's own with weights, taken in as a training of no epochs."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from nas_core.user_files import load_file
from tests.cli.test_compress import METHOD, SPACE
from training.export import compared

Say = Callable[..., tuple[int, str, str]]

NETWORK = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=12, outputs=10):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(6, outputs),
        )

    def forward(self, x):
        return self.layers(x)


def net(width=12, outputs=10):
    return Net(width, outputs)


def two_inputs(task):
    return torch.zeros(2, *task.input_shape), torch.zeros(2, 3)


def one_input(task):
    return torch.zeros(3, *task.input_shape)


def nothing():
    return "no tensor"


torch.manual_seed(3)
ready = Net()
"""

LOOKS = '''

class Looks(Channels):
    """Says what it was given to trace the network with."""

    def __init__(self, subject, config):
        super().__init__(subject, config)
        if [tuple(one.shape) for one in subject.inputs] != [(3, 1, 8, 8)]:
            raise UsageError(f"inputs are {[tuple(one.shape) for one in subject.inputs]}")

    def compress(self, network, round):
        return super().compress(network.layers, round)


class Inner(Channels):
    def compress(self, network, round):
        return super().compress(network.layers, round)
'''

pytestmark = pytest.mark.usefixtures("forked_checks")

GIVEN = ["my_net.py:net", "--weights", "w.safetensors", "--data", "digits"]
INNER = ["--method", "method.py:Inner", "--epochs", "0"]


@pytest.fixture
def own(folder: Path) -> Path:
    (folder / "my_net.py").write_text(NETWORK)
    (folder / "method.py").write_text(METHOD + LOOKS)
    module, _ = load_file(Path("my_net.py"), "network")
    torch.manual_seed(1)
    safetensors.torch.save_file(module.Net().state_dict(), "w.safetensors")
    return folder


def runs(out: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(out)["runs"]
    return found


def test_a_network_of_ones_own_is_taken_in_with_its_weights(own: Path, say: Say) -> None:
    code, out, err = say("compress", *GIVEN, *INNER, "--json")
    assert code == 0, err
    assert "nas: 'my_net.py:net' is net-digits-1:0/train-1: val_accuracy " in err
    (run,) = runs(out)
    assert run["address"] == "net-digits-1:0/compress-1"
    given = safetensors.torch.load_file("w.safetensors")
    training = json.loads(say("show", "net-digits-1:0/train-1", "--json")[1])
    taken = safetensors.torch.load_file(training["files"][0]["path"])
    assert all(torch.equal(taken[name], tensor) for name, tensor in given.items())
    metrics = training["metrics"]
    assert run["metrics"]["base_params"] == metrics["params"] == sum(one.numel() for one in given.values()) - 12 * 2 - 1
    assert {"val_accuracy", "val_loss", "test_accuracy"} <= set(metrics)
    assert run["metrics"]["base_test_accuracy"] == metrics["test_accuracy"]
    assert [point["step"] for point in training["curve"]] == [0]
    shown = say("show", "net-digits-1:0/train-1")[1]
    assert "weights of  w.safetensors" in shown
    assert "recipe" not in shown
    # The same again is the same run and the same study; it is one of a trial as any other.
    again = say("compress", *GIVEN, *INNER, "--json")
    assert runs(again[1]) == [run]
    assert [one["study"] for one in json.loads(say("ls", "--json")[1])] == ["net-digits-1"]
    assert say("compress", "net-digits-1:0", *INNER, "--json")[1] == again[1]
    code, _, err = say("export", "net-digits-1", "--format", "safetensors,json", "--out", "out")
    assert code == 0, err
    card = (own / "out" / "net-digits-1-0.md").read_text()
    assert "A network that was given, not found, in study net-digits-1, with the weights of 'w.safetensors'." in card
    assert "nas train my_net.py:net --epochs 0 --data digits --weights w.safetensors" in card
    # The command of the card makes it again; it is there already.
    words = ["train", "my_net.py:net", "--epochs", "0", "--data", "digits", "--weights", "w.safetensors", "--json"]
    code, out, err = say(*words)
    assert code == 0, err
    assert [one["address"] for one in runs(out)] == ["net-digits-1:0/train-1"]


@pytest.mark.slow  # test_quantize.py and the test above have its parts
def test_ones_own_network_goes_the_whole_way(own: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken in, made smaller, trained, quantised, exported, run by lines that know nothing of this program."""
    monkeypatch.setattr(compared, "SECONDS", 0.02)
    inner = ["--method", "method.py:Inner", "--epochs", "1"]
    code, out, err = say("compress", *GIVEN, *inner, "--quantize", "int8", "--json")
    assert code == 0, err
    metrics = runs(out)[0]["metrics"]
    assert metrics["params"] < metrics["base_params"]
    assert metrics["int8_agreement"] > 0.8
    code, _, err = say("export", "net-digits-1:0/compress-1", "--format", "int8,safetensors,json", "--out", "out")
    assert code == 0, err
    Image.fromarray(np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)).save("out/a.png")
    card = (own / "out" / "net-digits-1-0-compress-1.md").read_text()
    script = re.findall(r"```python\n(import json.*?)```", card, re.S)[0]
    (own / "out" / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "-I", "script.py", "a.png"], cwd=own / "out", capture_output=True, text=True, check=True
    )
    assert "nas" not in re.findall(r"import (\w+)", script)
    answers = json.loads(say("infer", "out/net-digits-1-0-compress-1.int8.onnx", "out/a.png", "--json")[1])
    assert done.stdout.split()[0] == answers[0]["classes"][0]["class"]


@pytest.mark.parametrize("name", ["state.pt", "state.pth"])
def test_a_state_dictionary_of_torch_is_read_as_tensors_alone(own: Path, say: Say, name: str) -> None:
    torch.save(safetensors.torch.load_file("w.safetensors"), name)
    code, _, err = say("train", "my_net.py:net", "--epochs", "0", "--data", "digits", "--weights", name, "--json")
    assert code == 0, err
    taken = safetensors.torch.load_file(next((own / "nas-files").rglob("weights.safetensors")))
    given = safetensors.torch.load_file("w.safetensors")
    assert all(torch.equal(taken[key], tensor) for key, tensor in given.items())


def test_a_module_that_is_made_brings_its_weights(own: Path, say: Say) -> None:
    code, _, err = say("compress", "my_net.py:ready", "--data", "digits", *INNER, "--json")
    assert code == 0, err
    module, _ = load_file(Path("my_net.py"), "network")
    training = json.loads(say("show", "ready-digits-1:0/train-1", "--json")[1])
    taken = safetensors.torch.load_file(training["files"][0]["path"])
    assert all(torch.equal(taken[name], tensor) for name, tensor in module.ready.state_dict().items())


def test_an_export_is_compressed_on_its_own_data(own: Path, say: Say) -> None:
    """With the changes that an earlier compression has left, in another database."""
    (own / "two.py").write_text(SPACE)
    search = ["search", "--space", "two.py:Two", "--study", "a", "--trials", "2", "-s", "split.limit=200"]
    assert say(*search, "--threads", "1", "--epochs", "1")[0] == 0
    assert say("train", "a:1", "--epochs", "1", "-s", "batch_size=32")[0] == 0
    code, out, err = say("compress", "a:1", "--method", "method.py:Channels", "--epochs", "0", "--json")
    assert code == 0, err
    before = runs(out)[0]["metrics"]
    assert say("export", "a:1/compress-1", "--format", "safetensors,json", "--out", "out")[0] == 0
    described = json.loads((own / "out" / "a-1-compress-1.json").read_text())
    assert described["data"]["reference"] == "digits"
    assert described["data"]["split"]["limit"] == 200
    words = ["compress", "out/a-1-compress-1.json", "--method", "method.py:Channels", "--epochs", "0"]
    for db in ("other.db", "nas.db"):
        code, out, err = say(*words, "--db", db, "--json")
        assert code == 0, err
        (run,) = runs(out)
        # The same parts of the same data: what it came to then it comes to now.
        for name in ("val_accuracy", "test_accuracy", "params", "macs"):
            assert run["metrics"][f"base_{name}"] == before[name]
        assert run["metrics"]["params"] < before["params"]
        assert json.loads(say("show", "two-digits-1:0", "--db", db, "--json")[1])["key"] == described["key"]
    assert say(*words, "--db", "other.db", "--data", "digits", "--json")[0] == 0
    assert len(json.loads(say("ls", "--db", "other.db", "--json")[1])) == 1
    # What a search has found goes on being that: the study of the export is another one.
    assert {one["study"] for one in json.loads(say("ls", "--json")[1])} == {"a", "two-digits-1"}
    # What an export of it says is found again, too.
    code, _, err = say("export", "two-digits-1:0/compress-1", "--format", "safetensors,json", "--out", "out2")
    assert code == 0, err
    assert say("train", "out2/two-digits-1-0-compress-1.json", "--epochs", "0")[0] == 0


def test_inputs_of_the_users_are_what_the_network_is_traced_with(own: Path, say: Say) -> None:
    looks = ["--method", "method.py:Looks", "--epochs", "0"]
    code, _, err = say("compress", *GIVEN, *looks, "--inputs", "my_net.py:one_input", "--json")
    assert code == 0, err
    code, _, err = say("compress", *GIVEN, *looks)
    assert (code, "inputs are [(4, 1, 8, 8)]" in err) == (2, True)
    with_them = say("show", "net-digits-1:0/compress-1", "--json")[1]
    assert "my_net.py:one_input" in with_them


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("touched"),)


def _broken(name: str) -> None:
    """Weights that do not fit the network."""
    state = safetensors.torch.load_file("w.safetensors")
    match name:
        case "shape":
            state["layers.3.weight"] = torch.zeros(6, 11, 3, 3)
        case "nan":
            state["layers.7.weight"][0, 0] = float("nan")
        case "missing":
            del state["layers.3.bias"]
        case "more":
            state["layers.9.weight"] = torch.zeros(1)
    safetensors.torch.save_file(state, "w.safetensors")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("shape", "'w.safetensors': the tensor 'layers.3.weight' is [6, 11, 3, 3], that of the network [6, 12, 3, 3]"),
        ("nan", "'w.safetensors': the tensor 'layers.7.weight' holds NaN or infinite values"),
        ("missing", "'w.safetensors' lacks the tensor 'layers.3.bias' of the network"),
        ("more", "'w.safetensors' holds a tensor 'layers.9.weight', which the network does not have"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(own: Path, say: Say, broken: str, message: str) -> None:
    _broken(broken)
    code, _, err = say("compress", *GIVEN, *INNER)
    assert (code, message in err, err.count("\n")) == (2, True, 1), err
    assert nothing_stored(say)


def nothing_stored(say: Say) -> bool:
    code, out, _ = say("ls", "--json")
    return code == 3 or json.loads(out) == []


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["my_net.py:net", "--data", "digits"], 2, "makes a network without trained weights; name them by --weights"),
        (["my_net.py:net", "--weights", "w.safetensors"], 2, "name what it is trained on by --data"),
        (["my_net.py:net", "--weights", "gone.safetensors", "--data", "digits"], 3, "there are no weights at 'gone."),
        (["my_net.py:net", "--weights", "w.bin", "--data", "digits"], 3, "w.bin"),
        (["my_net.py:net", "--weights", "evil.pt", "--data", "digits"], 2, "'evil.pt' cannot be read as tensors alone"),
        (["my_net.py:net", "--weights", "list.pt", "--data", "digits"], 2, "'list.pt' holds other things than tensors"),
        (
            ["my_net.py:net(outputs=7)", "--weights", "seven.safetensors", "--data", "digits"],
            2,
            "gives 7 classes, the data",
        ),
        ([*GIVEN, "--method", "nonsense"], 2, "unknown compression method 'nonsense'"),
        ([*GIVEN, "--target", "macs<0.5"], 2, "target 'macs<0.5' is malformed"),
        (["gone.py:net", "--weights", "w.safetensors", "--data", "digits"], 3, "there is no file 'gone.py'"),
        (["./gone.json"], 3, "there is no file"),
        (["./w.safetensors"], 2, "is no trained network; name an export's .json"),
        (["a:0", "--data", "digits"], 2, "--weights and --data are for networks that are no study's"),
    ],
)
def test_what_cannot_be_taken_in_is_one_line(own: Path, say: Say, words: list[str], code: int, message: str) -> None:
    module, _ = load_file(Path("my_net.py"), "network")
    safetensors.torch.save_file(module.Net(outputs=7).state_dict(), "seven.safetensors")
    torch.save([torch.zeros(2)], "list.pt")
    Path("evil.pt").write_bytes(pickle.dumps({"layers.0.weight": Evil()}))
    method = [] if "--method" in words else INNER
    found, _, err = say("compress", *words, *method)
    assert (found, message in err, err.count("\n")) == (code, True, 1), err
    assert nothing_stored(say)
    assert not Path("touched").exists()


def test_what_was_taken_in_before_a_refusal_is_found_again(own: Path, say: Say) -> None:
    method = ["--method", "magnitude", "--epochs", "0"]
    for target, message in (("macs<=0.001x", "cannot be met"), ("macs<=2x", "is met already")):
        code, _, err = say("compress", *GIVEN, *method, "--target", target)
        assert (code, message in err, "net-digits-1:0/train-1" in err) == (2, True, True), err
    code, out, err = say("compress", *GIVEN, *INNER, "--json")
    assert code == 0, err
    assert json.loads(out)["of"] == "net-digits-1:0/train-1"
    assert [one["study"] for one in json.loads(say("ls", "--json")[1])] == ["net-digits-1"]
    assert say("show", "net-digits-1:0/train-2")[0] == 3


@pytest.mark.parametrize(
    ("inputs", "code", "message"),
    [
        ("my_net.py:two_inputs", 2, "--inputs 'my_net.py:two_inputs': the network does not run on them: TypeError"),
        ("my_net.py:nothing", 2, "--inputs 'my_net.py:nothing' gives str; return tensors"),
        ("my_net.py:gone", 3, "no object 'gone' in it"),
    ],
)
def test_inputs_that_are_none_are_one_line(own: Path, say: Say, inputs: str, code: int, message: str) -> None:
    found, _, err = say("compress", *GIVEN, *INNER, "--inputs", inputs)
    assert (found, message in err) == (code, True), err
    assert say("show", "net-digits-1:0/compress-1")[0] == 3


def test_a_file_that_has_changed_since_is_told(own: Path, say: Say) -> None:
    assert say("compress", *GIVEN, *INNER)[0] == 0
    # Other weights in the same file are another training.
    state = safetensors.torch.load_file("w.safetensors")
    safetensors.torch.save_file(
        {name: tensor * 1 for name, tensor in state.items()} | {"layers.7.bias": torch.ones(10)}, "w.safetensors"
    )
    assert json.loads(say("compress", *GIVEN, *INNER, "--json")[1])["of"] == "net-digits-1:0/train-2"
    (own / "my_net.py").write_text(NETWORK + "\n# other\n")
    for words, message in (
        (["net-digits-1:0"], "has changed since the study was made"),
        (GIVEN, "has another definition of space 'net'"),
    ):
        code, _, err = say("compress", *words, *INNER)
        assert (code, message in err, err.count("\n")) == (2, True, 1), err
    assert say("show", "net-digits-1:0/train-3")[0] == 3


def test_an_export_that_has_changed_or_does_not_fit_is_refused(own: Path, say: Say) -> None:
    assert say("train", "my_net.py:net", "--data", "digits", "--epochs", "1")[0] == 0
    assert say("export", "net-digits-1", "--format", "safetensors,json", "--out", "out")[0] == 0
    words = ["compress", "out/net-digits-1-0.json", *INNER, "--db", "other.db"]
    description = own / "out" / "net-digits-1-0.json"
    whole = json.loads(description.read_text())

    def refused(message: str, *more: str) -> None:
        code, _, err = say(*words, *more)
        assert (code, message in err, err.count("\n")) == (2, True, 1), err
        code, out, _ = say("ls", "--db", "other.db", "--json")
        assert code == 3 or json.loads(out) == []

    refused("is for image-classification, the data are node-classification", "--data", "karate")
    refused("the weights of 'out/net-digits-1-0.json' lie beside it; leave it out", "--weights", "w.safetensors")
    description.write_text(json.dumps({**whole, "data": {**whole["data"], "split_hash": "0"}}))
    refused("the data 'digits' are not what 'out/net-digits-1-0.json' was trained on")
    description.write_text(json.dumps({name: value for name, value in whole.items() if name != "data"}))
    refused("does not say what it was trained on; name it by --data")
    description.write_text(json.dumps({**whole, "data": {**whole["data"], "reference": "npz:gone.npz"}}))
    refused("was trained on 'npz:gone.npz', which cannot be read; name it by --data")
    description.write_text(json.dumps(whole))
    copy = own / "out" / "net-digits-1-0.space.py"
    copy.write_text(copy.read_text() + "\n# other\n")
    refused("was changed since 'out/net-digits-1-0.json' was written; put the original back")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["my_net.py:net", "--data", "digits", "--epochs", "0", "--seeds", "2"],
            "--epochs 0 trains nothing; leave out --seeds",
        ),
        (["a:0", "--epochs", "0"], "--epochs 0 takes the weights of a network that is no study's"),
        (["./x.json"], "'./x.json' is trained already; --epochs 0 takes it as it is"),
    ],
)
def test_a_training_of_no_epochs_is_of_given_weights(own: Path, say: Say, words: list[str], message: str) -> None:
    code, _, err = say("train", *words)
    assert (code, message in err) == (2, True), err
    assert nothing_stored(say)
