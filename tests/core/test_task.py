"""Tasks as stored data: what was stored before inputs were named stays what it was; tables name their fields."""

from __future__ import annotations

import json

import pytest

from nas_core.config import validate
from nas_core.errors import UsageError
from nas_core.task import (
    IMAGE_CLASSIFICATION,
    NODE_CLASSIFICATION,
    TABULAR_CLASSIFICATION,
    TABULAR_REGRESSION,
    InputSpec,
    Task,
)

IMAGES = Task(kind=IMAGE_CLASSIFICATION, input_shape=(3, 32, 32), outputs=10)
GRAPH = Task(kind=NODE_CLASSIFICATION, input_shape=(5,), outputs=2, nodes=12, edges=24)
TABLE = Task(kind=TABULAR_REGRESSION, inputs=(InputSpec(name="x", shape=(6,), categories=(1, 5)),), outputs=1)

STORED = [
    '{"kind":"image-classification","input_shape":[3,32,32],"outputs":10,"metric":"accuracy","nodes":null,"edges":null}',
    '{"kind":"node-classification","input_shape":[5],"outputs":2,"metric":"accuracy","nodes":12,"edges":24}',
]


@pytest.mark.parametrize(("task", "stored"), zip((IMAGES, GRAPH), STORED, strict=True))
def test_tasks_are_stored_as_they_were(task: Task, stored: str) -> None:
    assert task.model_dump_json() == stored
    assert json.dumps(task.model_dump(mode="json"), separators=(",", ":")) == stored


@pytest.mark.parametrize("task", [IMAGES, GRAPH, TABLE])
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
