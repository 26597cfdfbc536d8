"""`nas compress`: a trained network made smaller by a method in a user's file, stored, resumed, exported, rebuilt."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

import nas
from nas_core.errors import UsageError
from nas_core.records import COMPRESS
from nas_core.strategy import State
from studies.store.store import Store
from tests.cli.conftest import said_in

Say = Callable[..., tuple[int, str, str]]
SMALL = ["--epochs", "1", "-s", "batch_size=32"]

SPACE = """
from torch import nn

from nas_core.choice import Choice
from nas_core.space import SearchSpace


class Two(SearchSpace):
    name = "two"
    tasks = frozenset({"image-classification"})
    choices = (Choice("width", (8, 12)),)

    def build(self, arch, task, size):
        width, channels = arch.values["width"], task.input_shape[0]
        return nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(6, task.outputs),
        )
"""

METHOD = '''
import torch
from torch import nn

from compressors.compressor import Change, Round
from nas_core.config import Config
from nas_core.errors import UsageError


class Settings(Config):
    keep: float = 0.5
    rounds: int = 1
    strange: bool = False


class Channels:
    """Keeps the channels of the first convolution with the largest weights."""

    Config = Settings
    needs = ()

    def __init__(self, subject, config):
        self.config, self.rounds = config, (Round(),) * config.rounds

    def compress(self, network, round):
        first, norm, second = network[0], network[1], network[3]
        if self.config.keep == 0:
            raise UsageError("nothing is to be kept")
        count = max(1, int(first.out_channels * self.config.keep) - round)
        kept = first.weight.detach().abs().sum((1, 2, 3)).topk(count).indices.sort().values
        first.weight = nn.Parameter(first.weight.detach()[kept])
        for name in ("weight", "bias"):
            setattr(norm, name, nn.Parameter(getattr(norm, name).detach()[kept]))
        norm.running_mean, norm.running_var = norm.running_mean[kept], norm.running_var[kept]
        second.weight = nn.Parameter(second.weight.detach()[:, kept])
        first.out_channels = norm.num_features = second.in_channels = count
        if self.config.strange:
            network[5].register_forward_hook(lambda module, inputs, output: output * 2)
        return Change(report={"0": {"kept": count, "all": list(range(count))}})


class Nothing:
    pass
'''


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a search of one trial, which is trained."""
    folder = tmp_path_factory.mktemp("original")
    (folder / "two.py").write_text(SPACE)
    (folder / "method.py").write_text(METHOD)
    search = ["search", "--space", "two.py:Two", "--study", "a", "--trials", "1", "-s", "split.limit=200"]
    said_in(folder, *search, "--threads", "1", "--epochs", "1")
    said_in(folder, "train", "a:0", *SMALL)
    return folder


@pytest.fixture
def trained(original: Path, folder: Path) -> Path:
    return Path(shutil.copytree(original, folder, dirs_exist_ok=True))


@pytest.mark.usefixtures("forked_checks")
def test_a_compressed_network_is_a_model_like_any_other(trained: Path, say: Say) -> None:
    code, out, err = say("compress", "a:0", "--method", "method.py:Channels", "--epochs", "2", "--json")
    assert code == 0, err
    (run,) = json.loads(out)["runs"]
    metrics = run["metrics"]
    assert run["address"] == "a:0/compress-1"
    width = json.loads(say("show", "a:0", "--json")[1])["architecture"]["width"]
    kept = width // 2
    # Two convolutions, a normalisation and a linear layer, counted by hand.
    assert metrics["params"] == 9 * kept + 2 * kept + 54 * kept + 6 + 60 + 10
    assert metrics["macs"] == 64 * (9 * kept + 54 * kept) + 60
    assert metrics["base_macs"] == 64 * (9 * width + 54 * width) + 60
    assert {"base_val_accuracy", "val_accuracy", "test_accuracy"} <= set(metrics)
    shown = say("show", "a:0/compress-1")[1]
    assert "a:0/train-1" in shown
    assert "method.py:Channels" in shown
    assert re.search(rf"parts, round 0\npart\s+kept\s+0\s+{kept}\n", shown), shown
    assert "compressions" in say("show", "a:0")[1]
    steps = [point["step"] for point in json.loads(say("show", "a:0/compress-1", "--json")[1])["curve"]]
    assert steps == [0, 1, 2]
    # Once more is the same one; as it is trained on, another.
    again = say("compress", "a:0/train-1", "--method", "method.py:Channels", "--epochs", "2", "--json")[1]
    assert json.loads(again)["runs"] == [run]
    front = json.loads(say("front", "a", "--compressed", "--json")[1])
    accuracies = {one["address"]: one["metrics"]["val_accuracy"] for one in front}
    better = json.loads(say("show", "a:0/train-1", "--json")[1])["metrics"]["val_accuracy"] > metrics["val_accuracy"]
    assert list(accuracies) == ["a:0/train-1", "a:0/compress-1"][not better :]
    assert "a:0/compress-1" in say("front", "a", "--compressed")[1]
    assert say("front", "a", "--compressed", "--reference", "val_accuracy=0")[0] == 2
    code, out, err = say("export", "a:0/compress-1", "--format", "onnx,pt2,safetensors,json", "--out", "out")
    assert code == 0, err
    network = nas.load("out/a-0-compress-1.json")
    stored = safetensors.torch.load_file(run["files"][0]["path"])
    assert all(torch.equal(tensor, stored[name]) for name, tensor in network.state_dict().items())
    assert network[0].out_channels == kept
    card = (trained / "out" / "a-0-compress-1.md").read_text()
    assert f"{metrics['params']:,.0f}" in card
    assert "made smaller by method.py:Channels from a:0/train-1" in card
    # What a compression left can be compressed again, and be a teacher.
    code, out, err = say("compress", "a:0/compress-1", "--method", "method.py:Channels", "--epochs", "0", "--json")
    assert code == 0, err
    (second,) = json.loads(out)["runs"]
    assert second["address"] == "a:0/compress-2"
    assert second["metrics"]["params"] < metrics["params"] == second["metrics"]["base_params"]
    assert say("train", "a:0", *SMALL, "--teacher", "a:0/compress-1")[0] == 0
    assert say("verify", "a")[0] == 0
    damaged = json.loads((trained / "out" / "a-0-compress-1.json").read_text())
    damaged["changes"]["attributes"]["0"]["out_chanels"] = 3
    (trained / "out" / "a-0-compress-1.json").write_text(json.dumps(damaged))
    with pytest.raises(UsageError, match="'0' \\(Conv2d\\) has no attribute 'out_chanels'"):
        nas.load("out/a-0-compress-1.json")


def test_rounds_that_are_interrupted_come_to_the_same(trained: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = ["--method", "method.py:Channels", "--epochs", "1", "-s", "keep=0.7", "-s", "rounds=3", "--json"]
    code, out, err = say("compress", "a:0", *rounds)
    assert code == 0, err
    (whole,) = json.loads(out)["runs"]
    width = json.loads(say("show", "a:0", "--json")[1])["architecture"]["width"]
    for number in range(3):
        width = max(1, int(width * 0.7) - number)
    assert whole["metrics"]["params"] == (9 + 2 + 54) * width + 6 + 60 + 10

    class Killed(BaseException):
        pass

    seen: list[int] = []
    report = Store.report

    def stopped(self: Store, *given: object, **others: object) -> None:
        report(self, *given, **others)  # type: ignore[arg-type]
        seen.append(1)
        if len(seen) % 2 == 0:
            raise Killed

    monkeypatch.setattr(Store, "report", stopped)
    for _ in range(6):
        try:
            code, out, err = say("compress", "a:0", *rounds, "-s", "recipe.lr_end=0")  # the same, by another name
        except Killed:
            continue
        break
    monkeypatch.setattr(Store, "report", report)
    code, out, err = say("compress", "a:0", *rounds, "-s", "recipe.lr_end=0")
    assert code == 0, err
    (resumed,) = json.loads(out)["runs"]
    assert len(seen) >= 4
    assert resumed["address"] == "a:0/compress-2"
    assert resumed["metrics"] == whole["metrics"]
    one, other = (safetensors.torch.load_file(run["files"][0]["path"]) for run in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    with Store("sqlite:///nas.db", reading=True) as store:
        runs = store.below(store.trial(store.study("a"), 0), COMPRESS)
        assert [(run.state, run.tries) for run in runs] == [(State.COMPLETE, 0)] * 2
        assert runs[0].changes == runs[1].changes


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--method", "method.py:Nothing"], 2, "is no class with Config, needs, rounds and compress"),
        (["--method", "gone.py:X"], 3, "there is no file 'gone.py'"),
        (["--method", "magnitud"], 2, "unknown compression method 'magnitud'"),
        (["--method", "method.py:Channels", "-s", "kep=1"], 2, "unknown key 'kep'"),
        (["--method", "method.py:Channels", "-s", "rounds=0"], 2, "rounds is (); it must be a tuple"),
        (["--method", "method.py:Channels", "-s", "strange=true", "--epochs", "0"], 7, "cannot be rebuilt"),
        (
            ["--method", "method.py:Channels", "--target", "macs<=0.01x", "--epochs", "0"],
            7,
            "has not reached macs<=0.01x: macs is",
        ),
        (
            ["--method", "method.py:Channels", "-s", "keep=100", "--epochs", "0"],
            1,
            "compression a:0/compress-1 failed: exception",
        ),
    ],
)
def test_what_cannot_be_is_one_line(trained: Path, say: Say, options: list[str], code: int, words: str) -> None:
    found, _, err = say("compress", "a:0", *options)
    assert (found, words in err, "Traceback" in err) == (code, True, False), err


def test_what_is_refused_has_failed(trained: Path, say: Say) -> None:
    code, _, err = say("compress", "a:0", "--method", "method.py:Channels", "-s", "keep=0", "--epochs", "0")
    assert (code, err) == (2, "nas: nothing is to be kept\n")
    with Store("sqlite:///nas.db", reading=True) as store:
        (run,) = store.below(store.trial(store.study("a"), 0), COMPRESS)
        assert (run.state, run.verdict.reason) == (State.FAILED, "refused: nothing is to be kept")


def test_it_needs_a_trained_network(trained: Path, say: Say) -> None:
    code, _, err = say("compress", "a:0/compress-3", "--method", "method.py:Channels")
    assert (code, "there is no compression 'a:0/compress-3'; run 'nas compress a:0' first" in err) == (3, True)


def test_masked_weights_stay_zero_to_the_file_that_is_kept(trained: Path, say: Say) -> None:
    """A target of density: reported, reached after training, counted from the file; in rounds from the start."""
    masks = ["--method", "mask-magnitude", "--target", "density<=0.3", "--epochs", "1", "--json"]
    code, out, err = say("compress", "a:0", *masks)
    assert code == 0, err
    (run,) = json.loads(out)["runs"]
    stored = safetensors.torch.load_file(next(file for file in run["files"] if file["kind"] == "weights")["path"])
    weights = [tensor for tensor in stored.values() if tensor.dim() >= 2]
    total = sum(tensor.numel() for tensor in weights)
    left = sum(int(tensor.count_nonzero()) for tensor in weights)
    assert left == int(0.3 * total)
    assert run["metrics"]["density"] == left / total
    once = ["--epochs", "1", "--json"]
    code, out, err = say("compress", "a:0", "--method", "lottery", "--target", "density<=0.6", *once)
    assert code == 0, err
    (run,) = json.loads(out)["runs"]
    assert len(json.loads(say("show", run["address"], "--json")[1])["curve"]) == 4  # at the start, and three rounds
    assert run["metrics"]["density"] == int(0.6 * total) / total
    # What is masked already.
    chained = ["compress", run["address"], "--epochs", "0"]
    code, out, err = say(*chained, "--method", "mask-random", "--target", "density<=0.5x", "--json")
    assert code == 0, err
    (again,) = json.loads(out)["runs"]
    assert again["metrics"]["base_density"] == run["metrics"]["density"] > again["metrics"]["density"]
    code, _, err = say(*chained, "--method", "snip", "--target", "density<=0.1")
    assert (code, "the weights before the training of this network are not known" in err) == (2, True), err
