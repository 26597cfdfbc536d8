"""`nas extract`: shared weights as a network of its own, from the study that trained them or that searched on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from nas_cli.app import run
from nas_core.errors import NotFoundError, UsageError, VerificationError
from nas_core.relax import FixedPicker, Style
from nas_core.seeds import generator
from search_spaces.nasbench201.space import NasBench201, Size
from search_spaces.supernet.supernet import Supernet
from studies import extract as extraction
from studies.extract import extract, load_extracted, trial_to_extract
from studies.store.store import Store
from training.data import load
from training.evaluators.supernet import SupernetEvaluator
from training.export import load_network

Say = Callable[..., tuple[int, str, str]]

SMALL = ("--space", "nasbench201", "--size", "channels=4,cells=1", "--data", "digits", "-s", "split.limit=300")
ENAS = ("controller_steps=1", "aggregate=2", "candidates=2", "units=8")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a supernet `s`, a search `s-random` on it, and `own`, which trained what its supernet derived."""
    folder = tmp_path_factory.mktemp("extract")
    db = ("--db", str(folder / "nas.db"), "--seed", "3")
    assert run(["search", *SMALL, "--strategy", "spos", "-s", "strategy.epochs=2", "--study", "s", *db]) == 0
    again = ["--strategy", "random", "--evaluator", "supernet:s", "--trials", "3", "--study", "s-random"]
    assert run(["search", *SMALL[:4], *again, *db]) == 0
    settings = [word for option in ENAS for word in ("-s", f"strategy.{option}")]
    one_shot = ["--strategy", "enas", "-s", "strategy.epochs=2", *settings, "--epochs", "1", "--study", "own"]
    assert run(["search", *SMALL, *one_shot, *db]) == 0
    return folder


@pytest.fixture
def store(searched: Path) -> Iterator[Store]:
    with Store(f"sqlite:///{searched / 'nas.db'}") as opened:
        yield opened


def document(answer: tuple[int, str, str]) -> Any:
    code, out, err = answer
    assert code == 0, err
    return json.loads(out)


def test_the_network_of_a_search_on_a_supernet(say: Say, searched: Path, store: Store, folder: Path) -> None:
    db = ("--db", str(searched / "nas.db"))
    found = document(say("extract", "s-random:1", "--to", "net", "--json", *db))
    trial = store.trial(store.study("s-random"), 1)
    assert found["trial"] == "s-random:1"
    assert [Path(file).name for file in found["files"]] == ["weights.safetensors", "architecture.json", "card.json"]
    assert {path.name for path in (folder / "net").iterdir()} == {Path(file).name for file in found["files"]}
    # The accuracy is that of the search: the same weights, statistics and data.
    assert found["metrics"]["supernet_accuracy"] == trial.verdict.values[0]  # type: ignore[index]
    # The network is the space's own in the style of the supernet, and has the supernet's weights.
    network = load_extracted(folder / "net")
    task, size, space = load("digits").task, Size(channels=4, cells=1), NasBench201()
    by_hand = space.network(FixedPicker(space.assignment(trial.arch), Style.SUPERNET), task, size)
    by_hand.load_state_dict(safetensors.torch.load_file(folder / "net" / "weights.safetensors"))
    x = torch.randn(2, *task.input_shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(network(x), by_hand.eval()(x))
    assert found["metrics"]["params"] == sum(parameter.numel() for parameter in network.parameters())
    supernet = Supernet(space, task, size)
    supernet.load_state_dict(
        safetensors.torch.load_file(Path(store.study("s-random").spec.evaluator.facts.supernet.weights))
    )
    shared = dict(supernet.extract(trial.arch).named_parameters())
    assert shared.keys() == dict(network.named_parameters()).keys()
    assert all(torch.equal(parameter, shared[name]) for name, parameter in network.named_parameters())
    card = json.loads((folder / "net" / "card.json").read_text())
    assert (card["study"], card["trial"], card["supernet_of"]) == ("s-random", 1, "s")
    assert (card["style"], card["key"], card["metrics"]) == ("supernet", trial.arch.key, found["metrics"])


def test_the_best_of_a_study_that_derived_from_its_own_supernet(say: Say, searched: Path, folder: Path) -> None:
    code, out, err = say("extract", "own", "--db", str(searched / "nas.db"))
    files = ("weights.safetensors", "architecture.json", "card.json")
    assert (code, out.split()) == (0, [str(Path("extracted", "own-0", name)) for name in files])
    assert "supernet_accuracy 0." in err
    assert load_extracted(folder / "extracted" / "own-0").training is False
    card = json.loads((folder / "extracted" / "own-0" / "card.json").read_text())
    assert (card["supernet_of"], card["trial"]) == ("own", 0)


def test_the_same_files_again(say: Say, searched: Path, folder: Path) -> None:
    db = ("--db", str(searched / "nas.db"))
    for name in ("one", "two"):
        assert say("extract", "s-random", "--to", name, *db)[0] == 0
    for file in ("weights.safetensors", "architecture.json", "card.json"):
        assert (folder / "one" / file).read_bytes() == (folder / "two" / file).read_bytes()


def test_what_cannot_be_extracted(say: Say, searched: Path, folder: Path) -> None:
    db = ("--db", str(searched / "nas.db"))
    code, _, err = say("extract", "s", *db)
    assert (code, "--evaluator supernet:s" in err, "OTHER:N" in err) == (2, True, True)
    assert say("extract", "s:0", *db)[0] == 3
    assert say("extract", "absent", *db)[0] == 3
    assert say("extract", "s-random:7", *db)[0] == 3
    assert say("search", *SMALL, "--strategy", "random", "-n", "1", "--epochs", "1", "--study", "plain")[0] == 0
    code, _, err = say("extract", "plain")
    assert (code, "trains no supernet" in err, "nas export" in err) == (2, True, True)
    assert not list(folder.glob("extracted*"))


def test_weights_that_have_changed(say: Say, folder: Path) -> None:
    one = ("-s", "strategy.epochs=1", "--study", "s", "--then", "random", "-n", "1")
    assert say("search", *SMALL, "--strategy", "spos", *one)[0] == 0
    [weights] = folder.rglob("supernet/weights.safetensors")
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    code, _, err = say("extract", "s-random:0")
    assert (code, "are damaged" in err) == (7, True)
    weights.unlink()
    code, _, err = say("extract", "s-random:0")
    assert (code, "are gone" in err) == (7, True)
    assert not (folder / "extracted").exists()


def test_a_network_that_does_not_come_back_the_same_is_not_kept(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, trial = trial_to_extract(store, "s-random")
    right = load_extracted

    def wrong(folder: Path) -> torch.nn.Module:
        network = right(folder)
        with torch.no_grad():
            next(iter(network.parameters())).add_(0.01)
        return network

    monkeypatch.setattr(extraction, "load_extracted", wrong)
    with pytest.raises(VerificationError, match="does not answer as before"):
        extract(store, study, trial.arch, tmp_path / "net")
    assert list((tmp_path / "net").iterdir()) == []


def test_extracted_files_that_are_damaged(store: Store, tmp_path: Path) -> None:
    study, trial = trial_to_extract(store, "s-random")
    files = {path.name: path for path in extract(store, study, trial.arch, tmp_path)}
    description = json.loads(files["architecture.json"].read_text())
    files["architecture.json"].write_text(json.dumps({**description, "style": "odd"}))
    with pytest.raises(UsageError, match="its style is 'odd'"):
        load_extracted(tmp_path)
    plain = {name: value for name, value in description.items() if name != "style"}
    files["architecture.json"].write_text(json.dumps(plain))
    with pytest.raises(UsageError, match="does not hold the weights"):
        load_extracted(tmp_path)  # layers of the built network have other parameters
    assert load_network(files["architecture.json"]) is not None
    files["weights.safetensors"].unlink()
    with pytest.raises(NotFoundError):
        load_extracted(tmp_path)


MY_SPACE = """
from torch import nn

from nas_core.choice import Choice
from nas_core.relax import derive_by_choice
from nas_core.space import SearchSpace


class Mine(SearchSpace):
    name = "mine"
    tasks = frozenset({"image-classification"})
    choices = (Choice("act", ("relu", "tanh")),)

    def network(self, picker, task, size):
        act = picker.module("act", {"relu": nn.ReLU, "tanh": nn.Tanh})
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), act, nn.Linear(8, task.outputs))

    def derive(self, scores):
        return derive_by_choice(self, scores)


space = Mine()
"""


def test_a_space_of_the_users_own_travels_along(tmp_path: Path) -> None:
    from nas_core import moves, refs
    from training.checkpoint import write_tensors

    file = tmp_path / "my_space.py"
    file.write_text(MY_SPACE)
    space = refs.load(f"{file}:space", {}, "none", "space").object
    source = load("digits")
    write_tensors(tmp_path / "weights", Supernet(space, source.task, space.Size()).state_dict())
    evaluator = SupernetEvaluator(space, source, space.Size(), tmp_path / "weights", device="cpu")
    arch = moves.sample(space, generator("mine"))
    paths = extraction.write(evaluator, f"{file}:space", arch, tmp_path / "net", {"title": "mine"})
    assert paths[-1].read_text() == MY_SPACE
    file.unlink()
    network: Any = load_extracted(tmp_path / "net")
    assert network[2].__class__.__name__ == {"relu": "ReLU", "tanh": "Tanh"}[arch.values["act"]]  # type: ignore[index]
