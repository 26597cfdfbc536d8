"""What there is to search with: `nas spaces|strategies|data ...`, `nas doctor`, and shell completion."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy
import pytest

import search_spaces
import strategies
from nas_cli import doctor
from strategies.evolution.regularized import RegularizedEvolution
from training.data import BUILTIN as DATA

Said = Callable[..., tuple[int, str, str]]

GOOD = '''"""A space of its own file."""
from nas_core.choice import Choice, When
from nas_core.space import SearchSpace

class Mine(SearchSpace):
    name = "mine"
    tasks = frozenset({"image-classification"})
    choices = (
        Choice("depth", (1, 2), ordered=True),
        Choice("kind", ("plain", "gated")),
        Choice("gate", ("relu", "silu", "tanh"), when=(When("kind", ("gated",)),)),
    )

    def build(self, arch, task, size):
        from torch import nn
        return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * task.input_shape[0], task.outputs))

space = Mine()
'''

SIX = "nas_core.testing.trait_spaces:Six"
STRATEGY = '''"""Proposes at random, badly."""
from nas_core import moves
from nas_core.config import Config as Base
from nas_core.seeds import generator
from nas_core.strategy import Proposal

class Bad:
    class Config(Base):
        pass

    def __init__(self, setting, config):
        self.setting, self.count = setting, 0

    def ask(self, number, pending):
        self.count += 1  # an ask that changes something
        return Proposal(moves.sample(self.setting.space, generator(number, self.count)))

    def tell(self, outcome):
        pass
'''


FORGETS = '''"""Trains paths, and does not keep its optimiser."""
from strategies.one_shot.spos import Spos

class Forgets(Spos):
    def load_state_dict(self, state):
        self.supernet.load_state_dict(state["weights"]["supernet"])
'''


def document(said: tuple[int, str, str]) -> Any:
    code, out, err = said
    assert (code, err) == (0, "")
    return json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


# -- spaces ---------------------------------------------------------------------------------------------------


def test_spaces_list_names_every_built_in_space(say: Said) -> None:
    code, out, err = say("spaces", "list")
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line for line in out.splitlines()[1:]}
    assert list(rows) == list(search_spaces.BUILTIN)
    assert "15,625" in rows["nasbench201"]
    found = {space["name"]: space for space in document(say("spaces", "list", "--json"))}
    assert found["nasbench201"]["architectures"] == 5**6
    assert found["nasbench_graph"]["at_most"] == 9**5
    assert all(space["what"] and space["tasks"] for space in found.values())


def test_spaces_show_counts_what_has_no_closed_form(say: Said) -> None:
    found = document(say("spaces", "show", "nasbench_graph", "--json"))
    assert found["architectures"] == 9 * 9**4 - 9
    assert found["sizes"]["presets"]["full"] == {"hidden": 256, "dropout": 0.7}
    assert found["choices"][0]["name"] == "topology"
    assert len(found["choices"][0]["options"]) == 9
    out = say("spaces", "show", "nasbench_graph")[1]
    assert "59,040" in out
    assert "hidden\t64\t256\tint, ≥ 2" in out


def test_spaces_show_a_space_in_a_file(say: Said, folder: Path) -> None:
    (folder / "mine.py").write_text(GOOD)
    code, out, err = say("spaces", "show", "mine.py:space")
    assert (code, err) == (0, "")
    assert out.startswith("A space of its own file.")
    assert "gate\t\trelu, silu, tanh\tkind is gated" in out
    found = document(say("spaces", "show", "mine.py:space", "--json"))
    assert found["architectures"] == 2 * (1 + 3)
    assert found["choices"][2]["when"] == {"kind": ["gated"]}
    assert len(found["file_hash"]) == 16


def test_a_space_with_arguments(say: Said) -> None:
    two, three = (document(say("spaces", "show", f"regnet(stages={n})", "--json")) for n in (2, 3))
    assert two["architectures"] != three["architectures"]


def test_spaces_check_accepts_a_good_space(say: Said, folder: Path) -> None:
    (folder / "mine.py").write_text(GOOD)
    assert say("spaces", "check", "mine.py:space") == (0, "ok\n", "")
    assert document(say("spaces", "check", "mine.py:space", "--json")) == {
        "space": "mine.py:space",
        "ok": True,
        "findings": [],
    }


@pytest.mark.parametrize(
    ("good", "bad", "finding"),
    [
        ("task.outputs)", "task.outputs + 1)", "instead of (4, 10)"),
        ('when=(When("kind"', 'when=(When("knid"', "'knid', which is no earlier choice"),
        ("        from torch import nn\n", "        return 1 / 0\n", "ZeroDivisionError"),
    ],
)
def test_spaces_check_says_what_to_fix(say: Said, folder: Path, good: str, bad: str, finding: str) -> None:
    (folder / "mine.py").write_text(GOOD.replace(good, bad))
    code, out, err = say("spaces", "check", "mine.py:space")
    assert code == 1
    assert finding in out
    assert err.startswith("nas: space 'mine.py:space' breaks its contract")
    assert len(err.splitlines()) == 1
    code, out, _ = say("spaces", "check", "mine.py:space", "--json")
    assert code == 1
    assert any(finding in line for line in json.loads(out)["findings"])


def test_a_space_of_ones_own_may_import_torch(say: Said, folder: Path) -> None:
    (folder / "mine.py").write_text(GOOD.replace('name = "mine"', 'name = "mine"\n    import torch'))
    code, out, err = say("spaces", "check", "mine.py:space")
    assert code == 0, out + err


# -- strategies -----------------------------------------------------------------------------------------------


def test_strategies_list_names_every_built_in_strategy(say: Said) -> None:
    code, out, err = say("strategies", "list")
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line.split()[1] for line in out.splitlines()[1:]}
    assert list(rows) == list(strategies.ALL)
    assert {name for name, kind in rows.items() if kind == "one-shot"} == set(strategies.ONE_SHOT)
    listed = document(say("strategies", "list", "--json"))
    assert all(found["what"] for found in listed)
    assert {found["name"]: found["kind"] for found in listed} == rows


@pytest.mark.parametrize("name", strategies.ONE_SHOT)
def test_what_is_listed_of_a_one_shot_strategy_is_what_it_says_of_itself(say: Said, name: str) -> None:
    listed = {found["name"]: found["what"] for found in document(say("strategies", "list", "--json"))}
    shown = document(say("strategies", "show", name, "--json"))
    assert shown["kind"] == "one-shot"
    assert " ".join(shown["what"].split()).startswith(listed[name].removesuffix(" ..."))
    assert {"epochs", "batch_size"} <= {setting["name"] for setting in shown["settings"]}


def test_strategies_show_the_settings_of_a_one_shot_strategy(say: Said) -> None:
    code, out, err = say("strategies", "show", "spos")
    assert (code, err) == (0, "")
    assert "ECCV" in out
    assert "kind: one-shot: it trains a supernet" in out
    assert "kind: black-box" in say("strategies", "show", "random")[1]


def test_strategies_show_settings_with_defaults_and_ranges(say: Said) -> None:
    settings = {one["name"]: one for one in document(say("strategies", "show", "local-search", "--json"))["settings"]}
    assert settings["move"]["default"] == "first"
    assert settings["move"]["type"] == "first or best"
    code, out, err = say("strategies", "show", "regularized-evolution")
    assert (code, err) == (0, "")
    assert "AAAI 2019" in out
    row = next(line for line in out.splitlines() if line.startswith("population"))
    default = RegularizedEvolution.Config().population
    assert row.split()[:5] == ["population", str(default), "int,", "1", "to"]
    assert f"nas search --strategy regularized-evolution -s strategy.population={default}" in out
    assert "it has no settings" in say("strategies", "show", "random")[1]


def test_strategies_check(say: Said, folder: Path) -> None:
    (folder / "mine.py").write_text(GOOD)
    (folder / "bad.py").write_text(STRATEGY)
    assert say("strategies", "check", "random", "--space", "mine.py:space") == (0, "ok\n", "")
    code, out, err = say("strategies", "check", "bad.py:Bad", "--space", "mine.py:space")
    assert code == 1
    assert "answers" in out
    assert "breaks its contract" in err


def test_strategies_check_a_one_shot_strategy(say: Said, folder: Path) -> None:
    small = ("--size", "channels=2,cells=1")
    assert say("strategies", "check", "spos", *small) == (0, "ok\n", "")
    (folder / "bad.py").write_text(FORGETS)
    code, out, err = say("strategies", "check", "bad.py:Forgets", *small)
    assert code == 1
    assert "an instance that was given the state after one epoch" in out
    assert "breaks its contract" in err


def test_strategies_check_says_why_a_space_is_refused(say: Said) -> None:
    code, out, err = say("strategies", "check", "argnp")
    assert (code, out) == (2, "")
    assert err.startswith(
        "nas: strategy 'argnp' divides the vertices of networks, and space 'nasbench201' does not say"
    )
    assert len(err.splitlines()) == 1
    tiny = ("--space", "argnp(vertices=4)", "--size", "node=2,relation=2,node_output=2,relation_output=2")
    assert say("strategies", "check", "argnp", *tiny) == (0, "ok\n", "")


def test_spaces_say_whether_they_are_relaxable(say: Said) -> None:
    assert "relaxable      yes, 6 groups" in say("spaces", "show", "nasbench201")[1]
    assert document(say("spaces", "show", "darts", "--json"))["groups"] == 2 * 14
    assert "not relaxable: its networks are chains" in say("spaces", "show", "ae-cnn")[1]
    found = document(say("spaces", "show", "regnet", "--json"))
    assert found["groups"] is None
    assert "widths" in found["not_relaxable"]


# -- data -----------------------------------------------------------------------------------------------------


def test_data_list_and_show(say: Said) -> None:
    code, out, err = say("data", "list")
    assert (code, err) == (0, "")
    assert {line.split()[0].partition(":")[0] for line in out.splitlines()[1:]} >= set(DATA)
    for name in DATA:
        code, out, err = say("data", "show", name)
        assert (code, err) == (0, "")
        assert name in out
    assert document(say("data", "show", "npz", "--json"))["argument"] == "FILE"


def test_data_check_digits(say: Said) -> None:
    found = document(say("data", "check", "digits", "--json"))
    assert found["task"]["input_shape"] == [1, 8, 8]
    assert sum(found["parts"].values()) == 1797
    assert {name: sum(counts) for name, counts in found["class_counts"].items()} == found["parts"]
    code, out, err = say("data", "check", "digits")
    assert (code, err) == (0, "")
    assert found["split_hash"] in out
    last = [int(word.replace(",", "")) for word in out.splitlines()[-1].split()[1:]]
    assert last == list(found["parts"].values())
    again = document(say("data", "check", "digits", "-s", "split.seed=1", "--json"))
    assert again["split_hash"] != found["split_hash"]
    assert again["parts"] == found["parts"]


def test_data_check_a_graph(say: Said, folder: Path) -> None:
    rng = numpy.random.default_rng(0)
    numpy.savez(
        folder / "graph.npz",
        x=rng.normal(size=(30, 5)),
        y=numpy.arange(30) % 3,
        edge_index=rng.integers(0, 30, size=(2, 80)),
    )
    found = document(say("data", "check", "graph:graph.npz", "--json"))
    assert (found["task"]["nodes"], found["task"]["edges"], found["task"]["outputs"]) == (30, 80, 3)
    out = say("data", "check", "graph:graph.npz")[1]
    assert "features    5" in out


def jpeg_archive(path: Path, count: int, side: int = 8) -> None:
    """Images of one grey level each, as `nas data convert` reads them."""
    from PIL import Image

    files = []
    for number in range(count):
        stream = io.BytesIO()
        Image.fromarray(numpy.full((side, side, 3), 20 * number, dtype=numpy.uint8)).save(stream, "JPEG")
        files.append(stream.getvalue())
    shared = 20  # the first marker and the JFIF header, the same in every file
    bodies = [file[shared:] for file in files]
    numpy.savez(
        path,
        header=numpy.frombuffer(files[0][:shared], dtype=numpy.uint8),
        data=numpy.frombuffer(b"".join(bodies), dtype=numpy.uint8),
        offsets=numpy.cumsum([0, *map(len, bodies)]),
        labels=numpy.arange(count) % 2,
    )


def test_data_convert_makes_a_file_that_loads(say: Said, folder: Path) -> None:
    jpeg_archive(folder / "train.npz", 12)
    jpeg_archive(folder / "test.npz", 4)
    code, out, err = say("data", "convert", "train.npz", "--test", "test.npz", "--out", "images.npz")
    assert (code, err) == (0, "")
    assert "12 x 8 x 8 x 3" in out
    assert "nas data check npz:images.npz" in out
    found = document(say("data", "check", "npz:images.npz", "--json"))
    assert found["task"]["input_shape"] == [3, 8, 8]
    assert found["parts"]["test"] == 4
    again = document(say("data", "convert", "train.npz", "--out", "alone.npz", "--json"))
    assert again["arrays"] == {"images": [12, 8, 8, 3], "labels": [12]}


# -- bad input ------------------------------------------------------------------------------------------------


RAISING = """
from nas_core.space import SearchSpace


class Space(SearchSpace):
    def __init__(self):
        raise OSError("no luck")
"""


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["spaces", "show", "nasbench210"], 2, ["unknown space 'nasbench210'", "did you mean 'nasbench201'?"]),
        (["spaces", "check", "none.py:space"], 3, ["there is no file 'none.py'"]),
        (["spaces", "show", "broken.py:space"], 2, ["fails to load", "NameError"]),
        (["spaces", "check", "strategy.py:Bad"], 2, ["is a network of your own, not a space"]),
        (["spaces", "check", "raising.py:Space"], 2, ["space 'raising.py:Space': OSError: no luck"]),
        (["spaces", "show", "regnet(stage=2)"], 2, ["stage"]),
        (["spaces", "show", "regnet(2"], 2, ["malformed"]),
        (["strategies", "show", "evolution"], 2, ["unknown strategy 'evolution'", "regularized-evolution"]),
        (["strategies", "check", "randm"], 2, ["did you mean 'random'?"]),
        (["strategies", "show", "nas_core.errors:NasError"], 2, ["has no Config, ask, tell"]),
        (["strategies", "show", "dart"], 2, ["did you mean 'darts'?"]),
        (["strategies", "check", "spos", "--space", "regnet"], 2, ["space 'regnet' is not relaxable: its choices"]),
        (["strategies", "check", "random", "--space", "regnte"], 2, ["did you mean 'regnet'?"]),
        (["strategies", "check", "agnn-rl"], 2, ["agnn-rl alters one kind of choice at a time"]),
        (["strategies", "check", "asha", "-s", "strategy.inne=random"], 2, ["did you mean 'inner'?"]),
        (["strategies", "check", "asha", "-s", "eta=2"], 2, ["unknown key 'eta'", "strategy.eta"]),
        (
            ["strategies", "check", "agnn-rl", "--space", SIX, "-s", "strategy.sharing=true"],
            2,
            ["sharing: space 'six' does not say which layers"],
        ),
        (["strategies", "check", "spos", "-s", "strategy.epochs=5"], 2, ["strategy.epochs is set by the suite"]),
        (["data", "check", "digts"], 2, ["unknown data 'digts'", "did you mean 'digits'?"]),
        (["data", "show", "pngs"], 2, ["unknown data 'pngs'"]),
        (["data", "show", "strategy.py:Bad.Config"], 3, ["no object"]),
        (["data", "check", "idx:none"], 3, ["none"]),
        (["data", "check", "npz:broken.py"], 2, ["broken.py"]),
        (["data", "check", "digits", "-s", "split.vaild=0.2"], 2, ["did you mean 'valid'?"]),
        (["data", "check", "digits", "-s", "seed=0.2"], 2, ["unknown key 'seed'", "split.seed"]),
        (["data", "check", "digits", "-s", "split.seed"], 2, ["key=value"]),
        (["data", "convert", "none.npz", "--out", "x.npz"], 3, ["none.npz does not exist"]),
        (["data", "convert", "broken.py", "--out", "x.npz"], 2, ["broken.py"]),
        (["data", "convert", "broken.py"], 2, ["--out"]),
        (["spaces", "lits"], 2, ["lits"]),
    ],
)
def test_bad_input_ends_in_two_lines_at_most(
    say: Said, folder: Path, arguments: list[str], code: int, words: list[str]
) -> None:
    (folder / "broken.py").write_text("space = undefined\n")
    (folder / "strategy.py").write_text(STRATEGY)
    (folder / "raising.py").write_text(RAISING)
    found, out, err = say(*arguments)
    assert (found, out) == (code, ""), err
    assert all(word in err for word in words), err
    assert len(err.splitlines()) <= 2
    assert "Traceback" not in err


# -- doctor ---------------------------------------------------------------------------------------------------


def checks(said: tuple[int, str, str]) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in json.loads(said[1])["checks"]}


def test_doctor_finds_this_installation_sound(say: Said, folder: Path) -> None:
    said = say("doctor", "--json")
    found = checks(said)
    assert (said[0], said[2]) == (0, "")
    assert version("torch") in found["torch"]["detail"]
    assert version("nas-search") in found["nas"]["detail"]
    assert "bf16" in found["cpu"]["detail"]
    assert found["database"]["state"] == "note"  # there is none yet, and the folder can be written
    assert "GiB free" in found["disk"]["detail"]
    assert not list(folder.iterdir())  # it only looks


def test_doctor_looks_at_the_database(say: Said, folder: Path) -> None:
    from studies.store.store import Store

    Store("sqlite:///nas.db").close()
    found = checks(say("doctor", "--quick", "--json"))
    assert found["database"]["state"] == "ok"
    assert "0 studies" in found["database"]["detail"]
    with sqlite3.connect("nas.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    code, out, err = say("doctor", "--quick")
    assert code == 5
    assert err == "nas: broken: database\n"
    assert "newer than this program" in out


def test_doctor_names_what_is_missing(say: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name in ("psycopg", "rich") else installed(name))
    said = say("doctor", "--quick", "--json")
    found = checks(said)
    assert said[0] == 5
    assert found["rich"]["state"] == "broken"
    assert found["rich"]["detail"].startswith("missing: pip install 'rich>=")
    assert found["extra postgresql"]["state"] == "note"
    assert found["extra postgresql"]["detail"].endswith("pip install 'psycopg[binary]>=3.1'")
    assert said[2] == "nas: broken: rich\n"


def test_doctor_tells_when_torch_cannot_be_imported(say: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    said = say("doctor", "--json")
    assert said[0] == 5
    assert checks(said)["cpu"]["state"] == "broken"


# -- completion -----------------------------------------------------------------------------------------------


def complete(words: str, **environment: str) -> str:
    """What the shell is told at `nas WORDS<tab>`."""
    done = subprocess.run(
        [sys.executable, "-m", "nas_cli"],
        env={
            **os.environ,
            "_NAS_COMPLETE": "complete_bash",
            "COMP_WORDS": f"nas {words}",
            "COMP_CWORD": str(len(words.split(" "))),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout


def test_the_shell_completes_commands_and_options() -> None:
    assert complete("sp").split() == ["spaces"]
    assert complete("spaces ch").split() == ["check"]
    assert "--sort" in complete("trials --so")


def test_the_script_for_a_shell_is_printed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nas_cli", "--show-completion", "bash"],
        env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "_NAS_COMPLETE=complete_bash" in done.stdout


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ("darts", "600 epochs, sgd 0.025 cosine, weight decay 0.0003, batch 96, clip 5, crop 4, flip, cutout 16"),
        ("nasnet", "600 epochs, sgd 0.025 cosine, weight decay 0.0005, batch 32, clip 5, crop 4, flip, cutout 16"),
        ("regnet", "100 epochs, sgd 0.1 cosine, 5 of warm-up, weight decay 5e-05, batch 128, crop 4, flip"),
        ("ae-cnn", "350 epochs, sgd 0.1 step, weight decay 0.0005, batch 128, crop 4, flip"),
        ("nasbench201", "200 epochs, sgd 0.1 cosine, weight decay 0.0005, batch 256, crop 4, flip"),
    ],
)
def test_spaces_show_the_recipe_of_their_paper(say: Said, space: str, told: str) -> None:
    code, out, _ = say("spaces", "show", space)
    assert (code, f"{space}: {told}" in out) == (0, True)
    if space == "darts":
        assert "drop path 0.2 (size full), auxiliary 0.4 (size full)" in out
        from search_spaces.darts.network import DartsNetwork

        assert DartsNetwork.auxiliary_weight == 0.4
    assert json.loads(say("spaces", "show", space, "--json")[1])["recipe"]["name"] == space
