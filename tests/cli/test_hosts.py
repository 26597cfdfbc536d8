"""`--hosts`: layers that are searched in several networks, from the command line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

Say = Callable[..., tuple[int, str, str]]

SPACE = ("--space", "evonorm", "--data", "digits", "-s", "split.limit=120", "--threads", "1", "--device", "cpu")
SMALL = ("--size", "width=4,depth=1", "-s", "checkpoint_seconds=0")
SEARCH = ("search", "--study", "s", *SPACE, *SMALL, "--hosts", "resnet,vgg", "--strategy", "random", "--epochs", "2")
OWN = """
from torch import nn

def net(task, slot):
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2), slot(4), nn.Flatten(), nn.Linear(36, task.outputs))

def plain(task, width):
    norm = nn.BatchNorm2d(width)
    return nn.Sequential(nn.Conv2d(1, width, 8), norm, nn.ReLU(), nn.Flatten(), nn.Linear(width, task.outputs))

def none(task):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, task.outputs))
"""
DRAWN = {"evonorm": "host=vgg,depth=1,stages=2", "activation": "host=resnet,depth=1,stages=2"}
KNOWN = ("--enqueue", "gn-relu,evonorm-b0", "--trials", "2")


def found(say: Say, *arguments: str) -> dict[str, object]:
    code, out, err = say(*arguments, "--json")
    assert code == 0, err
    document: dict[str, object] = json.loads(out)
    return document


def test_a_search_in_two_hosts(say: Say, folder: Path) -> None:
    """Metrics of one host are objectives and constraints; the study is resumed, shown and verified like any other."""
    code, _, err = say(
        *SEARCH, "--enqueue", "gn-relu,evonorm-b0", "--trials", "1", "--objective", "val_loss.vgg", "--objective",
        "val_loss:min", "--constraint", "val_accuracy.resnet>=0", "--screen", "blind",
    )  # fmt: skip
    assert code == 0, err
    code, _, err = say("resume", "s", "--trials", "2")
    assert code == 0, err
    study = found(say, "show", "s")
    assert study["evaluator"]["kind"] == "hosts"  # type: ignore[index]
    assert study["size"]["host"] == study["final_size"]["host"] == "resnet"  # type: ignore[index]
    for number in range(2):
        metrics: dict[str, float] = found(say, "show", f"s:{number}")["metrics"]  # type: ignore[assignment]
        assert metrics["val_loss"] == pytest.approx((metrics["val_loss.resnet"] + metrics["val_loss.vgg"]) / 2)
    assert say("verify", "s")[0] == 0


def test_a_layer_is_trained_in_the_hosts_of_its_study_or_in_others(say: Say, folder: Path) -> None:
    code, _, err = say(*SEARCH, "--enqueue", "evonorm-b0", "--trials", "1", "--objective", "val_loss.vgg")
    assert code == 0, err
    quick = ("train", "s:0", "--recipe", "quick", "--epochs", "1")
    both = found(say, *quick)["hosts"]
    assert [one["size"]["host"] for one in both] == ["resnet", "vgg"]  # type: ignore[attr-defined]
    other = found(say, *quick, "--hosts", "mobilenet")
    assert other["size"]["host"] == "mobilenet"  # type: ignore[index]
    assert other["size"]["width"] == 4  # type: ignore[index]
    large = found(say, *quick, "--size", "host=vgg,width=6,depth=1")
    assert (large["size"]["host"], large["size"]["width"]) == ("vgg", 6)  # type: ignore[index]
    assert say("export", "s:0/train-3", "--format", "safetensors,json", "--no-verify")[0] == 0
    code, out, _ = say("show", "s:0/train-2")
    assert code == 0
    assert "host=vgg" in out
    tops = found(say, "train", "s", *quick[2:], "--top", "1", "--hosts", "vgg,mobilenet")["hosts"]
    assert [one["size"]["host"] for one in tops] == ["vgg", "mobilenet"]  # type: ignore[attr-defined]
    assert [one["ranking"][0]["runs"] for one in tops] == [["s:0/train-2"], ["s:0/train-3"]]  # type: ignore[attr-defined]
    code, out, _ = say("train", "s", *quick[2:], "--top", "1")
    assert code == 0
    assert "in resnet, by mean val_loss" in out
    for words, said in (
        (("--hosts", "vggg"), "unknown host 'vggg'; did you mean 'vgg'?"),
        (("--hosts", "vgg", "--size", "host=resnet"), "--size has the host 'resnet', and --hosts vgg"),
        (("--hosts", "vgg,vgg"), "two hosts are called 'vgg'"),
        (("--hosts", "vgg,resnet", "--find-lr"), "--find-lr tests one network"),
    ):
        code, _, err = say(*quick, *words)
        assert code == 2
        assert said in err


@pytest.mark.slow  # plans of all hosts are in tests/compressors/test_hosts.py
@pytest.mark.parametrize("host", ["vgg", "resnet", "mobilenet", "efficientnet", "vit"])
@pytest.mark.parametrize("layer", ["bn-relu", "evonorm-s0", "evonorm-b0"])
def test_networks_of_hosts_are_made_smaller_or_refused_and_deployed(
    say: Say, folder: Path, host: str, layer: str
) -> None:
    """Of known layers."""
    search = ("search", "--study", "s", *SPACE, "--size", f"host={host}", "--strategy", "random", "--epochs", "1")
    assert say(*search, "--enqueue", layer, "--trials", "1")[0] == 0
    made_smaller_and_deployed(say, folder, "s:0")


@pytest.mark.parametrize(
    ("space", "trials"), [("activation", 1), *(pytest.param(name, 3, marks=pytest.mark.slow) for name in DRAWN)]
)
def test_networks_with_random_layers_are_made_smaller_or_refused_and_deployed(
    say: Say, folder: Path, space: str, trials: int
) -> None:
    data = ("--data", "digits", "-s", "split.limit=120", "--threads", "1", "--device", "cpu", "--epochs", "1")
    search = ("search", "--study", "s", "--space", space, *data, "--size", DRAWN[space])
    code, _, err = say(*search, "--strategy", "random", "--trials", str(4 * trials), "-s", "recipe.lr=0.001")
    assert code == 0, err
    complete = [each for each in json.loads(say("trials", "s", "--json")[1]) if each["state"] == "complete"]
    assert len(complete) >= trials
    for each in complete[:trials]:
        made_smaller_and_deployed(say, folder, each["address"])


def made_smaller_and_deployed(say: Say, folder: Path, address: str) -> None:
    """A compression works, or says which operator of which module is in its way before anything is trained; exports
    answer as the network."""
    import nas

    assert say("train", address, "--recipe", "quick", "--epochs", "1", "-s", "lr=0.001")[0] == 0
    compress = ("compress", address, "--method", "magnitude", "--target", "macs<=0.9x", "--recipe", "quick")
    compress = (*compress, "-s", "recipe.lr=0.001")
    code, _, err = say(*compress, "--plan")
    assert code in (0, 2), err
    if code == 2:
        assert re.search(r"\w+ in '[\w.]*' (is|takes|the|reads)|forward in", err), err
        assert say(*compress, "--epochs", "1")[0] == 2  # before any training
        assert found(say, "show", address)["state"] == "complete"
    else:
        code, _, err = say(*compress, "--epochs", "1")
        assert code == 0, err
    shutil.rmtree("out", ignore_errors=True)
    code, _, err = say("export", address, "--format", "python,safetensors,json", "--out", "out", "--no-verify")
    assert code == 0, err
    images = np.random.default_rng(0).integers(0, 17, (3, 8, 8)).astype(np.float32)
    np.savez(folder / "some.npz", images=images)
    code, told, err = say("infer", "out", "npz:some.npz", "--json")
    assert code == 0, err
    assert len(json.loads(told)) == 3
    network = nas.load(folder / "out")
    assert network(torch.from_numpy(images)[:, None]).shape == (3, 10)


def test_a_host_of_ones_own(say: Say, folder: Path) -> None:
    """What is found is said before anything is trained; another file is another study."""
    (folder / "net.py").write_text(OWN)
    search = ("search", "--study", "s", *SPACE, "--hosts", "net.py:net,net.py:plain(width=6)", "--strategy", "random")
    code, _, err = say(*search, "--epochs", "1", "--enqueue", "gn-relu", "--trials", "1")
    assert code == 0, err
    assert "host 'net.py:net': 1 place of the layer" in err
    assert "1 pair replaced: 1 (BatchNorm2d) with 2 (ReLU)" in err
    assert found(say, "show", "s:0")["metrics"]["val_accuracy.plain"] is not None  # type: ignore[index]
    assert len(found(say, "train", "s:0", "--recipe", "quick", "--epochs", "1")["hosts"]) == 2  # type: ignore[arg-type]
    code, _, err = say("export", "s:0/train-2", "--format", "safetensors,json")
    assert code == 0, err
    (folder / "net.py").write_text(OWN + "# changed\n")
    for words in (("resume", "s", "--trials", "2"), ("train", "s:0")):
        code, _, err = say(*words)
        assert code == 2
        assert "has changed since the study was made" in err
    code, _, err = say("search", *SPACE, "--hosts", "net.py:none")
    assert code == 2
    assert "host 'net.py:none' has no pair to put a layer in the place of" in err


def test_the_best_layer_of_a_network_of_ones_own_is_a_file(say: Say, folder: Path) -> None:
    """Which a process that cannot import this program has run before it is kept."""
    (folder / "net.py").write_text(OWN)
    search = ("search", "--study", "s", *SPACE, "--hosts", "net.py:plain(width=6)", "--strategy", "evonorm")
    code, _, err = say(*search, "-s", "strategy.founders=2", "--epochs", "1", "--trials", "4")
    assert code == 0, err
    code, _, err = say("export", "s", "--part", "layer", "--format", "python", "--out", "layer")
    assert code == 0, err
    (file,) = (folder / "layer").glob("*.py")
    assert "import nas" not in file.read_text()
    assert "val_accuracy" in file.read_text()


def test_brackets_continue_the_trainings_of_all_hosts(say: Say, folder: Path) -> None:
    search = (
        "search",
        "--study",
        "s",
        *SPACE,
        *SMALL,
        "--hosts",
        "vgg,mobilenet",
        "--epochs",
        "2",
        "--strategy",
        "asha",
    )
    code, _, err = say(*search, "-s", "strategy.eta=2", "--trials", "5")
    assert code == 0, err
    trials = json.loads(say("trials", "s", "--json")[1])
    promoted = [trial for trial in trials if trial["continues"] is not None and trial["state"] == "complete"]
    assert promoted
    assert all(trial["metrics"]["val_accuracy.mobilenet"] is not None for trial in promoted)
    assert say("verify", "s")[0] == 0


def test_the_configuration_comes_back(say: Say, folder: Path) -> None:
    code, printed, err = say(*SEARCH, *KNOWN, "--print-config")
    assert code == 0, err
    (folder / "again.yaml").write_text(printed)
    assert say("search", "again.yaml", "--print-config")[1] == printed
    assert "hosts:" in printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--space", "nasbench201", "--hosts", "vgg"), "space 'nasbench201' are no layers; leave it out"),
        (("--space", "evonorm", "--hosts", "resnet,vggg"), "unknown host 'vggg'; did you mean 'vgg'?"),
        (("--space", "evonorm", "--hosts", "gcn"), "host 'gcn' learns node-classification, and the data is image"),
        (("--space", "evonorm", "--data", "karate", "--hosts", "vgg"), "and the data is node-classification; use gcn"),
        (("--space", "evonorm", "--size", "host=rsnet"), "unknown host 'rsnet'; did you mean 'resnet'?"),
        (("--space", "evonorm", "--hosts", "vgg", "--objective", "val_accuracy.resnet"), "unknown metric"),
        (("--space", "evonorm", "--hosts", "vgg", "--evaluator", "told"), "trains none; leave it out"),
    ],
)
def test_what_does_not_fit_is_one_line(say: Say, folder: Path, arguments: tuple[str, ...], says: str) -> None:
    code, _, err = say("search", *arguments)
    assert code == 2
    assert says in err
    assert len(err.strip().splitlines()) <= 2
