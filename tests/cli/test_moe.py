"""The space `moe` through the commands: what a study says of experts."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import nas
from nas_cli import experts_view
from nas_cli.experts_view import heat_map, remarks
from nas_core.evaluation import LOADS, Context, Report
from reports.facts import sized
from search_spaces.layers.moe import MixtureOfExperts
from studies.jobs.rounds import Compression
from studies.store.store import Store

Say = Callable[..., tuple[int, str, str]]

DATA = "csv:t.csv?target=y"
SEARCH = ("search", "--study", "s", "--space", "moe", "--data", DATA, "--epochs", "1", "--threads", "1", "--seed", "1")


@pytest.fixture
def table(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    with Path("t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "c", "y"])
        for row in rng.normal(size=(120, 3)):
            writer.writerow([*(f"{value:.4f}" for value in row), f"{row[0] * row[1] + row[2]:.4f}"])
    return folder


def test_both_dense_networks_stand_beside_the_best(say: Say, table: Path) -> None:
    known = ("--enqueue", "sparsely-gated", "--baselines", "dense,dense-total,smear")
    code, _, err = say(*SEARCH, "--trials", "1", "--size", "width=32", *known)
    assert code == 0, err
    document = json.loads(say("best", "s", "--json")[1])
    metrics = document["metrics"]
    dense, total, smear = (one["metrics"] for one in document["baselines"])
    assert dense["params"] == dense["active_params"] == pytest.approx(metrics["active_params"], rel=0.02)
    assert total["params"] == total["active_params"] == pytest.approx(metrics["params"], rel=0.02)
    sizes = document["baselines"][2]["compared"][0]["sizes"]
    assert sizes == {name: smear[name] / metrics[name] for name in ("active_params", "params")}
    shown = json.loads(say("show", "s:0", "--json")[1])
    assert shown["hidden_units"] == {"expert": 60}  # 64, the next multiple of 8, would be 6% too many
    assert "\nhidden units per expert: 60\n" in say("show", "s:0")[1]
    page = say("best", "s")[1]
    assert "dense of equal active parameters: val_rmse" in page
    assert "dense-total of equal total parameters: val_rmse" in page


@pytest.mark.parametrize(
    ("active", "every", "text"),
    [
        (1.0, 0.25, " of equal active parameters"),
        (4.0, 0.99, " of equal total parameters"),
        (1.01, 1.0, " of equal active and total parameters"),
        (0.5, 1.5, " of 0.5x the active, 1.5x the total parameters"),
    ],
)
def test_how_large_a_baseline_is(active: float, every: float, text: str) -> None:
    assert sized({"active_params": active, "params": every}) == text
    assert sized({}) == ""


def test_active_parameters_are_a_constraint(say: Say, table: Path) -> None:
    code, _, err = say(*SEARCH, "--trials", "1", "--size", "width=8", "--constraint", "active_params<=1500")
    assert code == 0, err
    assert json.loads(say("best", "s", "--json")[1])["metrics"]["active_params"] <= 1500


def test_what_layers_of_experts_do_is_reported_and_warned_of(say: Say, table: Path) -> None:
    crowded = ("--space", "moe(routers=(switch,))", "--enqueue", "switch", "--baselines", "dense")
    code, _, err = say(*SEARCH, *crowded, "--trials", "1", "--size", "width=8", "-s", "recipe.batch_size=16")
    assert code == 0, err
    document = json.loads(say("show", "s:0", "--json")[1])
    metrics = document["metrics"]
    for name in ("train_load_ratio", "train_dead_share", "train_dropped_share"):
        assert 0 <= metrics[name] <= metrics[f"{name}_max"]
    assert 0 < metrics["train_router_entropy"] <= 1
    assert metrics["train_load_ratio"] >= 1
    assert not [name for name in json.loads(say("show", "s", "--json")[1])["baselines"][0]["metrics"] if "load" in name]
    page = say("show", "s:0")[1]
    texts = list(remarks(metrics, document["loads"]))
    assert ("dead experts: " in page) == (metrics["train_dead_share"] > 0)
    assert all(f"warning: {text}" in page for text in texts)
    assert metrics["train_dropped_share_max"] > 0.05  # 16 rows over 8 experts
    assert "the capacity drops " in page
    layers = document["loads"]
    assert len(layers) == 2  # every second of four blocks
    for name, shares in layers.items():
        assert len(shares) == 8
        assert sum(shares) == pytest.approx(1)
        assert f"{name} |" in page
    assert f"{max(max(shares) for shares in layers.values()):.1%} of a layer's work" in page


GRIN = ("--space", "moe(routers=(grin,))", "--enqueue", "grin", "--trials", "1", "--size", "width=8")


def test_loads_are_shares_of_what_routers_choose(say: Say, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: dict[int, np.ndarray] = {}  # per layer, in the order in which they are passed
    routed = MixtureOfExperts._routed

    def counts(layer: MixtureOfExperts, x: torch.Tensor, *told: torch.Tensor | None) -> Any:
        routing = routed(layer, x, *told)
        if layer.training and x.device.type == "cpu":
            found = np.bincount(routing.chosen.flatten().numpy(), minlength=16)
            counted[id(layer)] = counted.get(id(layer), 0) + found
        return routing

    with monkeypatch.context() as patch:
        patch.setattr(MixtureOfExperts, "_routed", counts)
        assert say(*SEARCH, *GRIN)[0] == 0
    loads = json.loads(say("show", "s:0", "--json")[1])["loads"]
    assert len(loads) == len(counted) == 4
    for (name, shares), found in zip(loads.items(), counted.values(), strict=True):
        assert found.sum() % 2 == 0  # two per row
        assert shares == pytest.approx((found / found.sum()).tolist())
        dead = [str(expert) for expert, count in enumerate(found) if count == 0]
        assert not dead or f"{', '.join(dead)} of {name}" in say("show", "s:0")[1]


def test_loads_are_committed_with_the_result_and_are_the_same_after_a_kill(
    say: Say, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        raise Killed

    def loads(study: str) -> Any:
        return json.loads(say("show", f"{study}:0", "--json")[1])["loads"]

    settings = (*GRIN, "--epochs", "3", "-s", "checkpoint_seconds=0")
    assert say(*SEARCH, *settings)[0] == 0
    whole = loads("s")
    with monkeypatch.context() as patch:
        patch.setattr(Store, "finish", killed)
        with pytest.raises(Killed):
            say(*SEARCH, *settings, "--study", "t")
    assert whole
    assert loads("t") not in ({}, whole)  # of the second epoch
    assert say("resume", "t")[0] == 0
    assert loads("t") == whole
    assert say("train", "s:0", "--epochs", "1")[0] == 0
    trained = json.loads(say("show", "s:0/train-1", "--json")[1])["loads"]
    assert trained.keys() == whole.keys()
    assert "loads of experts (the darkest does " in say("show", "s:0/train-1")[1]


def test_the_map_shades_by_the_largest_load_and_leaves_out_the_dead() -> None:
    assert list(heat_map({"blocks.0.layer": (0.5, 0.0, 0.25, 0.25), "b": (0.001, 0.999, 0.0, 0.0)})) == [
        "                0123",
        "blocks.0.layer |+ ::| 0 does 50.0%",
        "b              |.@  | 1 does 99.9%",
    ]
    tens, ones, line = heat_map({"a": [0.0] * 11 + [1.0]})
    assert (tens, ones, line) == ("   0         1 ", "   012345678901", "a |           @| 11 does 100.0%")


def test_remarks_have_the_figures() -> None:
    assert list(remarks({"val_rmse": 1.0}, {})) == []
    assert list(remarks({"train_dropped_share": 0.05, "train_dropped_share_max": 0.05}, {})) == []
    (dropped,) = remarks({"train_dropped_share": 0.04, "train_dropped_share_max": 0.123}, {})
    assert dropped.startswith("the capacity drops 4.0% of what routers choose, 12.3% in the worst layer; raise it")
    figures = {"train_dead_share": 0.25, "train_dead_share_max": 0.5}
    (dead,) = remarks(figures, {"a": (0.25, 0.75)})
    assert dead.startswith("dead experts: 25.0% get no token of a batch, 50.0% in the worst layer; take fewer")
    (dead,) = remarks(figures, {"a": (0.0, 0.5, 0.0, 0.5), "b": (0.5, 0.5), "c": (1.0, 0.0)})
    assert "50.0% in the worst layer (none of the whole epoch: 0, 2 of a; 1 of c); take fewer" in dead


def test_the_best_network_is_warned_of_by_the_names_of_its_dead_experts(
    say: Say, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert say(*SEARCH, *GRIN)[0] == 0
    monkeypatch.setattr(experts_view, "remarks", lambda metrics, loads: (f"of {sorted(loads)}",))
    for command in ("best", "show"):
        assert "  warning: of ['blocks." in say(command, "s")[1]


@pytest.fixture
def trained(say: Say, table: Path) -> Path:
    """A network of experts of `s:0`, trained for an epoch."""
    assert say(*SEARCH, "--trials", "1", "--size", "width=8", "--enqueue", "switch")[0] == 0
    assert say("train", "s:0", "--epochs", "1")[0] == 0
    rows = ["a,b,c", *(f"0.{number},1.{number},-0.{number}" for number in range(1, 6))]
    Path("new.csv").write_text("\n".join(rows) + "\n")
    return table


def answers(say: Say, model: str, *words: str) -> list[float]:
    code, out, err = say("infer", model, "csv:new.csv", "--json", *words)
    assert code == 0, err
    return [answer["numbers"][0] for answer in json.loads(out)]


def test_a_trained_network_is_written_and_asked(say: Say, trained: Path) -> None:
    code, _, err = say("export", "s:0", "--format", "python,safetensors,json", "--out", "out", "--no-verify")
    assert code == 0, err
    assert {path.suffix for path in Path("out").iterdir()} >= {".py", ".safetensors", ".json"}
    found = answers(say, "out")
    assert len(set(found)) == 5
    assert np.isfinite(found).all()
    (described,) = Path("out").glob("*.json")
    network = nas.load(str(described)).eval()
    assert network(torch.zeros(2, 3)).shape == (2, 1)


@pytest.mark.slow
def test_programs_of_a_trained_network_hold_all_experts(say: Say, trained: Path) -> None:
    # Verified, with batches of other sizes too.
    code, _, err = say("export", "s:0", "--format", "onnx,pt2,python,json", "--out", "out")
    assert code == 0, err
    assert {path.suffix for path in Path("out").iterdir()} >= {".onnx", ".pt2", ".py"}


LESS = ("--method", "magnitude", "--target", "params<=0.8x")


def test_what_can_be_removed_of_a_trained_network_is_planned(say: Say, trained: Path) -> None:
    code, out, err = say("compress", "s:0", *LESS, "--plan")
    assert code == 0, err
    assert "experts.up" in out


@pytest.mark.slow
def test_a_trained_network_is_made_smaller(say: Say, trained: Path) -> None:
    code, out, err = say("compress", "s:0", *LESS, "--epochs", "0", "--json")
    assert code == 0, err
    (run,) = json.loads(out)["runs"]
    assert run["metrics"]["params"] <= 0.8 * run["metrics"]["base_params"]


def test_trainings_of_a_compression_hand_on_the_loads(tmp_path: Path) -> None:
    """In short; through the commands: the next one."""

    def learn(*_: object) -> Generator[Report, None, None]:
        yield Report(1, {"val_rmse": 0.5}, 2.0, {LOADS: {"a": (0.25, 0.75)}})

    job: Any = SimpleNamespace(evaluator=SimpleNamespace(learn=learn), _costs=lambda _: {"params": 3.0})
    (found,) = Compression._trained(job, nn.Identity(), 4, 1, True, Context(0, tmp_path), None)
    assert found == Report(5, {"val_rmse": 0.5, "params": 3.0}, 2.0, {LOADS: {"a": (0.25, 0.75)}})


@pytest.mark.slow
@pytest.mark.usefixtures("forked_checks")
def test_a_smaller_network_has_the_loads_of_its_own_training(say: Say, trained: Path) -> None:
    code, _, err = say("compress", "s:0", *LESS, "--epochs", "1")
    assert code == 0, err
    document = json.loads(say("show", "s:0", "--json")[1])
    (smaller,) = document["compressions"]
    assert smaller["loads"].keys() == document["loads"].keys()
    assert all(sum(shares) == pytest.approx(1) for shares in smaller["loads"].values())


def test_a_front_of_loss_and_active_parameters(say: Say, table: Path) -> None:
    two = ("--objective", "val_loss", "--objective", "active_params", "--strategy", "nsga2")
    evolved = ("-s", "strategy.population=4", "--enqueue", "dense,switch", "--trials", "6", "--size", "width=8")
    code, _, err = say(*SEARCH, *two, *evolved)
    assert code == 0, err
    front = json.loads(say("front", "s", "--json")[1])
    points = [(one["metrics"]["val_loss"], one["metrics"]["active_params"]) for one in front]
    assert points
    assert not any(a != b and a[0] <= b[0] and a[1] <= b[1] for a in points for b in points)


@pytest.mark.parametrize(
    ("space", "data", "told"),
    [
        ("moe(backbone=patches)", DATA, ("is tabular-regression; take --space 'moe(backbone=table)'",)),
        ("moe", "digits", ("is image-classification; take --space 'moe(backbone=patches)'",)),
        ("nasbench201", DATA, ("is tabular-regression; take another space (activation, ", "mlp, moe)")),
        ("moe(routers=(expert-choice,))", DATA, ("router expert-choice needs several tokens", "use noisy-top-k, ")),
        ("moe(backbone=tabel)", DATA, ("'tabel'", "table")),
    ],
)
def test_what_does_not_fit_says_what_would(say: Say, table: Path, space: str, data: str, told: tuple[str, ...]) -> None:
    code, _, err = say("search", "--space", space, "--data", data, "--trials", "1")
    assert code == 2
    assert all(text in err for text in told), err
    assert err.count("\n") <= 2


def test_an_illegal_network_is_refused_with_what_is_allowed(say: Say, table: Path) -> None:
    chosen = "ffn=switch,depth=2,expansion=2.0,experts=2,active=4"
    code, _, err = say("show", "--architecture", f"moe:{chosen}")
    assert code == 2
    assert "active" in err


def test_a_network_of_merged_experts_is_not_made_smaller_and_says_why(say: Say, table: Path) -> None:
    assert say(*SEARCH, "--trials", "1", "--size", "width=8", "--enqueue", "smear")[0] == 0
    assert say("train", "s:0", "--epochs", "1")[0] == 0
    code, _, err = say("compress", "s:0", *LESS, "--epochs", "0")
    assert code == 2
    assert "no unit of the network can be removed" in err
    assert "tensordot in 'blocks.0.layer.experts'" in err
