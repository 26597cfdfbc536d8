"""The table evaluator: the shipped mappings on the real tables, every form of row, and bad input."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import yaml

from nas_core import moves, tokens
from nas_core.architecture import Architecture
from nas_core.choice import Choice, When
from nas_core.errors import NasError, NotFoundError, TrialError, UsageError
from nas_core.evaluation import Context, Report
from nas_core.space import SearchSpace
from nas_core.strategy import Proposal
from nas_core.testing.evaluator import check
from search_spaces.nasbench201.space import NasBench201
from search_spaces.nasbench_graph.space import NasBenchGraph
from training.evaluators.joined import CostTable, Joined
from training.evaluators.table import Table
from training.evaluators.table_mapping import SHIPPED, TableMapping

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "tables.md"


class Nested(SearchSpace):
    """Five architectures; `kernel` exists only where there is a convolution."""

    name = "nested"
    tasks = frozenset({"image-classification"})
    choices = (
        Choice("operation", ("skip", "conv")),
        Choice("kernel", (3, 5), when=(When("operation", ("conv",)),)),
        Choice("wide", (False, True), when=(When("operation", ("conv",)),)),
    )

    def identity(self, arch: Architecture) -> str:
        return f"{arch.values['operation']}{arch.values.get('kernel', '')}"


SPACE = Nested()
ROWS = """operation,kernel,wide,tokens,val,test,cost
skip,,,"1,0,0",50,51,1
conv,3,False,"2,1,1",60,61,2
conv,3.0,True,"2,1,2",62,63,3
conv,5,False,"2,2,1",64,,4
conv,5,True,"2,2,2",66,67,5
"""
MAPPING: dict[str, Any] = {
    "space": "nested",
    "row": {"choices": {"operation": "operation", "kernel": "kernel", "wide": "wide"}},
    "data": {
        "toy": {
            "task": {"kind": "image-classification", "input_shape": [3, 8, 8], "outputs": 2},
            "metrics": {"val_accuracy": {"column": "val", "scale": 0.01}, "test_accuracy": {"column": "test"}},
            "costs": {"params": {"column": "cost", "scale": 1000, "offset": 7}},
        }
    },
}


def write(folder: Path, rows: str = ROWS, **changes: Any) -> Path:
    (folder / "toy.csv").write_text(rows, encoding="utf-8")
    (folder / "toy.yaml").write_text(yaml.safe_dump({**MAPPING, **changes}), encoding="utf-8")
    return folder / "toy.csv"


def look_up(table: Table, arch: Architecture, budget: float | None = None) -> Report:
    (report,) = table.evaluate(Proposal(arch), budget, Context(0, Path()))
    return report


def arch(operation: str, kernel: int | None = None, wide: bool | None = None) -> Architecture:
    values = {"operation": operation, "kernel": kernel, "wide": wide}
    return Architecture("nested", {name: value for name, value in values.items() if value is not None})


# --- the benchmark tables ---------------------------------------------------------------------------------


def rows_of(file: Path) -> Iterator[dict[str, str]]:
    with gzip.open(file, "rt", newline="") as lines:
        yield from csv.DictReader(lines)


def test_nasbench201_gives_every_row_its_own_values(shared_data: Path) -> None:
    space, file = NasBench201(), shared_data / "nb201.csv.gz"
    tables = {"c10": Table(space, file, "cifar10"), "c100": Table(space, file, "cifar100")}
    best = {"c10": 0.0, "c100": 0.0}
    for number, row in enumerate(rows_of(file)):
        if number % 97 and number not in (6111, 9930):
            continue
        cell = space.from_text(row["arch"])
        for prefix, table in tables.items():
            assert table.identity(cell) == row["arch"]
            for level, ending in ((12, "_e12"), (200, "")):
                report = look_up(table, cell, level)
                assert report.step == level
                assert report.metrics["val_accuracy"] == pytest.approx(float(row[f"{prefix}_valid{ending}"]) / 100)
                assert report.metrics["test_accuracy"] == pytest.approx(float(row[f"{prefix}_test{ending}"]) / 100)
                assert report.seconds == pytest.approx(level * float(row[f"{prefix}_epoch_s"]))
            assert look_up(table, cell) == look_up(table, cell, 200)
            costs = table.costs(cell, ["params", "macs", "val_accuracy"])
            assert costs == space.costs(cell, table.task, space.Size.preset("full")) | {"macs": costs["macs"]}
            best[prefix] = max(best[prefix], look_up(table, cell).metrics["val_accuracy"])
    assert best == {"c10": 0.916067, "c100": 0.734933}


def test_nasbench201_holds_all_cells_and_answers_duplicates_by_row(shared_data: Path) -> None:
    space = NasBench201()
    table = Table(space, shared_data / "nb201.csv.gz", "cifar10")
    groups: dict[str, set[float]] = {}
    for cell in moves.enumerate_all(space):
        groups.setdefault(space.identity(cell), set()).add(look_up(table, cell).metrics["val_accuracy"])
    assert any(len(values) > 1 for values in groups.values())


def test_nasbench_graph_finds_the_row_of_every_genotype(shared_data: Path) -> None:
    """The benchmark's own map from genotypes to rows is the judge."""
    space, file = NasBenchGraph(), shared_data / "nasbench_graph.csv.gz"
    index = numpy.load(shared_data / "nasbench_graph_index.npz", allow_pickle=False)
    links = {"".join(map(str, link)): position for position, link in enumerate(index["links"])}
    row_of, rows = index["row"], list(rows_of(file))
    table = Table(space, file, "cora")
    for net in (net for number, net in enumerate(moves.enumerate_all(space)) if number % 29 == 0):
        topology, *operations = net.values.values()
        position = [space.choices[1].index(operation) for operation in operations]
        row = rows[int(row_of[links[str(topology)]][tuple(position)])]
        report = look_up(table, net)
        assert report.metrics["val_accuracy"] == float(row["cora_valid"])
        assert report.metrics["test_accuracy"] == float(row["cora_test"])
        assert report.metrics["latency_ms"] == pytest.approx(1000 * float(row["cora_latency"]))
        assert report.metrics["params"] == pytest.approx(1e6 * float(row["cora_params_m"]))


def test_every_shipped_data_set_loads(shared_data: Path, tmp_path: Path) -> None:
    """On the rows of the file that it asks for; the whole file is read above."""
    best = {"cora": 0.8193, "citeseer": 0.7280, "pubmed": 0.8113, "cs": 0.9213, "photo": 0.9407, "computers": 0.9190}
    best["proteins"] = 0.8533
    space, file = NasBenchGraph(), shared_data / "nasbench_graph.csv.gz"
    with pytest.raises(UsageError, match="did you mean 'cora'"):
        Table(space, file, "coro")
    rows, names = list(rows_of(file)), TableMapping.load(SHIPPED / "nasbench_graph.yaml").data
    found_best = {data: max(rows, key=lambda row: float(row[f"{data}_valid"] or 0)) for data in names}
    same = [
        row for row in rows if row["link"] == "0000" and {row[f"op{n}"] for n in (1, 2, 3, 4)} in ({"gat"}, {"gcn"})
    ]
    file = tmp_path / file.name
    with gzip.open(file, "wt", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows({tuple(row.values()): row for row in (*found_best.values(), *same)}.values())
    for data, row in found_best.items():
        net = space.from_text(f"{row['link']}:{row['op1']},{row['op2']},{row['op3']},{row['op4']}")
        found = look_up(Table(space, file, data), net).metrics["val_roc_auc" if data == "proteins" else "val_accuracy"]
        assert found == pytest.approx(best[data], abs=5e-5)
    missing = Table(space, file, "proteins")
    with pytest.raises(TrialError, match="no-value"):
        look_up(missing, space.from_text("0000:gat,gat,gat,gat"))
    assert look_up(missing, space.from_text("0000:gcn,gcn,gcn,gcn")).metrics["val_roc_auc"] > 0.5


@pytest.mark.parametrize("data", ["cifar10", "cora"])
def test_contract_on_the_benchmarks(shared_data: Path, data: str) -> None:
    space: SearchSpace = NasBench201() if data == "cifar10" else NasBenchGraph()
    table = Table(space, shared_data / ("nb201.csv.gz" if data == "cifar10" else "nasbench_graph.csv.gz"), data)
    assert list(check(table, space, moves.complete(space, {}, moves.first))) == []


# --- forms of rows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [MAPPING["row"], {"tokens": "tokens"}], ids=["choices", "tokens"])
def test_rows_by_choices_and_by_tokens(tmp_path: Path, row: dict[str, Any]) -> None:
    table = Table(SPACE, write(tmp_path, row=row), "toy")
    assert table.fidelity is None
    report = look_up(table, arch("conv", 3, True))
    assert report == Report(1.0, {"val_accuracy": 0.62, "test_accuracy": 63.0, "params": 3007.0}, 0.0)
    assert look_up(table, arch("skip")).metrics["val_accuracy"] == 0.5
    assert table.costs(arch("conv", 5, False), ["params", "latency_ms"]) == {"params": 4007.0}
    with pytest.raises(TrialError, match=r"no-value: .* no test_accuracy"):
        look_up(table, arch("conv", 5, False))
    with pytest.raises(UsageError, match="no values at 3 epochs; it has one level only"):
        look_up(table, arch("skip"), 3)
    assert list(check(table, SPACE, arch("skip"))) == []


def test_rows_by_digits_that_count_from_zero(tmp_path: Path) -> None:
    space = NasBench201()
    rows = "ops,val\n421211,0.5\n000000,0.25\n"
    data = {"toy": {**MAPPING["data"]["toy"], "metrics": {"val_accuracy": {"column": "val"}}, "costs": {}}}
    file = write(tmp_path, rows, space="nasbench201", row={"tokens": "ops", "first": 0}, data=data)
    cell = tokens.decode(space, [5, 3, 2, 3, 2, 2])
    table = Table(space, file, "toy")
    assert look_up(table, cell).metrics == {"val_accuracy": 0.5}
    absent = tokens.decode(space, [1, 1, 1, 1, 1, 2])
    assert table.costs(absent, ["params"]) == {}
    with pytest.raises(TrialError, match=r"no-row: .*none~0.*skip_connect~2"):
        look_up(table, absent)


def test_rows_of_classes(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"rows 2 and 3 both describe conv3 \(operation=conv, .*wide=False; .*wide=True\)"
    ):
        Table(SPACE, write(tmp_path, match="identity"), "toy")
    rows = "".join(line for line in ROWS.splitlines(keepends=True) if "True" not in line)
    table = Table(SPACE, write(tmp_path, rows, match="identity"), "toy")
    assert look_up(table, arch("conv", 3, True)) == look_up(table, arch("conv", 3, False))
    assert table.identity(arch("conv", 3, True)) == "conv3"
    assert Table(SPACE, write(tmp_path), "toy").identity(arch("conv", 3, True)) != "conv3"


def test_compression_is_seen_from_the_content_and_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    file = write(tmp_path)
    file.write_bytes(gzip.compress(b"\xef\xbb\xbf" + ROWS.encode()))
    assert look_up(Table(SPACE, file, "toy"), arch("skip")).metrics["val_accuracy"] == 0.5


def test_scaled_values_are_the_nearest_fractions(tmp_path: Path) -> None:
    table = Table(SPACE, write(tmp_path, ROWS.replace("62,63", "91.6067,63")), "toy")
    assert look_up(table, arch("conv", 3, True)).metrics["val_accuracy"] == 0.916067


# --- bad input --------------------------------------------------------------------------------------------


def changed(**toy: Any) -> dict[str, Any]:
    return {"data": {"toy": {**MAPPING["data"]["toy"], **toy}}}


WRONG_MAPPINGS: list[tuple[dict[str, Any], str]] = [
    ({"space": "regnet"}, "describes space 'regnet', not 'nested'"),
    ({"spaces": "x"}, "unknown key 'spaces'; did you mean 'space'"),
    ({"data": {"other": MAPPING["data"]["toy"]}}, r"unknown data set of table 'toy.csv' 'toy' \(known: other\)"),
    ({"row": {"text": "tokens"}}, "space 'nested' has no text form; use choices or tokens"),
    ({"row": {}}, "exactly one of text, choices, tokens"),
    ({"row": {"tokens": "wide"}}, "row 1: "),
    ({"row": {"tokens": "operation"}}, "row 1: 'skip' is no list of tokens"),
    ({"row": {"choices": {"operation": "operation"}}}, "no column for kernel, wide of space 'nested'"),
    ({"row": {"choices": {**MAPPING["row"]["choices"], "kernels": "kernel"}}}, "'kernels'.*did you mean 'kernel'"),
    ({"row": {"choices": {**MAPPING["row"]["choices"], "kernel": "val"}}}, "row 1: '50' is not an option of"),
    (changed(metrics={"val_accuracy": {"column": "vall"}}), "toy.csv' has no column 'vall'; did you mean 'val'"),
    (changed(metrics={"val_accuracy": {"column": "operation"}}), "row 1: column 'operation' holds 'skip', no number"),
    (changed(metrics={"val_accuracy": {"column": "wide", "scale": 2}}), "row 2: column 'wide' holds 'False'"),
    (changed(metrics={"val_accuracy": {}}), "either column, or columns by fidelity level"),
    (changed(metrics={}), "at least 1"),
    (changed(metrics={"a": {"columns": {1: "val"}}, "b": {"column": "test"}}), "same fidelity levels"),
    (changed(seconds={"column": "cost", "per_unit": True}), "seconds per unit need metrics with fidelity levels"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG_MAPPINGS, ids=range(len(WRONG_MAPPINGS)))
def test_a_mapping_that_does_not_fit(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Table(SPACE, write(tmp_path, **changes), "toy")


WRONG_FILES: list[tuple[bytes, str]] = [
    (b"", "is empty"),
    (ROWS.replace("skip,,", "skip,3,").encode(), "row 1: choice 'kernel' is inactive but given"),
    (ROWS.splitlines()[0].encode(), "has no rows"),
    (ROWS.encode() + b"conv,3\n", "line 7: 2 cells, but the header has 7"),
    (
        ROWS.encode() + b'conv,5,True,"2,2,2",66,67,5\n',
        "rows 5 and 6 both describe operation=conv, kernel=5, wide=True$",
    ),
    (b"\x89PNG\r\n\x1a\n\xff\xfe\x00", "is not a readable csv file"),
    (gzip.compress(ROWS.encode())[:-20], "is not a readable csv file"),
    (gzip.compress(ROWS.encode())[:10] + b"garbage", "is not a readable csv file"),
]


@pytest.mark.parametrize(("content", "message"), WRONG_FILES, ids=range(len(WRONG_FILES)))
def test_a_file_that_is_no_table(tmp_path: Path, content: bytes, message: str) -> None:
    file = write(tmp_path)
    file.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        Table(SPACE, file, "toy")
    assert "toy.csv" in str(caught.value)
    assert str(caught.value).count("\n") < 2


def test_official_text_must_be_written_as_the_space_writes_it(tmp_path: Path) -> None:
    space = NasBenchGraph()
    changes = changed(metrics={"val_accuracy": {"column": "val"}}, costs={})
    for text, message in (
        ("0121:gcn,gin,fc,cheb", "row 1: '0121:gcn,gin,fc,cheb' is written '0112:gcn,gin,cheb,fc'"),
        ("0112", "row 1: '0112' is no architecture"),
    ):
        file = write(tmp_path, f'net,val\n"{text}",0.5\n', space="nasbench_graph", row={"text": "net"}, **changes)
        with pytest.raises(UsageError, match=message):
            Table(space, file, "toy")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    file = write(tmp_path)
    with pytest.raises(NotFoundError, match=r"no table '.*absent.csv'"):
        Table(SPACE, tmp_path / "absent.csv", "toy", tmp_path / "toy.yaml")
    with pytest.raises(NotFoundError, match=r"no mapping file '.*absent.yaml'"):
        Table(SPACE, file, "toy", tmp_path / "absent.yaml")
    with pytest.raises(UsageError, match="unknown mapping 'nb202'; did you mean 'nb201'"):
        Table(SPACE, file, "toy", "nb202")
    (tmp_path / "toy.yaml").unlink()
    with pytest.raises(UsageError, match=r"no 'toy.yaml' beside it, and the shipped ones fit .*nasbench_graph.csv.gz"):
        Table(SPACE, file, "toy")
    for content in ("- a list", "a: [unclosed", "\x00"):
        (tmp_path / "toy.yaml").write_text(content)
        with pytest.raises(UsageError, match=r"mapping '.*toy.yaml'") as caught:
            Table(SPACE, file, "toy")
        assert "\n" not in str(caught.value)
    with pytest.raises(NasError):
        Table(SPACE, tmp_path, "toy", tmp_path / "toy.yaml")


# --- the document -----------------------------------------------------------------------------------------


@pytest.fixture
def documented(tmp_path: Path) -> tuple[SearchSpace, Path]:
    """The files of docs/tables.md: the space, the tables of results, costs and scores, with their mappings."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for language, names in (
        ("python", ["toy_space.py"]),
        ("csv", ["results.csv", "watts.csv", "hints.csv"]),
        ("yaml", ["results.yaml", "watts.yaml", "hints.yaml"]),
    ):
        blocks = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
        for name, block in zip(names, blocks, strict=True):
            (tmp_path / name).write_text(block, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("toy_space", tmp_path / "toy_space.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.space, tmp_path / "results.csv"


def test_the_documented_example(documented: tuple[SearchSpace, Path]) -> None:
    space, file = documented
    table = Table(space, file, "pictures")
    assert table.fidelity is not None
    assert table.fidelity.levels == (10, 50)
    net = Architecture("toy", {"depth": 2, "activation": "silu"})
    assert look_up(table, net) == Report(50, {"val_accuracy": 0.753, "test_accuracy": 0.749, "params": 21000}, 137.5)
    assert look_up(table, net, 10).metrics["val_accuracy"] == 0.598
    with pytest.raises(UsageError, match="no values at 30 epochs; it has 10, 50"):
        look_up(table, net, 30)
    assert len({table.identity(one) for one in moves.enumerate_all(space)}) == 4
    assert list(check(table, space, net)) == []
    joined = Joined(table, CostTable(space, file.with_name("watts.csv")))
    assert joined.costs(net, ["power.phone", "power.board", "params"]) == {
        "power.phone": 0.54,
        "power.board": 2.23,
        "params": 21000,
    }


def test_the_document_names_every_shipped_data_set_and_key() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for path in SHIPPED.glob("*.yaml"):
        mapping = TableMapping.load(path)
        assert all(f"`{data}`" in text for data in mapping.data)
        assert any(f"`{file}`" in text for file in mapping.files)
    assert all(f"| `{key}` |" in text for key in TableMapping.model_fields)
