"""Data of many graphs: files and their faults, batches gathered from arrays, and networks on files of them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from nas_core.architecture import Architecture
from nas_core.errors import UsageError
from training.data import load
from training.data.loading import Loading
from training.data.many_graphs import ManyGraphSource
from training.data.split import Split
from training.export import export
from training.export.proof import proofs_of
from training.export.script import script
from training.infer import classify, open_model
from training.networks import build
from training.testing.toy_space import ToySpace

COUNTS = np.array([3, 1, 4, 2, 5, 2, 3, 4, 6, 2, 3, 3])


def arrays(**changes: object) -> dict[str, Any]:
    """Twelve graphs of two classes: a path through the nodes of each, in both directions, edges shuffled."""
    rng = np.random.default_rng(0)
    starts = np.cumsum(COUNTS) - COUNTS
    paths = [start + np.arange(count) for start, count in zip(starts, COUNTS, strict=True)]
    one_way = np.concatenate([np.stack([path[:-1], path[1:]]) for path in paths], axis=1)
    edges = np.concatenate([one_way, one_way[::-1]], axis=1)
    edges = edges[:, rng.permutation(edges.shape[1])]
    made = {
        "x": rng.normal(size=(COUNTS.sum(), 3)).astype(np.float32),
        "edge_index": edges.astype(np.int32),
        "graph_id": np.repeat(np.arange(12), COUNTS).astype(np.int16),
        "graph_label": np.arange(12) % 2,
        **changes,
    }
    return {key: value for key, value in made.items() if value is not None}


def source_of(folder: Path, options: str = "", split: Split | None = None, **changes: object) -> ManyGraphSource:
    np.savez(folder / "made.npz", **arrays(**changes))
    source = load(f"graph:{folder / 'made.npz'}{options}", split or Split())
    assert isinstance(source, ManyGraphSource)
    return source


def test_a_file_of_many_graphs_is_read(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    assert (source.task.kind, source.task.level) == ("graph-classification", "graph")
    assert [each.name for each in source.task.inputs] == ["x", "edge_index", "counts"]
    assert (source.task.nodes, source.task.edges) == (round(38 / 12), round(52 / 12))
    assert sum(source.sizes.values()) == 12
    assert source.class_counts["train"][0] == source.class_counts["train"][1]


def test_batches_are_the_graphs_one_after_another(tmp_path: Path) -> None:
    """Against each graph taken out of the file by itself."""
    values = np.random.default_rng(1).normal(size=(52, 2))
    given = arrays(edge_attr=values)
    source = source_of(tmp_path, edge_attr=values)
    data = source.bind("cpu", Loading(batch_size=4))
    orders = [list(data._orders.of(part, 3, 5).order) for part in ("train", "valid", "test")]  # type: ignore[attr-defined]
    for part, order in zip(("train", "valid", "test"), orders, strict=True):
        begin = 0
        for batch in data.batches(part, 3, 5):
            x, edge_index, edge_attr, counts = batch.inputs
            assert (edge_index[1].diff() >= 0).all()
            first = 0
            for graph, count in zip(order[begin : begin + len(counts)], counts.tolist(), strict=True):
                nodes = np.flatnonzero(given["graph_id"] == int(graph))
                assert count == len(nodes)
                assert np.array_equal(x[first : first + count].numpy(), given["x"][nodes])
                inside = (edge_index[1] >= first) & (edge_index[1] < first + count)
                mine = np.isin(given["edge_index"][1], nodes)
                found = {
                    (*(pair - first), *value)
                    for pair, value in zip(edge_index.T[inside].numpy(), edge_attr[inside].numpy(), strict=True)
                }
                wanted = {
                    (*(pair - nodes[0]), *value)
                    for pair, value in zip(given["edge_index"].T[mine], values[mine].astype(np.float32), strict=True)
                }
                assert found == wanted
                first += count
            assert first == len(x)
            assert batch.target.tolist() == given["graph_label"][order[begin : begin + len(counts)]].tolist()
            begin += len(counts)
        assert begin in (len(order), len(order) - 1)


def test_training_batches_depend_on_seed_and_epoch_alone_and_evaluated_ones_are_gathered_once(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    one, other = (source.bind("cpu", Loading(batch_size=4)) for _ in range(2))
    for first, second in zip(one.batches("train", 2, 7), other.batches("train", 2, 7), strict=True):
        assert all(map(torch.equal, first.inputs, second.inputs))
    before, after = (next(iter(one.batches("train", epoch, 7))) for epoch in (0, 1))
    assert before.inputs[0].shape != after.inputs[0].shape or not torch.equal(before.inputs[0], after.inputs[0])
    assert next(iter(one.batches("valid", 0, 0))) is next(iter(one.batches("valid", 9, 1)))


@pytest.mark.parametrize(("size", "batches"), [(4, [4]), (2, [2, 2]), (3, [3, 2]), (1, [1] * 5)])
def test_a_last_training_batch_of_one_graph_is_left_out(tmp_path: Path, size: int, batches: list[int]) -> None:
    parts = {"train_idx": np.arange(5), "valid_idx": np.arange(5, 8), "test_idx": np.arange(8, 12)}
    data = source_of(tmp_path, **parts).bind("cpu", Loading(batch_size=size))
    assert [batch.size for batch in data.batches("train", 0, 0)] == batches


def test_public_parts_are_lists_or_masks_of_graphs(tmp_path: Path) -> None:
    masks = {f"{part}_mask": np.isin(np.arange(12), graphs) for part, graphs in PARTS.items()}
    assert source_of(tmp_path, **masks).parts.test.tolist() == PARTS["test"]
    lists = {"train_idx": np.arange(5), "test_idx": np.arange(8, 12)}
    assert source_of(tmp_path, **lists).parts.test.tolist() == PARTS["test"]


PARTS = {"train": [0, 1, 2, 3, 4], "val": [5, 6, 7], "test": [8, 9, 10, 11]}


def test_features_of_nodes_are_those_of_the_file_then_tags_degrees_and_a_constant(tmp_path: Path) -> None:
    tags = np.arange(38) % 3 * 5
    source = source_of(tmp_path, "?features=degree", node_tag=tags)
    assert source.inputs.tags == (0, 5, 10)
    assert (source.inputs.own, source.inputs.degrees, source.inputs.features) == (3, 3, 9)
    assert np.array_equal(source.features[:, :3], arrays()["x"])
    assert np.array_equal(source.features[:, 3:6].argmax(1) * 5, tags)
    degree = np.bincount(arrays()["edge_index"][1], minlength=38)
    assert np.array_equal(source.features[:, 6:].argmax(1), degree)
    alone = source_of(tmp_path, "?features=constant", x=None)
    assert np.array_equal(alone.features, np.ones((38, 1)))


def test_degrees_beyond_the_columns_share_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.data.graph_arrays.MOST_DEGREES", 2)
    source = source_of(tmp_path, "?features=degree", x=None)
    assert source.inputs.degrees == 2
    degree = np.bincount(arrays()["edge_index"][1], minlength=38)
    assert np.array_equal(source.features.argmax(1), degree.clip(max=1))


def test_normalised_features_and_left_out_ones_are_other_data(tmp_path: Path) -> None:
    values = np.ones(52)
    plain, rows = source_of(tmp_path, edge_attr=values), source_of(tmp_path, "?normalise=rows", edge_attr=values)
    dropped = source_of(tmp_path, "?edge_attr=drop", edge_attr=values)
    assert len({plain.split_hash, rows.split_hash, dropped.split_hash}) == 3
    assert np.abs(rows.features).sum(1) == pytest.approx(1)
    assert plain.task.edge_features == 1
    assert dropped.task.edge_features is None
    assert rows.inputs.normalise == "rows"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"graph_label": None}, "has no targets; one of graph_label"),
        ({"graph_label": np.arange(12) / 3}, "graph_label is float64; numbers that are predicted are graph_y"),
        ({"graph_y": np.arange(12.0)}, "holds graph_label and graph_y; one of graph_label, graph_y, y"),
        ({"graph_label": None, "graph_y": np.full(12, np.nan)}, "graph_y holds NaN"),
        ({"graph_label": None, "graph_y": np.array(["a"] * 12)}, "graph_y is <U1"),
        ({"graph_label": None, "graph_y": np.arange(12), "classes": np.array(["a"])}, "numbers; leave out classes"),
        ({"graph_label": None, "y": np.zeros(37, int)}, r"y has shape \(37,\); graph_id has 38 nodes"),
        ({"graph_label": None, "y": np.arange(38) / 2}, "labels are float64"),
        ({"graph_label": None, "y": np.ones((38, 2)), "classes": np.array(["a"])}, "y has 2 labels; 1 are named"),
        (
            {
                "graph_label": None,
                "y": np.where(np.arange(38) < 20, np.arange(38) % 2, -1),
                "train_idx": np.arange(6),
                "valid_idx": np.array([11]),
                "test_idx": np.array([6]),
            },
            "no node of the valid graphs has a label",
        ),
        ({"graph_label": np.zeros(12, int)}, "there is only one class"),
        ({"graph_label": np.arange(11) % 2}, "graph_id names graph 11; there are targets of 11 graphs"),
        ({"graph_label": np.arange(13) % 2}, "graph 12 has no node"),
        ({"graph_id": np.repeat(np.arange(12), COUNTS)[::-1]}, "not sorted: node 3 is of graph 10, .* graph 11"),
        ({"graph_id": np.repeat(np.arange(12) + (np.arange(12) > 3), COUNTS)}, "graph_id names graph 12"),
        ({"graph_id": np.repeat(np.arange(12) - 1, COUNTS)}, "graph_id holds -1; graphs are numbered from 0"),
        ({"graph_id": np.repeat(np.arange(12) - (np.arange(12) > 3), COUNTS)}, "graph 11 has no node"),
        ({"graph_id": np.zeros((38, 2), int)}, "graph_id is int64"),
        ({"x": None}, r"no features \(x, or node_tag\); \?features=degree .* \?features=constant"),
        ({"x": np.ones((37, 3))}, r"features have shape \(37, 3\); needed are \[38, features\]"),
        ({"x": np.full((38, 3), np.nan)}, "features hold NaN"),
        ({"node_tag": np.ones(38)}, "node_tag is float64"),
        ({"edge_index": np.array([[0, 1], [1, 38]])}, "edge_index names node 38; the 38 nodes"),
        ({"edge_index": np.array([[0, 1], [1, 3]])}, "edge 1 goes from graph 0 to graph 1"),
        ({"edge_index": np.zeros((3, 4), int)}, "edge_index is int64"),
        ({"edge_attr": np.ones(51)}, r"edge_attr has shape \(51,\); needed are values of the 52 edges"),
        ({"edge_attr": np.full(52, np.inf)}, "edge_attr hold NaN"),
        ({"train_idx": np.arange(13), "test_idx": np.arange(3)}, "train names graph 12; the 12 graphs"),
        ({"train_idx": np.arange(4), "test_idx": np.arange(3, 9)}, "graph 3 is listed twice"),
        ({"train_mask": np.ones(11, bool)}, "needed is a bool for each of the 12 graphs"),
        ({"feature_names": np.array(["a"])}, "1 feature names for 3 features"),
        ({"graph_labels": np.arange(3), "graph_label": None}, "unknown key 'graph_labels'; did you mean 'graph_label'"),
    ],
)
def test_faults_of_a_file_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=rf"made\.npz.*{message}"):
        source_of(tmp_path, **changes)


def test_numbers_of_graphs_are_predicted_in_their_own_unit(tmp_path: Path) -> None:
    numbers = np.arange(12.0) * 100
    source = source_of(tmp_path, graph_label=None, graph_y=numbers)
    assert (source.task.kind, source.task.metric, source.class_counts) == ("graph-regression", "mae", {})
    train = numbers[source.parts.train]
    assert (source.inputs.target_mean, source.inputs.target_deviation) == (train.mean(), train.std())
    batch = next(iter(source.bind("cpu", Loading(batch_size=12)).batches("valid", 0, 0)))
    answered, targets = batch.answered(torch.zeros(batch.size, 1))
    assert targets.flatten().tolist() == pytest.approx(numbers[source.parts.valid])
    assert answered.flatten().tolist() == pytest.approx([train.mean()] * batch.size)


def test_nodes_of_many_graphs_have_classes_and_some_have_none(tmp_path: Path) -> None:
    labels = np.arange(38) % 4 - 1
    source = source_of(tmp_path, graph_label=None, y=labels)
    assert (source.task.kind, source.task.level, source.task.outputs) == ("inductive-node-classification", "node", 3)
    assert sum(source.sizes.values()) == (labels >= 0).sum()
    data = source.bind("cpu", Loading(batch_size=3))
    for part in ("train", "valid", "test"):
        given = np.sort(np.concatenate([batch.scored(batch.inputs[0])[1] for batch in data.batches(part, 0, 0)]))
        nodes = np.isin(arrays()["graph_id"], getattr(source.parts, part))
        wanted = np.sort(labels[nodes & (labels >= 0)])
        assert given.tolist() == np.sort(data.targets(part)).tolist() == wanted.tolist()


def test_nodes_of_many_graphs_have_several_labels_where_rows_are_not_one_hot(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 2, (38, 3))
    source = source_of(tmp_path, graph_label=None, y=rows, classes=np.array(["a", "b", "c"]))
    assert (source.task.kind, source.task.outputs, source.classes) == (
        "multilabel-node-classification",
        3,
        ("a", "b", "c"),
    )
    assert not source.inputs.exclusive
    probabilities = probabilities_of(source.inputs, np.array([[3.0, 2.0, -1.0]]))
    assert probabilities == pytest.approx(1 / (1 + np.exp([-3.0, -2.0, 1.0])))
    hot = source_of(tmp_path, graph_label=None, y=np.eye(3, dtype=int)[np.arange(38) % 3])
    assert hot.task.kind == "inductive-node-classification"


def probabilities_of(inputs: Any, logits: Any) -> list[float]:
    """What `nas infer` says of one node, the best label first."""
    module = importlib.import_module("training.infer.classify")
    model = SimpleNamespace(inputs=inputs, path="made", run=lambda tensors: logits)
    samples = SimpleNamespace(names=("a",), tensors=(), apart=False, note="", possible=None, asked=(), targets=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "read", lambda *_: samples)
        ((answer,), _) = module.classify(model, "a")
    return [share for _, share in answer.classes]


def test_micro_f1_is_of_all_labels_together() -> None:
    from sklearn.metrics import f1_score

    from training.tasks.multilabel_nodes import micro_f1

    draws = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(50, 4, generator=draws), (torch.rand(50, 4, generator=draws) > 0.6).float()
    wanted = f1_score(targets.numpy(), (logits > 0).numpy(), average="micro")
    assert micro_f1(logits, targets) == pytest.approx(wanted)
    assert micro_f1(-torch.ones(2, 3), torch.zeros(2, 3)) == 0


def test_options_of_many_graphs_are_refused_for_one(tmp_path: Path) -> None:
    one = arrays(graph_id=None, graph_label=None, y=np.arange(38) % 2)
    np.savez(tmp_path / "one.npz", **one)
    with pytest.raises(UsageError, match=r"\?features= is for data sets of many graphs"):
        load(f"graph:{tmp_path / 'one.npz'}?features=degree", Split())


def test_self_loops_isolated_nodes_and_a_class_that_a_part_lacks_are_taken_and_told(tmp_path: Path) -> None:
    parts = {"train_idx": np.arange(6), "valid_idx": np.array([6, 8]), "test_idx": np.array([7, 9])}
    source = source_of(tmp_path, edge_index=np.array([[0, 4], [0, 5]]), **parts)
    assert source.edge_counts.tolist() == [1, 0, 1, *[0] * 9]
    assert any("class '1' has no validation sample" in text for text in source.warnings)


CARD = {
    "title": "toy",
    "space": "training.testing.toy_space:ToySpace(kinds=('graph-classification',))",
    "command": "nas train",
}

VARIANTS: list[Mapping[str, Any]] = [
    {"edge_attr": np.arange(52.0), "options": "?normalise=rows"},
    {"node_tag": np.arange(38) % 3, "options": "?features=degree&normalise=rows"},
    {"x": None, "options": "?features=constant"},
]


@pytest.mark.parametrize("given", VARIANTS, ids=["edges", "tags and degrees", "constant"])
@pytest.mark.usefixtures("forked_checks")
def test_exported_networks_answer_files_of_many_graphs_as_in_training(
    given: Mapping[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In ONNX and pt2, with nodes, edges and graphs free: one graph, several, one without edges, one node."""
    source = source_of(tmp_path, **given)
    space, formats = ToySpace(("graph-classification",)), ("onnx", "pt2") if "edge_attr" in given else ("onnx",)
    network = build(space, Architecture("toy", {"width": 8}), source.task, space.Size(), 3).eval()
    seen = next(iter(source.bind("cpu").batches("valid", 0, 0))).inputs
    written = export(
        *(network, source.task, seen, Architecture("toy", {"width": 8}), CARD, tmp_path, "toy"),
        formats,
        inputs=source.inputs,
        proofs=proofs_of(source),
    )
    assert {path.suffix for path in written} == {f".{form}" for form in (*formats, "md")}
    whole = source.bind("cpu", Loading(batch_size=12))
    with torch.no_grad():
        every = {
            int(graph): network(*batch.inputs)[place]
            for part in ("train", "valid", "test")
            for batch, order in [(next(iter(whole.batches(part, 0, 0))), whole._orders.of(part, 0, 0).order)]  # type: ignore[attr-defined]
            for place, graph in enumerate(order[: batch.size])
        }
    expected = [str(int(every[graph].argmax())) for graph in sorted(every)]
    for form in formats:
        answers, _ = classify(open_model(tmp_path / f"toy.{form}"), f"graph:{tmp_path / 'made.npz'}")
        assert [answer.classes[0][0] for answer in answers if int(answer.name.rpartition(":")[2]) in every] == expected
    text = script(source.inputs, str(tmp_path / "toy.onnx"), raw=False)
    assert text is not None
    monkeypatch.setattr("sys.argv", ["script", str(tmp_path / "made.npz")])
    exec(compile(text, "script", "exec"), {})
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [name for number, name in printed if int(number) in every] == expected


def test_a_file_that_a_network_cannot_take_is_refused_in_a_line(tmp_path: Path) -> None:
    from training.infer.graphs import read_many

    inputs = source_of(tmp_path, node_tag=np.arange(38) % 3, edge_attr=np.ones((52, 2))).inputs
    good = arrays(node_tag=np.arange(38) % 4, edge_attr=np.ones((52, 2)))
    for changes, message in (
        ({"x": np.ones((38, 2))}, r"features have shape \(38, 2\); needed are \(38, 3\)"),
        ({"node_tag": None}, "node_tag is missing"),
        ({"edge_attr": None}, "has no edge_attr"),
        ({"edge_attr": np.ones((52, 3))}, r"the network takes \[edges, 2\]"),
    ):
        np.savez(
            tmp_path / "other.npz", **{key: value for key, value in {**good, **changes}.items() if value is not None}
        )
        with pytest.raises(UsageError, match=message):
            read_many(inputs, f"graph:{tmp_path / 'other.npz'}")
    np.savez(tmp_path / "other.npz", **good)
    read = read_many(inputs, f"graph:{tmp_path / 'other.npz'}")
    assert len(read.names) == 12
    assert not read.tensors[0][3, 3:].any()  # a tag that training has not seen
    one = {key: value[:2] for key, value in good.items() if key in ("x", "node_tag")}
    np.savez(tmp_path / "one.npz", edge_index=np.array([[0], [1]]), edge_attr=np.ones((1, 2)), **one)
    assert read_many(inputs, f"graph:{tmp_path / 'one.npz'}").tensors[-1].tolist() == [2]


@pytest.mark.parametrize("name", ["mutag", "ptc", "enzymes", "proteins", "imdbbinary"])
def test_reference_files_are_read_as_they_are(name: str, shared_data: Path) -> None:
    graphs, features = {
        "mutag": (188, 7),
        "ptc": (344, 19),
        "enzymes": (600, 3),
        "proteins": (1113, 3),
        "imdbbinary": (1000, 1),
    }[name]
    source = load(f"graph:{shared_data / f'tu_{name}.npz'}", Split())
    assert isinstance(source, ManyGraphSource)
    assert (sum(source.sizes.values()), source.task.input_shape) == (graphs, (features,))
    batch = next(iter(source.bind("cpu", Loading(batch_size=32)).batches("train", 0, 0)))
    assert batch.size == 32


def test_random_graphs_are_what_they_say(tmp_path: Path) -> None:
    source = load("random-graphs?target=degrees&graphs=300", Split())
    assert isinstance(source, ManyGraphSource)
    degrees = np.bincount(source.edge_index[1], minlength=len(source.features))
    counted = load("random-graphs?graphs=20", Split())
    assert isinstance(counted, ManyGraphSource)
    starts = np.cumsum(counted.counts) - counted.counts
    for start, count, triangles in zip(starts, counted.counts, counted.targets[:, 0], strict=True):
        mine = {tuple(edge) for edge in (counted.edge_index.T - start).tolist() if min(edge) >= 0 and max(edge) < count}
        found = [(a, b, c) for a, b in mine for c in range(count) if a < b < c and (b, c) in mine and (a, c) in mine]
        assert len(found) == triangles
    graph_of = np.repeat(np.arange(300), source.counts)
    assert source.counts.min() >= 8
    assert source.counts.max() <= 24
    edges = set(map(tuple, source.edge_index.T.tolist()))
    assert all((end, start) in edges and start != end for start, end in edges)
    spread = np.array([degrees[graph_of == graph].var() for graph in range(300)])
    assert spread[1::2].mean() > 2 * spread[::2].mean()
    again = load("random-graphs?target=degrees&graphs=300", Split())
    assert again.split_hash == source.split_hash
    assert load("random-graphs?target=degrees&graphs=300&seed=1", Split()).split_hash != source.split_hash


def pyg_folder(root: Path, files: Mapping[str, range], level: str) -> list[Any]:
    """Graphs as PyTorch Geometric stores them, those of each file by their numbers; all of them, in order."""
    from torch_geometric.data import Data, InMemoryDataset

    (root / "processed").mkdir(parents=True)
    draws = torch.Generator().manual_seed(0)
    every = []
    for name, numbers in files.items():
        made = []
        for number in numbers:
            nodes = 3 + number % 4
            y = {
                "graph": torch.tensor([number % 3]),
                "numbers": torch.tensor([[number / 2]]),
                "nodes": torch.arange(nodes) % 2,
                "labels": (torch.rand(nodes, 4, generator=draws) > 0.5).float(),
            }[level]
            edge_index = torch.randint(nodes, (2, 2 * nodes), generator=draws)
            x = torch.randint(5, (nodes, 1), generator=draws) if level == "numbers" else torch.rand(nodes, 2)
            made.append(
                Data(x=x, edge_index=edge_index, edge_attr=torch.rand(2 * nodes, 2), y=y, pos=torch.ones(nodes, 3))
            )
        InMemoryDataset.save(made, str(root / "processed" / name))
        every += made
    return every


@pytest.mark.parametrize(
    ("level", "kind"),
    [
        ("graph", "graph-classification"),
        ("numbers", "graph-regression"),
        ("nodes", "inductive-node-classification"),
        ("labels", "multilabel-node-classification"),
    ],
)
def test_data_sets_of_many_graphs_of_pytorch_geometric_are_read(level: str, kind: str, tmp_path: Path) -> None:
    """Against the graphs that were stored; those of three files are the parts."""
    files = {"train.pt": range(40), "val.pt": range(40, 50), "test.pt": range(50, 60)}
    graphs = pyg_folder(tmp_path / "parts", files, level)
    source = load(f"pyg:{tmp_path / 'parts'}", Split())
    assert isinstance(source, ManyGraphSource)
    assert source.task.kind == kind
    assert [len(part) for _, part in source.parts.items()] == [40, 10, 10]
    assert any("not used: pos" in text for text in source.warnings)
    start = 0
    for number, graph in enumerate(graphs):
        stop = start + graph.num_nodes
        if level == "numbers":
            tags = np.array(source.inputs.tags)[source.features[start:stop].argmax(1)]
            assert tags.tolist() == graph.x[:, 0].tolist()
        else:
            assert np.allclose(source.features[start:stop], graph.x)
        inside = (source.edge_index[1] >= start) & (source.edge_index[1] < stop)
        found = [
            (*pair, *value)
            for pair, value in zip((source.edge_index[:, inside] - start).T, source.edge_attr[inside], strict=True)
        ]  # type: ignore[index]
        wanted = [
            (*pair, *value) for pair, value in zip(graph.edge_index.T.numpy(), graph.edge_attr.numpy(), strict=True)
        ]
        assert sorted(map(tuple, np.array(found).tolist())) == sorted(map(tuple, np.array(wanted).tolist()))
        rows = source.targets[number : number + 1] if len(source.targets) == 60 else source.targets[start:stop]
        assert rows.tolist() == graph.y.tolist()
        start = stop


def test_a_file_of_many_graphs_of_pytorch_geometric_is_divided(tmp_path: Path) -> None:
    pyg_folder(tmp_path / "one", {"data.pt": range(60)}, "graph")
    source = load(f"pyg:{tmp_path / 'one'}?edge_attr=drop", Split())
    assert isinstance(source, ManyGraphSource)
    assert [len(part) for _, part in source.parts.items()] == [43, 5, 12]
    assert source.task.edge_features is None
    pyg_folder(tmp_path / "two", {"data.pt": range(60), "more.pt": range(3)}, "graph")
    with pytest.raises(UsageError, match="2 processed files; name one data set"):
        load(f"pyg:{tmp_path / 'two'}", Split())


def test_a_part_that_is_evaluated_in_several_batches_is_evaluated_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.data.passes.EVALUATION_VALUES", 1)
    source = source_of(tmp_path, train_idx=np.arange(4), valid_idx=np.arange(4, 9), test_idx=np.arange(9, 12))
    data = source.bind("cpu", Loading(batch_size=2))
    for _ in range(2):
        batches = list(data.batches("valid", 0, 0))
        assert [batch.size for batch in batches] == [2, 2, 1]
        assert torch.cat([batch.target for batch in batches]).tolist() == [0, 1, 0, 1, 0]


def test_rows_of_nodes_count_as_the_mean_of_their_graph_where_proxies_compare_graphs(tmp_path: Path) -> None:
    from predictors.forward_pass import ForwardPass

    source = source_of(tmp_path)
    data = source.bind("cpu", Loading(batch_size=12))
    batch = next(iter(data.batches("train", 0, 0)))
    space = ToySpace(("graph-classification",))
    forward = ForwardPass(
        lambda: space.build(Architecture("toy", {"width": 8}), source.task, space.Size()), batch, data.loss, source.task
    )
    x, *_, counts = batch.inputs
    wanted = torch.stack([rows.mean(0) for rows in x.split(counts.tolist())])
    assert forward.samples == batch.size
    assert torch.allclose(forward.by_sample(x), wanted)
    assert torch.equal(forward.by_sample(wanted), wanted)
