"""`nas score` and `nas predictors` through the command line."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import pytest
from scipy import stats

import predictors
from nas_core import moves
from nas_core.seeds import generator
from predictors.ranking import RANKINGS
from search_spaces.nasbench201.space import NasBench201

Say = Callable[..., tuple[int, str, str]]
CELLS = NasBench201()
SMALL = ("score", "--size", "channels=4,cells=1", "--sample", "8", "--threads", "1")
TABLES = Path(__file__).resolve().parents[2] / "docs" / "tables.md"
MAPPING = """
space: nasbench201
row: {text: arch}
data:
  made:
    task: {kind: image-classification, input_shape: [1, 8, 8], outputs: 10}
    metrics:
      val_accuracy: {columns: {1: first, 9: last}, scale: 0.01}
      val_loss: {columns: {1: loss, 9: loss}, goal: min}
"""
PROXY = '''"""The number of edges with an operation, as a proxy."""

from nas_core.config import Config as BaseConfig
from predictors.need import Need
from predictors.proxy import EVERY_TASK, Unscorable


class Layers:
    """How many tensors of parameters the network has, in layers of normalisation and convolutions."""

    class Config(BaseConfig):
        pass

    tasks = EVERY_TASK
    needs = Need.NOTHING
    components = ("layers",)

    def __init__(self, config):
        pass

    def score(self, forward):
        count = sum(1 for _ in forward.model.parameters()) // 3
        if count % 2:
            raise Unscorable("an odd number of layers")
        return {"layers": float(count)}
'''


def document(said: tuple[int, str, str]) -> dict[str, Any]:
    code, out, err = said
    assert code == 0, err
    return json.loads(out)  # type: ignore[no-any-return]


@pytest.fixture
def results(folder: Path) -> dict[str, tuple[float, float]]:
    """A table of 300 cells, also of those that `--sample 8` draws, with accuracy and loss by notation."""
    rng = generator(1, "results")
    drawn = json.loads((folder / "pool.json").read_text()) if (folder / "pool.json").exists() else []
    texts = list(dict.fromkeys([*drawn, *(CELLS.to_text(moves.sample(CELLS, rng)) for _ in range(300))]))
    rows = {text: (float(rng.integers(1000)) / 10, float(rng.random())) for text in texts}
    lines = [f"{text},{50 - last},{last},{loss}" for text, (last, loss) in rows.items()]
    (folder / "results.csv").write_text("arch,first,last,loss\n" + "\n".join(lines) + "\n")
    (folder / "results.yaml").write_text(MAPPING)
    return rows


@pytest.fixture
def scored(say: Say, folder: Path) -> dict[str, Any]:
    found = document(say(*SMALL, "--proxies", "naswot,params", "--json"))
    (folder / "pool.json").write_text(json.dumps([row["architecture"] for row in found["architectures"]]))
    return found


def column(found: dict[str, Any], name: str) -> list[float]:
    return [float(row["scores"][name]) for row in found["architectures"]]


def test_scores_are_those_of_the_networks_and_are_kept(say: Say, scored: dict[str, Any]) -> None:
    assert scored["computed"] == len(scored["architectures"]) == len({row["key"] for row in scored["architectures"]})
    task_params = [
        CELLS.costs(CELLS.from_text(row["architecture"]), _digits(), CELLS.Size(channels=4, cells=1))["params"]
        for row in scored["architectures"]
    ]
    assert column(scored, "params") == task_params
    again = document(say(*SMALL, "--proxies", "naswot,params", "--json"))
    assert again["computed"] == 0  # no network was built
    assert again["architectures"] == scored["architectures"]
    for before, after in zip(scored["scores"], again["scores"], strict=True):
        assert after["milliseconds"] == before["milliseconds"] > 0  # stored with the score
    more = document(say(*SMALL[:4], "10", "--threads", "1", "--proxies", "params", "--json"))
    assert more["architectures"][:8] != []
    assert more["computed"] == 2  # the same seed draws the same eight first
    other = document(say(*SMALL, "--proxies", "params", "--batch", "32", "--json"))
    assert other["computed"] == 8  # another context
    code, out, _ = say("query", f"SELECT count(*) AS n FROM scores WHERE context = {scored['context']}", "--json")
    assert (code, json.loads(out)) == (0, [{"n": 18}])


def _digits() -> Any:
    from nas_core.task import Task

    return Task(kind="image-classification", input_shape=(1, 8, 8), outputs=10)


def test_correlations_with_a_table(
    say: Say, scored: dict[str, Any], results: dict[str, tuple[float, float]], folder: Path
) -> None:
    rows = scored["architectures"]
    accuracy = [results[row["architecture"]][0] for row in rows]
    loss = [results[row["architecture"]][1] for row in rows]
    held = ("--proxies", "params,naswot", "--table", "results.csv", "--against")
    for against, truth in (
        ("val_accuracy", accuracy),  # the highest level
        ("first", [50 - value for value in accuracy]),  # a column of the file
        ("val_loss", [-value for value in loss]),  # less is better
    ):
        found = document(say(*SMALL, *held, against, "--json"))
        assert found["computed"] == 0
        for entry in found["scores"]:
            values = numpy.maximum(column(found, entry["score"]), -1e9)
            assert entry["count"] == 8
            assert entry["spearman"]["value"] == pytest.approx(stats.spearmanr(values, truth).statistic)
            assert entry["kendall"]["value"] == pytest.approx(stats.kendalltau(values, truth).statistic)
            assert entry["spearman"]["low"] <= entry["spearman"]["value"] <= entry["spearman"]["high"]
    assert found["against"] == {"metric": "val_loss", "source": "table results.csv, made", "goal": "min"}
    assert [row["against"] for row in found["architectures"]] == loss  # as it was measured
    code, out, err = say(*SMALL, *held, "val_accuracy", "--plot", "ranks.png", "--sort", "params", "--top", "3")
    assert code == 0, err
    assert "Spearman given params" in out
    assert "picture: ranks.png" in out
    assert (folder / "ranks.png").stat().st_size > 10_000
    best = out[out.index("best 3 by params") :].splitlines()[2:5]
    order = sorted(range(8), key=lambda index: -column(scored, "params")[index])[:3]
    assert [line.split()[-1] for line in best] == [rows[index]["architecture"] for index in order]
    assert "best 3 by naswot" not in out


def test_a_study_is_scored_against_its_objective(say: Say) -> None:
    search = ("search", "--study", "s", "--size", "channels=4,cells=1", "--strategy", "random", "--epochs", "1")
    assert say(*search, "--trials", "4", "--objective", "val_loss:min", "-s", "split.limit=200")[0] == 0
    found = document(say("score", "--of", "s", "--proxies", "params", "--json"))
    trials = {trial["number"]: trial for trial in json.loads(say("trials", "s", "--json")[1])}
    assert found["against"] == {"metric": "val_loss", "source": "study s", "goal": "min"}
    assert found["size"] == {"channels": 4, "cells": 1}
    values = [row["against"] for row in found["architectures"]]
    assert len(values) >= 4
    assert str(values[0])[:6] in str(trials[0])
    lower = [-float(value) for value in values]
    assert found["scores"][0]["spearman"]["value"] == pytest.approx(
        stats.spearmanr(column(found, "params"), lower).statistic
    )
    assert say("score", "--of", "s", "--sample", "3")[0] == 2
    assert say("score", "--of", "s", "--space", "regnet")[0] == 2


def test_architectures_rankings_components_and_a_proxy_of_one_s_own(say: Say, folder: Path) -> None:
    (folder / "own.py").write_text(PROXY)
    texts = [CELLS.to_text(moves.sample(CELLS, generator(number))) for number in range(3)]
    by_choices = ",".join(f"{choice.name}=none" for choice in CELLS.choices)
    named = [part for text in (*texts, by_choices) for part in ("--architecture", text)]
    chosen = "naswot,az_nas.complexity,vote,own.py:Layers"
    found = document(say("score", *named, "--size", "channels=4,cells=1", "--proxies", chosen, "--json"))
    assert [row["architecture"] for row in found["architectures"]][:3] == texts
    assert "none" in found["architectures"][3]["architecture"]
    assert [entry["score"] for entry in found["scores"]] == ["naswot", "az_nas.complexity", "vote", "own.py:Layers"]
    own = found["scores"][3]
    assert own["worst"] == sum(value == float("-inf") for value in column(found, "own.py:Layers"))
    assert own["reasons"] == ({"an odd number of layers": own["worst"]} if own["worst"] else {})
    vote = column(found, "vote")
    assert max(vote) <= 1
    assert vote[3] == min(vote)  # the cell that hands on nothing
    parts = ",".join(RANKINGS["vote"].scores)
    again = document(say("score", *named, "--size", "channels=4,cells=1", "--proxies", parts, "--json"))
    assert again["computed"] == 0  # what a ranking joins is kept
    code, out, _ = say("score", *named, "--size", "channels=4,cells=1", "--proxies", "naswot", "--top", "1")
    assert code == 0
    assert re.search(r"naswot\t[\d.]+\t1\t1 as recorded", out)


def test_a_table_of_scores(say: Say, folder: Path) -> None:
    """The example of docs/tables.md."""
    text = TABLES.read_text(encoding="utf-8")
    for language, name in (
        ("csv", "results.csv"),
        ("csv", "hints.csv"),
        ("yaml", "results.yaml"),
        ("yaml", "hints.yaml"),
    ):
        block = re.search(rf"`{name}`.*?```{language}\n(.*?)```", text, re.DOTALL)
        assert block is not None
        (folder / name).write_text(block[1])
    (folder / "toy_space.py").write_text(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0])
    (command,) = re.findall(r"^nas (score .*)$", text, re.MULTILINE)
    found = document(say(*command.split(), "--json"))
    names = [entry["score"] for entry in found["scores"]]
    assert names == ["naswot", "logsynflow", "ntk_condition"]
    rows = {row["architecture"]: row for row in found["architectures"]}
    assert rows["depth=1,activation=silu"]["scores"] == {"naswot": "-inf", "logsynflow": 12.4, "ntk_condition": -35.0}
    assert rows["depth=2,activation=silu"]["against"] == 0.749
    assert found["scores"][0]["reasons"] == {"empty cell": 1}
    assert found["scores"][1]["spearman"]["value"] == pytest.approx(1.0)
    assert found["scores"][0]["spearman"]["value"] == pytest.approx(0.8)  # the worst is the lowest rank
    code, out, _ = say(*command.split())
    assert code == 0
    assert "depth=2,activation=silu" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--proxies", "naswott"], ["unknown proxy 'naswott'", "did you mean 'naswot'?"]),
        (["--proxies", ","], ["--proxies names none"]),
        (["--proxies", "naswot.other"], ["naswot.other"]),
        (["--proxies", "gradsign(bn='other')"], ["gradsign", "other"]),
        (
            ["--space", "nasbench_graph", "--data", "karate", "--size", "hidden=8", "--proxies", "zen"],
            ["zen", "is for image"],
        ),
        (["--space", "nasbench_graph", "--size", "hidden=8"], ["nasbench_graph", "digits"]),
        (["--against", "val_accuracy"], ["--table FILE and --against METRIC belong together"]),
        (["--table", "results.csv"], ["belong together"]),
        (["--table", "results.csv", "--against", "lastt"], ["has no column 'lastt'", "did you mean 'last'?"]),
        (["--table", "results.csv", "--against", "last", "--table-data", "mad"], ["did you mean 'made'?"]),
        (["--table", "results.csv", "--against", "arch"], ["no number"]),
        (["--sample", "0"], ["--sample 0"]),
        (["--sample", "99999"], ["15,625"]),
        (["--batch", "1"], ["--batch 1"]),
        (["--architecture", "|none~0|"], ["nasbench201"]),
        (["--architecture", "cell/edge.0-1=conv"], ["unknown option", "nor_conv_1x1"]),
        (["--architecture", "cell/edge.0-1=none"], ["not legal"]),
        (["--sort", "naswt", "--proxies", "naswot"], ["did you mean 'naswot'?"]),
        (["--plot", "x.png"], ["--plot needs results"]),
        (["--plot", "x.gif"], [".png or .svg"]),
        (["-s", "splitt.limit=3"], ["unknown key 'splitt'"]),
        (["--device", "gpu"], ["device 'gpu'"]),
        (["--scores", "results.csv"], ["has no scores"]),
        (["--of", "nothing"], ["there is no database"]),
    ],
)
def test_bad_input_is_one_line(
    say: Say, results: dict[str, tuple[float, float]], arguments: list[str], words: list[str]
) -> None:
    code, out, err = say("score", "--size", "channels=4,cells=1", *arguments)
    assert (code, out) == (3 if "--of" in arguments else 2, ""), err
    assert all(word in err for word in words), err
    assert len(err.splitlines()) == 1
    assert err.startswith("nas: ")
    assert not Path("nas.db").exists()


def test_an_interrupted_call_keeps_what_it_has_scored(folder: Path) -> None:
    command = [sys.executable, "-m", "nas_cli", *SMALL[:3], "--sample", "3000", "--proxies", "naswot"]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # in the background of a shell it would be ignored
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard
    ) as running:
        assert running.stderr is not None
        assert running.stderr.readline() == "nasbench201: 1/3000 architectures scored\n"
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "nas: stopped; what was scored is kept, the same command goes on"
    with sqlite3.connect(folder / "nas.db") as connection:
        (kept,) = connection.execute("SELECT count(*) FROM scores").fetchone()
    assert 1 <= kept < 3000


# -- nas predictors -------------------------------------------------------------------------------------------


def test_predictors_list(say: Say) -> None:
    code, out, err = say("predictors", "list", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert [one["name"] for one in found] == [*predictors.PROXIES, *predictors.SURROGATES, *RANKINGS]
    kinds = {one["name"]: one for one in reversed(found)}  # the proxy of two names
    assert all(one["what"] for one in found)
    assert {"image-classification", "node-classification"} <= set(kinds["naswot"]["tasks"])
    assert kinds["mlp"]["kind"] == "surrogate"
    assert len(kinds["az_nas"]["scores"]) == 4
    assert len(say("predictors", "list")[1].splitlines()) == 1 + len(found)


def test_predictors_show_and_check(say: Say, folder: Path) -> None:
    out = say("predictors", "show", "gradsign")[1]
    assert "ICLR 2022" in out
    assert "instance or calibrated" in out
    assert 'nas score --proxies "gradsign(' in out
    assert "synflow, jacob_cov, snip" in say("predictors", "show", "vote")[1]
    (folder / "own.py").write_text(PROXY)
    check = ("predictors", "check", "own.py:Layers", "--size", "channels=4,cells=1")
    assert say(*check) == (0, "ok\n", "")
    (folder / "own.py").write_text(PROXY.replace('"layers": float(count)', '"other": float(count)'))
    code, out, err = say(*check)
    assert code == 1
    assert "score" in out
    assert err.startswith("nas: predictor 'own.py:Layers' breaks its contract")
    for reference, word in (("naswott", "did you mean 'naswot'?"), ("own.py:Need", "neither a proxy")):
        code, out, err = say("predictors", "show", reference)
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert word in err
