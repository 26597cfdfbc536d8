"""What people see of one-shot studies: pages, lists and live progress, on rows that are written here."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_cli import heat
from nas_cli.live_supernet import SupernetProgress
from nas_core.architecture import Architecture
from nas_core.evaluation import Report
from nas_core.records import Epoch, StopAt, Verdict
from nas_core.relax import derive_by_choice
from nas_core.strategy import Proposal, State
from nas_core.task import Task
from search_spaces.darts.space import Darts
from search_spaces.darts.space import Size as DartsSize
from search_spaces.nasbench201.space import OPERATIONS, NasBench201, Size
from studies.analysis.operations import operations
from studies.events import EpochEnded
from studies.records import Study, StudySpec, SupernetSettings
from studies.store import supernets
from studies.store.store import Store
from training.data.split import Split
from training.testing.evaluators import on_digits

Say = Callable[..., tuple[int, str, str]]

CELLS = NasBench201()
GROUPS = tuple(choice.name for choice in CELLS.choices)
TASK = Task(kind="image-classification", input_shape=(1, 8, 8), outputs=10)
TOTAL = 200


def weights(strongest: int, weight: float = 0.6) -> tuple[float, ...]:
    rest = (1 - weight) / (len(OPERATIONS) - 1)
    return tuple(weight if position == strongest else rest for position in range(len(OPERATIONS)))


def epoch(number: int) -> Epoch:
    """The first edge turns from `none` to `nor_conv_3x3` in epoch 50, the second to `skip_connect` in epoch 101."""
    strongest = [3 if number >= 50 else 0, 1 if number >= 101 else 2, 3, 3, 4, 2]
    scores = {name: weights(position) for name, position in zip(GROUPS, strongest, strict=True)}
    metrics = {"train_loss": 2 / number, "alpha_loss": math.nan, "parameter_free": 1 / 3, "skips": 1 / 6}
    return Epoch(number, derive_by_choice(CELLS, scores), metrics, scores, 1.5 * number)


SUPERNET = SupernetSettings(
    data="idx:fashion", split=Split(), split_hash="", device="cpu", precision="bf16", threads=2, deterministic=False
)


def create(store: Store, name: str, strategy: str = "darts", supernet: bool = True) -> Study:
    spec = StudySpec(
        space="nasbench201", space_name=CELLS.name, space_version=CELLS.version, space_hash=None,
        size={"channels": 4, "cells": 1}, strategy=strategy, strategy_config={"epochs": TOTAL} if supernet else {},
        evaluator=on_digits(), task=TASK, split_hash="0123456789abcdef",
        objectives=("val_accuracy:max",), constraints=(), seed=0, lag=1,
        supernet=SUPERNET if supernet else None,
    )  # fmt: skip
    return store.create_study(name, spec, StopAt())


def finish(store: Store, study: Study, result: list[Architecture]) -> None:
    path = store.folder(study) / "supernet" / "weights.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    supernets.finish(store, study, result, path, 300.0)


@pytest.fixture
def studies(folder: Path) -> Path:
    """A database with a one-shot study in every state, and one of another kind."""
    with Store("sqlite:///nas.db") as store:
        create(store, "other", "random", supernet=False)
        create(store, "new")
        for name, epochs in {"training": 12, "failed": 3, "derived": TOTAL, "evaluated": TOTAL}.items():
            study = create(store, name)
            supernets.start(store, study, None)
            supernets.save_epochs(store, study, [epoch(number) for number in range(1, epochs + 1)])
            if name == "failed":
                supernets.fail(store, study, "nan-loss: the training loss is nan")
            elif epochs == TOTAL:
                arch = epoch(TOTAL).arch
                assert arch is not None
                finish(store, study, [arch])
                if name == "evaluated":
                    verdict = Verdict(State.COMPLETE, None, (0.875,))
                    store.propose(
                        study, 0, Proposal(arch), arch.key, verdict, report=Report(1, {"val_accuracy": 0.875})
                    )
        paths = create(store, "paths", "spos")
        supernets.start(store, paths, None)
        supernets.save_epochs(store, paths, [Epoch(n, None, {"train_loss": 2.0}, {}, 1.0) for n in range(1, TOTAL + 1)])
        finish(store, paths, [])
    return folder


def document(said: tuple[int, str, str]) -> Any:
    code, out, err = said
    assert (code, err) == (0, "")
    return json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def section(out: str, head: str) -> list[str]:
    """The lines under a head, up to the next empty one."""
    lines = out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.strip().startswith(head)) + 1
    return [*lines[start:], ""][: [*lines[start:], ""].index("")]


# -- show -----------------------------------------------------------------------------------------------------


def test_show_a_study_whose_supernet_is_trained(say: Say, studies: Path) -> None:
    code, out, err = say("show", "evaluated")
    assert (code, err) == (0, "")
    facts = dict(line.strip().split("  ", 1) for line in section(out, "supernet"))
    assert {name: text.strip() for name, text in facts.items()} == {
        "state": "complete",
        "epochs": "200/200",
        "trained on": "idx:fashion",
        "with": "device=cpu precision=bf16 threads=2",
        "seconds": "300",
        "result": "1 architecture derived",
        "weights": str(Path("nas-files/evaluated/supernet/weights.safetensors")),
        "collapse": "33% without parameters, 17% skips of the derived operations",
    }
    table = [line.split() for line in section(out, "metrics of the supernet (the last 5 of 200 epochs)")]
    assert table[0] == ["epoch", "train_loss", "alpha_loss", "parameter_free", "skips"]
    assert [row[0] for row in table[1:]] == ["196", "197", "198", "199", "200"]
    assert table[-1][1:3] == ["0.01", "nan"]
    assert "derived (the same since epoch 101)" in out
    text = "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_3x3~1|+|nor_conv_3x3~0|avg_pool_3x3~1|nor_conv_1x1~2|"
    assert out.count(text) == 1
    assert out.count("├─│─●    2  skip_connect  ← 0") == 1  # the best trial is not drawn again
    assert "best: evaluated:0 (the architecture derived above)\n  val_accuracy  0.875\n" in out


def test_show_draws_the_weights_and_their_path(say: Say, studies: Path) -> None:
    out = say("show", "evaluated")[1]
    shades = section(out, "weights of the candidates at epoch 200")
    assert shades[0].split() == ["ns13a"]
    weak, strong = heat.shade(0.1), heat.shade(0.6)
    assert weak != strong
    assert shades[1] == f"  cell/edge.0-1 |{3 * weak}{strong}{weak}| 0.60 nor_conv_3x3"
    assert shades[0].index("s") == shades[2].index(strong)
    path = section(out, "the strongest candidate, 60 of 200 epochs from 1 to 200")
    rows = dict(line.split() for line in path)
    assert {len(row) for row in rows.values()} == {heat.COLUMNS}
    shown = [round(column * 199 / 59) + 1 for column in range(60)]
    assert rows["cell/edge.0-1"] == "".join("3" if number >= 50 else "n" for number in shown)
    assert rows["cell/edge.0-2"] == "".join("s" if number >= 101 else "1" for number in shown)
    assert rows["cell/edge.0-3"] == "3" * 60
    starred = [number for number, mark in zip(shown, rows["changed"], strict=True) if mark == "*"]
    assert starred == [min(n for n in shown if n >= 50), min(n for n in shown if n >= 101)]
    legend = "n none, s skip_connect, 1 nor_conv_1x1, 3 nor_conv_3x3, a avg_pool_3x3"
    assert section(out, "candidates") == [f"  {legend}"]


def test_show_a_supernet_in_training(say: Say, studies: Path) -> None:
    code, out, err = say("show", "training")
    assert (code, err) == (0, "")
    assert "epochs      12/200" in out
    assert "would be derived now (the same since the first epoch)" in out
    assert "every epoch from 1 to 12" in out
    assert "its supernet is still being trained, epoch 12 of 200; where that was stopped: nas resume training" in out
    assert "weights  " not in "".join(section(out, "supernet"))
    found = document(say("show", "training", "--json"))["supernet"]
    assert (found["state"], found["result"], found["weights"], len(found["epochs"])) == ("running", None, None, 12)


def test_show_a_supernet_that_has_not_begun_and_one_that_failed(say: Say, studies: Path) -> None:
    out = say("show", "new")[1]
    assert section(out, "supernet")[:2] == ["  state       not begun", "  epochs      0/200"]
    assert document(say("show", "new", "--json"))["supernet"]["state"] is None
    out = say("show", "failed")[1]
    assert "reason      nan-loss: the training loss is nan" in out
    assert "failed after epoch 3 of 200" in out


def test_show_a_study_whose_supernet_is_the_result(say: Say, studies: Path) -> None:
    code, out, err = say("show", "paths")
    assert (code, err) == (0, "")
    assert "result      the supernet itself" in out
    assert "nas search --space nasbench201 --size channels=4,cells=1 --evaluator supernet:paths" in out
    assert "weights of the candidates" not in out
    assert "architecture" not in out
    assert document(say("show", "paths", "--json"))["supernet"]["result"] == []


def test_show_as_json(say: Say, studies: Path) -> None:
    found = document(say("show", "evaluated", "--json"))
    supernet = found["supernet"]
    assert (supernet["state"], supernet["reason"], supernet["of"], supernet["seconds"]) == ("complete", None, 200, 300)
    assert supernet["settings"]["data"] == "idx:fashion"
    assert supernet["candidates"] == {name: list(OPERATIONS) for name in GROUPS}
    assert Path(supernet["weights"]).read_bytes() == b"weights"
    last, wanted = supernet["epochs"][-1], epoch(TOTAL)
    assert wanted.arch is not None
    assert [one["epoch"] for one in supernet["epochs"]] == list(range(1, TOTAL + 1))
    assert last["metrics"] == {**wanted.metrics, "alpha_loss": "nan"}
    assert last["scores"] == {name: list(scores) for name, scores in wanted.strengths.items()}
    assert last["architecture"] == dict(wanted.arch.values)
    assert supernet["result"] == [
        {"architecture": dict(wanted.arch.values), "key": wanted.arch.key, "notation": CELLS.to_text(wanted.arch)}
    ]
    assert found["best"]["key"] == wanted.arch.key
    assert document(say("show", "other", "--json"))["supernet"] is None
    assert "supernet" not in say("show", "other")[1]


# -- ls, trials, best -----------------------------------------------------------------------------------------


def test_ls_says_how_far_supernets_are(say: Say, studies: Path) -> None:
    code, out, err = say("ls")
    assert (code, err) == (0, "")
    lines = {line.split()[0]: line for line in out.splitlines()}
    for name, text in {
        "new": "\tepoch 0/200\t",
        "training": "\tepoch 12/200\t",
        "failed": "\tepoch 3/200, failed\t",
        "derived": "\tepoch 200/200\t",
        "evaluated": "\t1 (epoch 200/200)\tval_accuracy 0.875\t",
        "paths": "\tepoch 200/200\t",
    }.items():
        assert text in lines[name]
    assert "epoch" not in lines["other"]
    found = {study["study"]: study["supernet"] for study in document(say("ls", "--json"))}
    assert found["training"] == {"state": "running", "epochs": 12, "of": 200}
    assert found["new"] == {"state": None, "epochs": 0, "of": 200}
    assert found["other"] is None


@pytest.mark.parametrize(
    ("study", "words"),
    [
        ("new", "its supernet is still being trained, epoch 0 of 200"),
        ("training", "its supernet is still being trained, epoch 12 of 200"),
        ("failed", "its supernet failed after epoch 3 of 200 (nan-loss: the training loss is nan)"),
        ("derived", "its supernet is trained; go on by: nas resume derived"),
        ("paths", "its supernet is the result; search on it by: nas search --space nasbench201"),
    ],
)
def test_without_a_trial_it_is_said_where_the_supernet_stands(say: Say, studies: Path, study: str, words: str) -> None:
    code, out, err = say("trials", study)
    assert (code, out) == (0, "")
    assert words in err
    assert document(say("trials", study, "--json")) == []
    for command in ("best", "front"):
        code, out, err = say(command, study)
        assert (code, out) == (3, "")
        assert words in err
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize("command", ["ls", "show evaluated", "show paths", "trials training --json"])
def test_reading_a_one_shot_study_leaves_torch_alone(studies: Path, command: str) -> None:
    script = (
        "import sys; from nas_cli.app import run; code = run(sys.argv[1:]); sys.exit(code or 'torch' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NAS_")}
    done = subprocess.run(
        [sys.executable, "-c", script, *command.split()], cwd=studies, env=environment, capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


# -- weights as text ------------------------------------------------------------------------------------------


@given(st.lists(st.text(st.sampled_from("abc_013"), min_size=1, max_size=6), min_size=1, max_size=20, unique=True))
def test_letters_tell_candidates_apart(options: list[str]) -> None:
    found = heat.letters(options)
    assert len(set(found)) == len(options)
    assert all(len(letter) == 1 for letter in found)
    assert heat.letters(options) == found


def test_letters_of_known_candidates() -> None:
    assert "".join(heat.letters(OPERATIONS)) == "ns13a"
    cells = ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5")
    assert "".join(heat.letters((*cells, "dil_conv_3x3", "dil_conv_5x5"))) == "nmas35dD"


def test_shades_grow_with_the_weight() -> None:
    shades = [heat.SHADES.index(heat.shade(number / 100)) for number in range(101)]
    assert shades == sorted(shades)
    assert (shades[0], shades[-1]) == (0, len(heat.SHADES) - 1)
    assert heat.shade(1.0001) == heat.shade(1)


def test_groups_with_other_candidates_have_heads_and_legends_of_their_own() -> None:
    options = {"first": ("gcn", "skip"), "second": ("0", "1", "2"), "third": ("0", "1", "2")}
    scores = {"first": (0.0, 1.0), "second": (1.0, 0.0, 0.0), "third": (0.0, 0.0, 1.0)}
    assert heat.heat_map(scores, options, {"first": "skip", "second": None, "third": 2}) == [
        "        gs",
        "first  | @| 1.00 skip",
        "        012",
        "second |@  | 1.00 -",
        "third  |  @| 1.00 2",
    ]
    assert heat.legend(options) == ["first: g gcn, s skip", "second, ...: 0 0, 1 1, 2 2"]
    assert heat.heat_map(scores, options, None, heads=False)[1] == "second |@  | 1.00 0"


def test_candidates_of_a_space_whose_groups_are_no_choices() -> None:
    from search_spaces.darts.space import OPERATIONS as EVERY
    from search_spaces.darts.space import edge_group

    size = DartsSize(channels=2, layers=3)
    scores = {edge_group("normal", 0, 2): (1 / 8,) * 8, "unknown": (0.5, 0.5)}
    assert operations(Darts(), size, TASK, scores) == {edge_group("normal", 0, 2): EVERY, "unknown": ("1", "2")}


@given(st.integers(0, 40), st.integers(1, 100), st.integers(1, 20))
def test_lines_beside_one_another_lose_none(count: int, width: int, height: int) -> None:
    lines = [f"<{number}>" for number in range(count)]
    found = list(heat.beside(lines, width, height))
    left = int(found.pop().split()[1]) if found and found[-1].startswith("...") else 0
    assert len(found) <= height
    assert sorted(" ".join(found).split()) == sorted(lines[: count - left])
    assert all(len(line) <= max(width, 4) for line in found)
    assert left == 0 or len(found) == height


# -- live progress --------------------------------------------------------------------------------------------


def panel(progress: SupernetProgress) -> list[str]:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=100, height=24)
    with console.capture() as capture:
        console.print(progress._panel())
    return [line.rstrip() for line in capture.get().splitlines()]


def test_the_panel_shows_the_derived_architecture_and_the_weights() -> None:
    progress = SupernetProgress("live", CELLS, Size(channels=4, cells=1), TASK)
    assert panel(progress) == ["live: the supernet's first epoch"]
    for number in (48, 49, 50, 51):
        progress(EpochEnded(epoch(number), TOTAL))
    lines = panel(progress)
    assert lines[0].startswith("live: supernet epoch 51/200 | ")
    assert lines[0].endswith(" left")
    text = " ".join(" ".join(lines).split())
    assert "train_loss 0.03922, alpha_loss nan" in text
    assert "derives, since epoch 50: |nor_conv_3x3~0|+" in text
    assert "0.60 nor_conv_3x3" in text
    assert "n none, s skip_connect, 1 nor_conv_1x1, 3 nor_conv_3x3, a avg_pool_3x3" in text


def test_the_panel_of_many_groups_fits_a_small_terminal() -> None:
    space, size = Darts(), DartsSize(channels=2, layers=3)
    scores = dict.fromkeys(space.assignment(space.named["DARTS_V2"]), (1 / 8,) * 8)
    progress = SupernetProgress("live", space, size, TASK)
    progress(EpochEnded(Epoch(3, space.named["DARTS_V2"], {"train_loss": 1.0}, scores, 1.0), 50))
    lines = panel(progress)
    assert len(lines) <= 24
    assert sum(line.count("|........|") for line in lines) + sum(
        int(line.split()[1]) for line in lines if line.endswith(" more")
    ) == len(scores)


def test_plain_lines_name_an_architecture_once(capsys: pytest.CaptureFixture[str]) -> None:
    progress = SupernetProgress("plain", CELLS, Size(channels=4, cells=1), TASK)
    with progress:
        for number in (48, 49, 50):
            progress._said = -math.inf
            progress(EpochEnded(epoch(number), TOTAL))
    first, second, third = capsys.readouterr().err.splitlines()
    assert first.startswith("plain: supernet epoch 48/200 | train_loss 0.04167")
    assert first.endswith(
        "| derives |none~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|nor_conv_3x3~0|avg_pool_3x3~1|nor_conv_1x1~2|"
    )
    assert "derives" not in second
    assert "derives |nor_conv_3x3~0|+" in third
    assert third.startswith("plain: supernet epoch 50/200")  # and the end does not say it once more


def test_plain_lines_of_uniform_sampling(capsys: pytest.CaptureFixture[str]) -> None:
    progress = SupernetProgress("paths", CELLS, Size(channels=4, cells=1), TASK)
    progress(EpochEnded(Epoch(1, None, {"train_loss": 2.5}, {}, 1.0), 2))
    assert capsys.readouterr().err == "paths: supernet epoch 1/2 | train_loss 2.5\n"
