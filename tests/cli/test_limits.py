"""Limits hold to the model: what `nas train`, `nas export` and the card say and do about a study's constraints."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from training.latency import Load

Say = Callable[..., tuple[int, str, str]]

SPACE = '''"""Two layers of a width; every build is written down."""
from pathlib import Path

from pydantic import Field

from nas_core.choice import Choice
from nas_core.config import SizeConfig
from nas_core.space import SearchSpace


class Size(SizeConfig):
    presets = {"search": {"times": 1}, "full": {"times": 4}}
    times: int = Field(default=4, ge=1)


class Wide(SearchSpace):
    name = "wide"
    tasks = frozenset({"image-classification"})
    choices = (Choice("width", (1, 2, 4, 8, 16)),)
    Size = Size

    def build(self, arch, task, size):
        import torch
        from torch import nn

        with Path("builds.txt").open("a") as file:
            file.write(f"{size.times} {torch.get_default_device().type}\\n")
        width = arch.values["width"] * size.times
        pixels = task.input_shape[0] * task.input_shape[1] * task.input_shape[2]
        return nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, task.outputs))


class Counting(Wide):
    name = "counting"

    def costs(self, arch, task, size):
        width = arch.values["width"] * size.times
        return {"params": 75 * width + 10, "macs": 74 * width}


space, counting = Wide(), Counting()
'''  # digits: 64 pixels, 10 classes
DATA = ("-s", "split.limit=100", "--threads", "1")
SEARCH = ("search", "--study", "s", "--strategy", "random", "--epochs", "1", *DATA)


def params(width: int) -> int:
    return 64 * width + width + 10 * width + 10


@pytest.fixture
def wide(folder: Path) -> tuple[str, ...]:
    (folder / "wide.py").write_text(SPACE)
    return (*SEARCH, "--space", "wide.py:space")


def builds() -> list[str]:
    """The networks built since the last call: their size, and the device."""
    file = Path("builds.txt")
    found = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return found


def trials(say: Say) -> list[dict[str, Any]]:
    return list(json.loads(say("trials", "s", "--json")[1]))


def trained(say: Say, *words: str) -> tuple[dict[str, Any], str]:
    code, out, err = say("train", *words, "--epochs", "1", "--recipe", "quick", "--json")
    assert code == 0, err
    return json.loads(out), err


def test_trials_are_judged_by_the_final_network(say: Say, wide: tuple[str, ...]) -> None:
    """Of the widths 1 to 16, four times as wide at last, 4 is the largest within the limit."""
    limit = params(16)
    code, out, err = say(*wide, "-n", "3", "--final-size", "full", "--constraint", f"params<={limit}")
    assert code == 0, err
    found = {row["architecture"]["width"]: row for row in trials(say)}
    assert {width: row["metrics"]["params"] for width, row in found.items()} == {w: params(4 * w) for w in found}
    assert {w for w, row in found.items() if row["state"] == "complete"} == {1, 2, 4}
    assert {w for w, row in found.items() if row["state"] == "rejected"} <= {8, 16}
    best = json.loads(say("best", "s", "--json")[1])
    assert f"  params         {params(4 * best['architecture']['width']):,}\n" in out
    assert set(builds()) == {"4 meta", "1 cpu"}  # counted at the final size, trained at the search size
    # The search size's own costs are seen in `nas show`.
    row = found[4]
    page = " ".join(say("show", row["address"])[1].split())
    assert f"costs at the search size, times=1 (those above are at the final size) params {params(4):,}" in page
    assert json.loads(say("show", row["address"], "--json")[1])["search_size_costs"]["params"] == params(4)
    assert say("verify", "s")[0] == 0


def test_the_model_and_its_card_keep_the_limit_or_say_so(say: Say, wide: tuple[str, ...]) -> None:
    limit = params(16)
    assert say(*wide, "-n", "3", "--final-size", "full", "--constraint", f"params<={limit}")[0] == 0
    document, err = trained(say, "s")
    width = json.loads(say("best", "s", "--json")[1])["architecture"]["width"]
    assert document["size"] == {"times": 4}
    assert document["limits"] == [{"limit": f"params<={limit}", "value": params(4 * width), "kept": True}]
    assert "nas:" not in err
    larger, err = trained(say, "s", "--size", "times=64")
    value = params(64 * width)
    assert f"nas: at size times=64 params is {value:,}, beyond the study's params<={limit}\n" in err
    assert larger["limits"][0] == {"limit": f"params<={limit}", "value": value, "kept": False}
    # Of the two the one within the limit is exported, whatever their accuracies.
    with sqlite3.connect("nas.db") as connection:
        connection.execute(
            "UPDATE metrics SET value = CASE WHEN (SELECT number FROM runs WHERE id = run) = 2 THEN 0.9 ELSE 0.1 END"
            " WHERE name = 'val_accuracy' AND run IN (SELECT id FROM runs WHERE kind = 'retrain')"
        )
    for address, verdict, count in (
        ("s", "kept", params(4 * width)),
        (larger["runs"][0]["address"], "exceeded", value),
    ):
        code, out, err = say("export", address, "--format", "safetensors", "--no-verify", "--json")
        assert code == 0, err
        files = {Path(file).suffix: Path(file) for file in json.loads(out)["files"]}
        weights = safetensors.torch.load_file(files[".safetensors"])
        assert sum(tensor.numel() for tensor in weights.values()) == count
        assert f"| limit `params<={limit}` | {verdict}: {count:,} |" in files[".md"].read_text()


def test_a_trial_that_was_rejected_is_said_to_be_beyond(say: Say, wide: tuple[str, ...]) -> None:
    assert say(*wide, "-n", "3", "--constraint", f"params<={params(4)}", "--seed", "1")[0] == 0
    rejected = next(row for row in trials(say) if row["state"] == "rejected")
    document, err = trained(say, rejected["address"])
    assert document["size"] == {"times": 1}
    assert f"beyond the study's params<={params(4)}" in err


def test_a_study_of_before_keeps_its_meaning(say: Say, wide: tuple[str, ...]) -> None:
    assert say(*wide, "-n", "2", "--constraint", f"params<={params(8)}")[0] == 0
    with sqlite3.connect("nas.db") as connection:
        connection.execute("UPDATE studies SET final_size = NULL")
    before = trials(say)
    assert say("resume", "s", "-n", "3")[0] == 0
    assert trials(say)[: len(before)] == before
    assert all(row["metrics"]["params"] == params(row["architecture"]["width"]) for row in trials(say))
    width = json.loads(say("best", "s", "--json")[1])["architecture"]["width"]
    document, err = trained(say, "s")
    assert document["size"] == {"times": 1}
    full = params(4 * width)
    within = "within" if full <= params(8) else "beyond"
    assert err.count("nas: ") == 1
    assert (
        f"nas: study 's' is older than final sizes, so this trains its search size times=1; with --size full "
        f"params is {full:,}, {within} the study's params<={params(8)}\n"
    ) in err
    _, err = trained(say, "s", "--size", "search")
    assert "older" not in err


@pytest.mark.parametrize("name", ["space", "counting"])
def test_costs_alone_train_nothing(say: Say, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Load, "of_others", lambda _: 0.0)
    (folder / "wide.py").write_text(SPACE)
    search = (*SEARCH, "--space", f"wide.py:{name}", "--final-size", "times=2", "-n", "2")
    code, _, err = say(*search, "--objective", "params:max", "--constraint", f"params<={params(8)}")
    assert code == 0, err
    for row in trials(say):
        assert row["metrics"].keys() == ({"params", "macs"} if row["state"] == "complete" else {"params"})
        assert row["metrics"]["params"] == params(2 * row["architecture"]["width"])
    assert set(builds()) == ({"2 meta"} if name == "space" else set())
    best = json.loads(say("best", "s", "--json")[1])["metrics"]["params"]
    assert best == max(row["metrics"]["params"] for row in trials(say) if row["state"] == "complete") <= params(8)
    assert say("resume", "s", "-n", "3")[0] == 0
    assert say("verify", "s")[0] == 0
    # A latency builds the final network, once for each candidate, and nothing else does.
    builds()
    code, _, err = say(*search[:2], "t", *search[3:], "--objective", "latency_ms:min", "-s", "latency.batch=2")
    assert code == 0, err
    assert [line for line in builds() if "cpu" in line] == ["2 cpu"] * 2
    rows = json.loads(say("trials", "t", "--json")[1])
    assert all(row["metrics"]["latency_ms"] > 0 and row["metrics"]["latency_iqr_ms"] >= 0 for row in rows)
    assert "latency batch=2 dtype=float32 runtime=torch" in " ".join(say("show", "t")[1].split())


def test_a_busy_machine_is_said_once(say: Say, wide: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Load, "of_others", lambda _: 0.5)
    code, _, err = say(*wide, "-n", "2", "--objective", "latency_ms:min")
    assert code == 0, err
    assert err.count("nas: other processes keep the processors busy") == 1
    code, out, err = say("show", "s:0", "--latency", "--json")
    found = json.loads(out)["latency"]
    assert (code, found["busy"], found["threads"], found["batch"], found["runtime"]) == (0, 0.5, 1, 1, "torch")
    assert "nas: other processes" in err
    page = " ".join(say("show", "s:0", "--latency")[1].split())
    assert "latency at the final size, measured now" in page
    monkeypatch.setattr(Load, "of_others", lambda _: 0.0)
    assert "other processes" not in say("show", "s:0", "--latency")[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-s", "latency.batch=0"), "latency.batch"),
        (("-s", "latency.runtime=tensorrt"), "latency.runtime"),
        (("-s", "latency.bach=3"), "did you mean 'batch'"),
        (("-s", "latency.runtime=onnxruntime", "-s", "latency.dtype=float16"), "it is float32"),
        (("--space", "nasbench_graph", "--data", "karate", "-s", "latency.batch=3"), "a graph is always one batch"),
        (("--final-size", "tmes=3"), "did you mean 'times'"),
    ],
)
def test_settings_that_do_not_fit(say: Say, wide: tuple[str, ...], words: tuple[str, ...], message: str) -> None:
    code, out, err = say("search", "--space", "wide.py:space", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert "name one, s:N" in say("show", "s", "--latency")[2]
