"""`nas compress` by the methods that are listed: targets, plans, proofs, chains, distillation, exports; bad input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import safetensors.torch
import torch

import nas
from nas_core.errors import MachineError, UsageError
from nas_core.records import COMPRESS
from nas_core.strategy import State
from studies.jobs import proof, rounds
from studies.store.store import Store
from tests.cli.conftest import said_in

Say = Callable[..., tuple[int, str, str]]

SPACE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, channels, outputs):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.inner = nn.Sequential(
            nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 8, 3, padding=1)
        )
        self.head = nn.Linear(8, outputs)

    def forward(self, x):
        x = self.stem(x)
        return self.head((x + self.inner(x)).mean((2, 3)))


def net(task):
    return Net(task.input_shape[0], task.outputs)
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network that is trained."""
    folder = tmp_path_factory.mktemp("original")
    (folder / "my_net.py").write_text(SPACE)
    said_in(folder, "train", "my_net.py:net", "--data", "digits", "-s", "batch_size=64", "--epochs", "2")
    return folder


@pytest.fixture
def trained(original: Path, folder: Path, forked_checks: None) -> str:
    """The trained network in a folder to work in."""
    shutil.copytree(original, folder, dirs_exist_ok=True)
    return "net-digits-1"


@pytest.fixture
def subject(trained: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same, with proofs in this process, which is quicker than a fresh one."""
    monkeypatch.setattr(rounds, "prove", proof.compared)
    return trained


def compressed(say: Say, address: str, *words: str) -> dict[str, Any]:
    code, out, err = say("compress", address, *words, "--json")
    assert code == 0, err
    (run,) = json.loads(out)["runs"]
    found: dict[str, Any] = run
    return found


def weights(run: dict[str, Any]) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(next(one["path"] for one in run["files"] if one["kind"] == "weights"))


def test_a_target_is_planned_reached_proved_and_deployed(
    trained: str, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof of the first network is a fresh process, as for users."""
    subject = trained
    half = ["--method", "magnitude", "--target", "macs<=0.5x"]
    code, out, err = say("compress", subject, *half, "--plan", "--json")
    assert code == 0, err
    plan = json.loads(out)
    assert {part["name"]: part["units"] for part in plan["parts"]} == {"stem.0": 8, "inner.0": 12}
    least, middle, now = plan["reachable"]["macs"]
    assert least < plan["costs"]["macs"] <= now / 2 < now
    assert least < middle < now
    assert "nothing is done" in say("compress", subject, *half, "--plan")[1]
    with Store("sqlite:///nas.db", reading=True) as store:
        assert not store.below(store.trial(store.study(subject), 0), COMPRESS)
    run = compressed(say, subject, *half, "--epochs", "1")
    assert run["metrics"]["macs"] == plan["costs"]["macs"]
    assert run["metrics"]["params"] == plan["costs"]["params"]
    assert (
        sum(tensor.numel() for name, tensor in weights(run).items() if "running" not in name) - 2
        == (run["metrics"]["params"])
    )  # the counters of batches of two normalisations are no parameters
    shown = say("show", run["address"])[1]
    assert "macs<=0.5x" in shown
    assert "inner.0" in shown
    code, _, err = say("export", run["address"], "--format", "safetensors,json", "--out", "out")
    assert code == 0, err
    network = nas.load(f"out/{subject}-0-compress-1.json")
    assert network.inner[0].out_channels == weights(run)["inner.0.weight"].shape[0] < 12
    monkeypatch.setattr(rounds, "prove", proof.compared)
    # Another target scores nothing again; what was cut is cut further.
    again = compressed(say, run["address"], "--method", "magnitude", "--target", "params<=0.7x", "--epochs", "0")
    assert again["metrics"]["params"] <= 0.7 * run["metrics"]["params"]


def test_units_that_a_training_has_made_zero_go_and_nothing_else(subject: str, say: Say) -> None:
    run = compressed(say, subject, "--method", "hesso", "--target", "macs<=0.6x", "--epochs", "2")
    macs = run["metrics"]["macs"]
    assert macs <= 0.6 * run["metrics"]["base_macs"]
    curve = json.loads(say("show", run["address"], "--json")[1])["curve"]
    assert [point["step"] for point in curve] == [0, 1, 2]


def test_the_network_before_teaches(subject: str, say: Say) -> None:
    plain = ["--method", "random", "--target", "params<=0.6x", "--epochs", "1"]
    run = compressed(say, subject, *plain, "--distill", "-s", "recipe.distillation.alpha=0.5")
    assert run["recipe"]["teacher"]["from"] == f"{subject}:0/train-1"
    assert run["recipe"]["recipe"]["distillation"]["alpha"] == 0.5
    assert compressed(say, subject, *plain)["address"] != run["address"]


def test_adapters_recover_what_is_left(subject: str, say: Say) -> None:
    spa = ["--method", "magnitude", "--target", "params<=0.6x", "--recover", "spa", "--epochs", "1"]
    run = compressed(say, subject, *spa, "-s", "recipe.adapters.rank=2")
    assert run["recipe"]["recipe"]["adapters"] == {"rank": 2}
    again = compressed(say, run["address"], "--method", "magnitude", "--target", "params<=0.8x", "--epochs", "1")
    assert "adapters" not in again["recipe"]["recipe"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--method", "magnitud"], "unknown compression method 'magnitud'; did you mean 'magnitude'?"),
        (["--method", "magnitude", "--target", "macs<=0.5x", "--recover", "luck"], "unknown recovery 'luck'"),
        (["--method", "random", "--target", "macs<=0.5x", "--distill", "--epochs", "0"], "distill: nothing is trained"),
        (["--quantize", "int8", "--recover", "spa"], "recover spa: nothing is trained"),
        (["--method", "mask-random", "--target", "density<=0.5", "--round-to", "8"], "leaves widths as they are"),
        (["--quantize", "int8", "--ignore", "stem"], "nothing is changed without a --method"),
        (["--method", "magnitude", "--target", "macs<0.5"], "target 'macs<0.5' is malformed"),
        (["--method", "magnitude", "--target", "mac<=0.5x"], "unknown cost of a target 'mac'; did you mean 'macs'?"),
        (
            ["--method", "magnitude", "--target", "macs<=1"],
            "target 'macs<=1' cannot be met: the least that this network can come to is macs=",
        ),
        (["--method", "magnitude", "--target", "macs<=2x"], "target 'macs<=2x' is met already, with "),
        (["--method", "magnitude", "--target", "macs<=0.5x", "--target", "macs<=9"], "name each cost once"),
        (
            ["--method", "magnitude", "--target", "macs<=0.5x", "--ignore", "inner.9"],
            "unknown module to ignore 'inner.9'; did you mean 'inner.",
        ),
        (
            ["--method", "magnitude", "--target", "macs<=0.5x", "--ignore", "inner", "--ignore", "stem"],
            "no unit of the network can be removed",
        ),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(subject: str, say: Say, words: list[str], said: str) -> None:
    code, _, err = say("compress", subject, *words)
    assert (code, said in err, err.count("\n") <= 2, "Traceback" in err) == (2, True, True, False), err
    untouched(subject, say)


def untouched(subject: str, say: Say) -> None:
    """Nothing of it was compressed, and its files are what they were."""
    with Store("sqlite:///nas.db", reading=True) as store:
        assert not store.below(store.trial(store.study(subject), 0), COMPRESS)
    assert say("verify", subject)[0] == 0


STEEP = """
from torch import nn


class Steep(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.hidden, self.head = nn.Linear(64, 8), nn.Linear(8, outputs)

    def forward(self, x):
        x = self.hidden(x.flatten(1))
        if x.sum() > 0:
            x = x.relu()
        return self.head(x)


def steep(task):
    return Steep(task.outputs)
"""


def test_a_network_that_cannot_be_traced_is_refused_with_the_line(folder: Path, say: Say) -> None:
    (folder / "steep.py").write_text(STEEP)
    assert say("train", "steep.py:steep", "--data", "digits", "--epochs", "1")[0] == 0
    for method in ("magnitude", "hesso"):
        code, _, err = say("compress", "steep-digits-1", "--method", method, "--target", "macs<=0.5x", "--epochs", "1")
        assert (code, "in Steep at `if x.sum() > 0:`" in err, err.count("\n") <= 2) == (2, True, True), err
    untouched("steep-digits-1", say)


def test_data_that_are_gone_are_named(folder: Path, say: Say) -> None:
    (folder / "my_net.py").write_text(SPACE)
    images = numpy.random.default_rng(0).integers(0, 256, (90, 8, 8, 1), "uint8")
    numpy.savez("made.npz", images=images, labels=numpy.arange(90) % 3)
    code, _, err = say("train", "my_net.py:net", "--data", "npz:made.npz", "--epochs", "1")
    assert code == 0, err
    Path("made.npz").rename("away.npz")
    for method in ("taylor", "magnitude"):
        code, _, err = say("compress", "net-npz-1", "--method", method, "--target", "macs<=0.5x", "--epochs", "0")
        assert (code, "made.npz" in err, err.count("\n") <= 2) == (3, True, True), err
    Path("away.npz").rename("made.npz")
    untouched("net-npz-1", say)


def test_weights_that_are_no_numbers_are_refused(subject: str, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    from training import networks

    load = networks.load_trained

    def spoiled(*arguments: Any) -> Any:
        network = load(*arguments)
        with torch.no_grad():
            network.head.bias[0] = torch.nan
        return network

    monkeypatch.setattr(networks, "load_trained", spoiled)
    code, _, err = say("compress", subject, "--method", "magnitude", "--target", "macs<=0.5x", "--epochs", "0")
    assert (code, "are no numbers: 'head.bias' has NaN" in err) == (2, True), err


def test_a_proof_that_fails_keeps_nothing(subject: str, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the proof finds another network than the one that is said, exit 7, and no run is complete."""
    from compressors.structured import Magnitude

    whole = Magnitude.compress

    def spoiled(self: Any, network: Any, round: int) -> Any:
        change = whole(self, network, round)
        with torch.no_grad():
            network.head.bias[0] += 1
        return change

    monkeypatch.setattr(Magnitude, "compress", spoiled)
    code, _, err = say("compress", subject, "--method", "magnitude", "--target", "macs<=0.5x", "--epochs", "0")
    assert (code, "is not what it should be" in err) == (7, True), err
    with Store("sqlite:///nas.db", reading=True) as store:
        (run,) = store.below(store.trial(store.study(subject), 0), COMPRESS)
        assert run.state != State.COMPLETE
    assert not list(Path("nas-files").rglob("compressed.safetensors"))


def test_a_full_disk_leaves_the_original_and_a_run_that_goes_on(
    subject: str, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas_core import files
    from training import checkpoint

    write = files.write_atomically

    def full(path: Path, content: bytes) -> None:
        if "compress" in str(path):
            raise MachineError(f"cannot write '{path}': no space left on device")
        write(path, content)

    half = ["--method", "magnitude", "--target", "macs<=0.5x", "--epochs", "0"]
    with monkeypatch.context() as patched:
        for module in (files, checkpoint):
            patched.setattr(module, "write_atomically", full)
        code, _, err = say("compress", subject, *half)
        assert (code, "no space left" in err) == (5, True), err
    run = compressed(say, subject, *half)
    assert run["address"].endswith("compress-1")


def test_the_same_from_python(subject: str, say: Say) -> None:
    words = ["--method", "random", "--target", "params<=0.7x", "--epochs", "0"]
    run = compressed(say, subject, *words)
    (study,) = nas.studies()
    (same,) = study.compress("random", target=["params<=0.7x"], epochs=0)
    assert same["address"] == run["address"]
    (more,) = study.compress("random", of="compress-1", target=["params<=0.9x"], epochs=0, settings={"rounds": 2})
    assert more["metrics"]["params"] <= 0.9 * same["metrics"]["params"]
    with pytest.raises(UsageError, match="name a method"):
        study.compress()
