"""Tasks as stored data: what was stored before inputs were named stays what it was; tables name their fields."""

from __future__ import annotations

import json

import pytest
import torch

from nas_core.batch import Batch
from nas_core.config import validate
from nas_core.errors import UsageError
from nas_core.task import (
    GRAPH_CLASSIFICATION,
    IMAGE_CLASSIFICATION,
    NODE_CLASSIFICATION,
    TABULAR_CLASSIFICATION,
    TABULAR_REGRESSION,
    InputSpec,
    Task,
    graph_task,
)

IMAGES = Task(kind=IMAGE_CLASSIFICATION, input_shape=(3, 32, 32), outputs=10)
GRAPH = Task(kind=NODE_CLASSIFICATION, input_shape=(5,), outputs=2, nodes=12, edges=24)
TABLE = Task(kind=TABULAR_REGRESSION, inputs=(InputSpec(name="x", shape=(6,), categories=(1, 5)),), outputs=1)

MANY = graph_task(7, 2, nodes=18, edges=40, kind=GRAPH_CLASSIFICATION, level="graph", edge_features=3)
LINKS = graph_task(7, 1, nodes=18, edges=40, kind="link-prediction", level="pair")

STORED = [
    '{"kind":"image-classification","input_shape":[3,32,32],"outputs":10,"metric":"accuracy","nodes":null,"edges":null}',
    '{"kind":"node-classification","input_shape":[5],"outputs":2,"metric":"accuracy","nodes":12,"edges":24}',
]


@pytest.mark.parametrize(("task", "stored"), zip((IMAGES, GRAPH), STORED, strict=True))
def test_tasks_are_stored_as_they_were(task: Task, stored: str) -> None:
    assert task.model_dump_json() == stored
    assert json.dumps(task.model_dump(mode="json"), separators=(",", ":")) == stored


@pytest.mark.parametrize("task", [IMAGES, GRAPH, TABLE, MANY, LINKS])
def test_a_stored_task_is_the_same_task(task: Task) -> None:
    again = Task.model_validate_json(task.model_dump_json())
    assert again == task
    assert hash(again) == hash(task)
    assert again.inputs == task.inputs


def test_inputs_follow_from_the_shape_and_the_shape_from_inputs() -> None:
    assert [(each.name, each.shape, each.dtype) for each in IMAGES.inputs] == [("image", (3, 32, 32), "float32")]
    assert [(each.name, each.shape) for each in GRAPH.inputs] == [("x", (5,)), ("edge_index", (2,))]
    assert GRAPH.inputs[1].dtype == "int64"
    assert TABLE.input_shape == (6,)
    assert json.loads(TABLE.model_dump_json())["inputs"] == [{"name": "x", "shape": [6], "categories": [1, 5]}]


def test_a_space_asks_for_what_it_learns_from() -> None:
    assert IMAGES.images() == (3, 32, 32)
    assert GRAPH.graph() == 5
    assert TABLE.table() == (1, 5)
    assert MANY.graphs("graph") == (7, 3, "graph", True, False)
    assert LINKS.graphs() == (7, None, "pair", False, True)
    assert GRAPH.graphs("node", "graph") == (5, None, "node", False, False)
    assert GRAPH.graph_size() == (12, 24)


def test_the_task_of_one_graph_is_the_one_that_was_stored() -> None:
    assert graph_task(5, 2, 12, 24) == GRAPH


def test_inputs_of_graphs_come_in_one_order() -> None:
    assert [each.name for each in MANY.inputs] == ["x", "edge_index", "edge_attr", "counts"]
    assert [each.shape for each in MANY.inputs] == [(7,), (2,), (3,), ()]
    assert [each.name for each in LINKS.inputs] == ["x", "edge_index", "pairs"]


def test_a_space_is_told_what_graphs_are_answered_for() -> None:
    with pytest.raises(UsageError, match="one answer per node or pair; 'graph-classification' has one per graph"):
        MANY.graphs("node", "pair")
    with pytest.raises(UsageError, match=r"needed are graphs.*'image-classification' has image float32 \[3, 32, 32\]"):
        IMAGES.graphs()
    with pytest.raises(UsageError, match=r"needed are a graph.*edge_attr float32 \[3\], counts int64 \[\]"):
        MANY.graph()
    with pytest.raises(UsageError, match=r"edges have 3 features each.*edge_attr=drop"):
        MANY.graphs(edge_features=False)
    with pytest.raises(UsageError, match="set nodes and edges of the task"):
        Task(kind=NODE_CLASSIFICATION, input_shape=(5,), outputs=2).graph_size()


def test_rows_of_answers_are_counted_by_what_they_are_for() -> None:
    x, edge_index = torch.zeros(6, 7), torch.zeros(2, 4, dtype=torch.int64)
    assert GRAPH.rows((x, edge_index)) == 6
    assert MANY.rows((x, edge_index, torch.zeros(4, 3), torch.tensor([2, 4]))) == 2
    assert LINKS.rows((x, edge_index, torch.zeros(2, 5, dtype=torch.int64))) == 5


def many_graphs(target: torch.Tensor, index: torch.Tensor | None = None) -> Batch:
    """Three graphs of 2, 1 and 3 nodes, the middle one without edges; values of edges name their source."""
    edge_index = torch.tensor([[0, 1, 3, 4, 5], [1, 0, 4, 5, 3]])
    inputs = (torch.arange(6.0)[:, None], edge_index, edge_index[0, :, None].float(), torch.tensor([2, 1, 3]))
    return Batch(inputs, target, index, graphs=True)


def test_a_part_of_many_graphs_are_some_of_them() -> None:
    batch = many_graphs(torch.tensor([7, 8, 9]))
    assert (batch.size, batch.samples) == (3, 3)
    last = batch.part(1, 3)
    x, edge_index, values, counts = last.inputs
    assert x.flatten().tolist() == [2, 3, 4, 5]
    assert edge_index.tolist() == [[1, 2, 3], [2, 3, 1]]
    assert values.flatten().tolist() == [3, 4, 5]
    assert counts.tolist() == [1, 3]
    assert last.target.tolist() == [8, 9]
    alone = batch.part(1, 2)
    assert [tuple(each.shape) for each in alone.inputs] == [(1, 1), (2, 0), (0, 1), (1,)]


def test_a_part_of_many_graphs_keeps_the_labels_of_its_nodes() -> None:
    batch = many_graphs(torch.arange(6), torch.tensor([0, 3, 5]))
    assert (batch.size, batch.samples) == (3, 3)
    last = batch.part(1, 3)
    assert last.target.tolist() == [2, 3, 4, 5]
    assert last.index is not None
    assert last.index.tolist() == [1, 3]
    assert last.target[last.index].tolist() == [3, 5]
    assert many_graphs(torch.arange(6)).samples == 6


@pytest.mark.parametrize(
    ("task", "ability"),
    [(GRAPH, "images"), (TABLE, "images"), (IMAGES, "graph"), (TABLE, "graph"), (IMAGES, "table"), (GRAPH, "table")],
)
def test_another_kind_is_refused_by_its_name_and_inputs(task: Task, ability: str) -> None:
    with pytest.raises(UsageError, match=f"needed are .*'{task.kind}' has {task.inputs[0].name} float32"):
        getattr(task, ability)()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"inputs": [{"name": "x", "shape": [6], "categories": [1, 4]}]}, "fields of"),
        ({"inputs": [{"name": "x", "shape": [6], "categories": [6, 0]}]}, "fields of"),
        ({"inputs": [{"name": "x", "shape": [6]}], "input_shape": [5]}, "is not that of the first input, x float32"),
        ({}, "task: a task needs input_shape, or inputs"),
    ],
)
def test_what_does_not_fit_is_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        validate(Task, {"kind": TABULAR_CLASSIFICATION, "outputs": 2, **values}, "task")
