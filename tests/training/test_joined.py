"""A table of costs beside an evaluator: what it adds, what it leaves alone, and bad input."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.choice import Choice
from nas_core.errors import NotFoundError, TrialError, UsageError
from nas_core.evaluation import Budget, Context, Fidelity, Metric, Report
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from nas_core.strategy import Proposal
from nas_core.testing.evaluator import check
from search_spaces.nasbench201.space import NasBench201
from training.evaluators.joined import CostTable, Joined
from training.evaluators.table import Table
from training.evaluators.table_mapping import SHIPPED, TableMapping

MAPPING: dict[str, Any] = {
    "space": "toy",
    "row": {"tokens": "code", "first": 0},
    "costs": {
        "latency_ms.phone": {"column": "phone", "unit": "ms"},
        "battery": {"column": "hours", "scale": 60, "unit": "minutes", "goal": "max"},
    },
}
ROWS = """code,phone,hours
00,1.5,8
01,2.5,
10,3.5,6
"""


class Toy(SearchSpace):
    """Four architectures, of which the table knows three."""

    name = "toy"
    tasks = frozenset({"image-classification"})
    choices = (Choice("depth", (1, 2)), Choice("activation", ("relu", "silu")))


class Steps:
    """Reports the depth, twice; counts what is evaluated."""

    metrics = (Metric("score"), Metric("params", "min", cost=True))
    fidelity = Fidelity("epochs", 1, 2, continues=True)
    deterministic = True
    in_process = False
    task = SimpleNamespace(kind="image-classification")
    threads = 3

    def __init__(self) -> None:
        self.begun = 0

    def identity(self, arch: Architecture) -> str | None:
        return f"same {arch.values['depth']}"

    def costs(self, arch: Architecture, names: Any) -> dict[str, float]:
        assert set(names) <= {"score", "params"}  # it is asked for nothing that is not its own
        return {"params": 7.0} if "params" in names else {}

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        self.begun += 1
        for step in range(1, int(budget or 2) + 1):
            yield Report(step, {"score": float(step), "params": 7.0}, float(step))


SPACE = Toy()


def arch(depth: int, activation: str) -> Architecture:
    return Architecture("toy", {"depth": depth, "activation": activation})


def write(folder: Path, rows: str = ROWS, **changes: Any) -> Path:
    (folder / "toy.csv").write_text(rows, encoding="utf-8")
    (folder / "toy.yaml").write_text(yaml.safe_dump({**MAPPING, **changes}, sort_keys=False), encoding="utf-8")
    return folder / "toy.csv"


def joined(folder: Path, **changes: Any) -> Joined:
    return Joined(Steps(), CostTable(SPACE, write(folder, **changes)))


def test_costs_of_both(tmp_path: Path) -> None:
    found = joined(tmp_path)
    names = [metric.name for metric in found.metrics]
    assert names == ["score", "params", "latency_ms.phone", "battery"]
    assert found.metrics[2:] == (
        Metric("latency_ms.phone", "min", "ms", cost=True),
        Metric("battery", "max", "minutes", cost=True),
    )
    assert found.costs(arch(1, "relu"), names) == {"params": 7.0, "latency_ms.phone": 1.5, "battery": 480.0}
    assert found.costs(arch(2, "relu"), ["battery"]) == {"battery": 360.0}
    assert found.costs(arch(1, "silu"), names) == {"params": 7.0, "latency_ms.phone": 2.5}  # an empty cell


def test_all_else_is_the_evaluator(tmp_path: Path) -> None:
    found, context = joined(tmp_path), Context(0, tmp_path)
    assert (found.fidelity, found.deterministic, found.in_process) == (Steps.fidelity, True, False)
    assert (found.task, found.threads) == (Steps.task, 3)
    assert found.identity(arch(2, "relu")) == "same 2"
    proposal = Proposal(arch(1, "silu"))
    for budget in (None, 1):
        assert list(found.evaluate(proposal, budget, context)) == list(Steps().evaluate(proposal, budget, context))
    with pytest.raises(AttributeError):
        _ = found.nothing_of_this_name
    with pytest.raises(AttributeError):
        _ = found._private
    assert list(check(found, SPACE, arch(1, "relu"))) == []


def test_what_the_table_does_not_know_fails_before_it_is_evaluated(tmp_path: Path) -> None:
    inner = Steps()
    found = Joined(inner, CostTable(SPACE, write(tmp_path)))
    unknown = arch(2, "silu")
    with pytest.raises(TrialError, match=rf"no-row.*table of costs 'toy.csv' has no row for {unknown.key}"):
        next(iter(found.evaluate(Proposal(unknown), None, Context(0, tmp_path))))
    assert inner.begun == 0
    assert found.costs(unknown, ["params", "battery"]) == {"params": 7.0}


def test_costs_that_no_data_set_changes_belong_to_every_data_set_of_a_table(tmp_path: Path) -> None:
    data = {
        name: {
            "task": {"kind": "image-classification", "input_shape": [3, 8, 8], "outputs": 2},
            "metrics": {"val_accuracy": {"column": "phone"}},
            "costs": {"price": {"column": column}},
        }
        for name, column in (("one", "phone"), ("other", "code"))
    }
    file = write(tmp_path, "code,phone,hours\n00,1.5,8\n11,3.5,6\n", data=data)
    for name, price in (("one", 3.5), ("other", 11.0)):
        table = Table(SPACE, file, name)
        assert table.costs(arch(2, "silu"), ["price", "battery"]) == {"price": price, "battery": 360.0}
        assert next(table.evaluate(Proposal(arch(2, "silu")), None, Context(0, tmp_path))).metrics["battery"] == 360.0


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'toy.csv' and the evaluator both give params; rename it in .* 'toy.yaml'"):
        joined(tmp_path, costs={"params": {"column": "phone"}})
    with pytest.raises(NotFoundError, match=r"no table '.*absent.csv'"):
        CostTable(SPACE, tmp_path / "absent.csv")
    with pytest.raises(UsageError, match="describes space 'toy', not 'nasbench201'"):
        CostTable(NasBench201(), write(tmp_path))
    with pytest.raises(UsageError, match="has costs only; give it by --costs"):
        Table(SPACE, write(tmp_path), "one")
    with pytest.raises(UsageError, match="give data, costs or scores"):
        CostTable(SPACE, write(tmp_path, costs={}))
    with pytest.raises(UsageError, match="no column 'phones'; did you mean 'phone'"):
        CostTable(SPACE, write(tmp_path, costs={"a": {"column": "phones"}}))
    task = {"kind": "image-classification", "input_shape": [3, 8, 8], "outputs": 2}
    data = {"one": {"task": task, "metrics": {"val_accuracy": {"column": "phone"}}}}
    with pytest.raises(UsageError, match=r"'toy.yaml' has no costs beside those of its data sets"):
        CostTable(SPACE, write(tmp_path, costs={}, data=data))


# --- the shipped mapping -----------------------------------------------------------------------------------


def test_every_device_has_a_metric_of_its_name() -> None:
    mapping = TableMapping.load(SHIPPED / "nasbench201_latency.yaml")
    assert len(mapping.costs) == 27
    assert all(name == f"latency_ms.{cost.column}" for name, cost in mapping.costs.items())
    assert {(cost.unit, cost.goal, cost.scale, cost.offset) for cost in mapping.costs.values()} == {("ms", "min", 1, 0)}


def test_the_latencies_are_those_of_their_cells(shared_data: Path) -> None:
    space, file = NasBench201(), shared_data / "nb201_latency_ms.csv.gz"
    table = CostTable(space, file)
    with gzip.open(file, "rt", newline="") as lines, gzip.open(shared_data / "nb201.csv.gz", "rt", newline="") as cells:
        pairs = list(zip(csv.DictReader(lines), csv.DictReader(cells), strict=True))
    assert {name for name in pairs[0][0] if name not in ("index", "ops")} == {
        metric.name.removeprefix("latency_ms.") for metric in table.metrics
    }
    for row, cell in pairs[::401]:
        assert row["ops"] == cell["ops"]  # the official text and the digits are of one architecture
        found = table.costs(space.from_text(cell["arch"]), [metric.name for metric in table.metrics])
        assert found == {f"latency_ms.{name}": float(row[name]) for name in row if name not in ("index", "ops")}
    # Row 0 as HW-NAS-Bench publishes it.
    first = table.costs(space.from_text(pairs[0][1]["arch"]), ["latency_ms.raspi4", "latency_ms.eyeriss"])
    assert first == {"latency_ms.raspi4": 10.482, "latency_ms.eyeriss": 3.6456}


def test_joined_to_the_benchmark_table_it_keeps_the_contract(shared_data: Path) -> None:
    space = NasBench201()
    costs = CostTable(space, shared_data / "nb201_latency_ms.csv.gz")
    found = Joined(Table(space, shared_data / "nb201.csv.gz", "cifar10"), costs)
    assert list(check(found, space, moves.sample(space, generator("cell")))) == []
