"""What is learned, as plain data that travels with a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from nas_core.errors import UsageError
from nas_core.frozen import Config

IMAGE_CLASSIFICATION: Final = "image-classification"
NODE_CLASSIFICATION: Final = "node-classification"
INDUCTIVE_NODE_CLASSIFICATION: Final = "inductive-node-classification"
MULTILABEL_NODE_CLASSIFICATION: Final = "multilabel-node-classification"
NODE_REGRESSION: Final = "node-regression"
EDGE_CLASSIFICATION: Final = "edge-classification"
LINK_PREDICTION: Final = "link-prediction"
GRAPH_CLASSIFICATION: Final = "graph-classification"
GRAPH_REGRESSION: Final = "graph-regression"
TABULAR_CLASSIFICATION: Final = "tabular-classification"
TABULAR_REGRESSION: Final = "tabular-regression"
MULTI_TASK: Final = "multi-task-classification"
LANGUAGE_MODELLING: Final = "language-modelling"
QUESTION_ANSWERING: Final = "question-answering"


PADDING: Final = 0
"""What fills up questions with their passages."""

X: Final = "x"
EDGE_INDEX: Final = "edge_index"
EDGE_ATTR: Final = "edge_attr"
COUNTS: Final = "counts"
PAIRS: Final = "pairs"

WHOLE_GRAPH_KINDS: Final = frozenset({GRAPH_CLASSIFICATION, GRAPH_REGRESSION})
"""Those with one answer per graph."""
GRAPH_KINDS: Final = WHOLE_GRAPH_KINDS | frozenset(
    {
        NODE_CLASSIFICATION,
        INDUCTIVE_NODE_CLASSIFICATION,
        MULTILABEL_NODE_CLASSIFICATION,
        NODE_REGRESSION,
        EDGE_CLASSIFICATION,
        LINK_PREDICTION,
    }
)
"""Those of graphs: what a space is for that asks its task what is answered (`Task.graphs`)."""

Level = Literal["node", "pair", "graph"]
"""Of a task on graphs what each answer is for; a pair are two nodes."""

_IMAGES = "images, one input [channels, height, width], and an output"


class InputSpec(Config):
    """One input tensor of a network.

    `shape` is that of one sample (of one node, of one edge), without the dimension that counts them; its place is the
    kind's matter (`training.tasks`).
    """

    name: str
    shape: tuple[int, ...]
    dtype: Literal["float32", "int64"] = "float32"
    vocabulary: int | None = Field(default=None, ge=1, description="integers from 0 up to this, exclusive")
    padding: int | None = Field(default=None, ge=0, description="the integer that fills up sequences that are shorter")
    categories: tuple[int, ...] = Field(
        default=(), description="widths of the fields that a row is made of: 1 a number, k > 1 a one-hot block"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.categories and (min(self.categories) < 1 or self.shape != (sum(self.categories),)):
            raise ValueError(f"input '{self.name}': fields of {self.categories} values do not make up {self.shape}")
        if self.padding is not None and self.padding >= (self.vocabulary or 0):
            raise ValueError(f"input '{self.name}': padding {self.padding} is none of {self.vocabulary or 0} integers")
        return self

    @model_serializer(mode="wrap")
    def _without_the_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unused = {name for name, field in type(self).model_fields.items() if getattr(self, name) == field.default}
        return {name: value for name, value in handler(self).items() if name not in unused}

    def __str__(self) -> str:
        """As it is spoken of: `x float32 [14]`."""
        return f"{self.name} {self.dtype} {list(self.shape)}"


class Head(Config):
    """One of several tasks that a network learns: its name, and how many classes it has."""

    name: str
    outputs: int = Field(ge=2)


class Graphs(NamedTuple):
    """What a network of graphs is called with, in this order: nodes x [n, features] float32, directed edges edge_index
    [2, m] int64 (source and target), and where there are such, edge_attr [m, edge_features] float32, counts [graphs]
    int64 (the nodes of each graph; those of one follow another), pairs [2, p] int64 of nodes.

    It answers [n, outputs], [graphs, outputs] or [p, outputs]: one row per node, graph or pair, as `level` says.
    """

    features: int
    edge_features: int | None
    level: Level
    counts: bool
    pairs: bool


class Task(Config):
    """A learning task.

    `inputs` are the tensors that a network takes, in order; `input_shape` is the shape of the first: (channels, height,
    width) for images, (features,) for the nodes of a graph, (width,) for the rows of a table. One follows from the
    other: of images and one graph the shape says all, and only that is stored. `outputs` is the number of classes, or
    of numbers that are predicted. `nodes` and `edges` are the size of the (full-batch) graph, or the means of those of
    many graphs, which the cost of a graph network depends on; edges are directed. `level` is what in graphs an answer
    is for. `heads` are the tasks that are learned together, whose outputs lie side by side in this order; none where
    there is one task. With `positions` a network answers at every position of a sequence of that length, instead of
    once per sample; `causal`: from that position and those before it alone.
    """

    kind: str
    input_shape: tuple[int, ...] = ()
    outputs: int
    metric: str = "accuracy"
    nodes: int | None = None
    edges: int | None = None
    inputs: tuple[InputSpec, ...] = ()
    heads: tuple[Head, ...] = ()
    positions: int | None = Field(default=None, ge=1)
    causal: bool = False
    level: Level = "node"

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        shape, inputs = values.get("input_shape"), values.get("inputs")
        if not inputs and isinstance(shape, tuple | list):
            return {**values, "inputs": _usual(values.get("kind"), shape)}
        if inputs and shape is None:
            first = inputs[0]
            return {**values, "input_shape": first["shape"] if isinstance(first, Mapping) else first.shape}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.inputs:
            raise ValueError("a task needs input_shape, or inputs, of which the first has that shape")
        if self.inputs[0].shape != self.input_shape:
            raise ValueError(f"input_shape {self.input_shape} is not that of the first input, {self.inputs[0]}")
        if self.heads and sum(head.outputs for head in self.heads) != self.outputs:
            raise ValueError(f"heads of {[head.outputs for head in self.heads]} outputs do not make up {self.outputs}")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Inputs that follow from the shape were not stored before there were others.
        usual = self.inputs == tuple(InputSpec(**each) for each in _usual(self.kind, self.input_shape))
        unused = {
            "inputs": usual,
            "heads": not self.heads,
            "positions": self.positions is None,
            "causal": not self.causal,
            "level": self.level == "node",
        }
        return {name: value for name, value in handler(self).items() if not unused.get(name)}

    @property
    def answer(self) -> tuple[int, ...]:
        """The shape of what a network answers to one sample (node): (outputs,), or (positions, outputs)."""
        return (self.outputs,) if self.positions is None else (self.positions, self.outputs)

    def rows(self, inputs: Sequence[Any]) -> int:
        """How many rows of answers a network gives to these inputs: one per sample, node, pair or graph."""
        if self.level == "graph":
            return len(inputs[-1])
        return int(inputs[-1].shape[1]) if self.level == "pair" else len(inputs[0])

    def images(self) -> tuple[int, int, int]:
        """(channels, height, width) of the images that are learned from. Raises UsageError where none are."""
        if self.heads and len(self.inputs) > 1:
            raise UsageError(
                f"this network takes images alone, and '{self.kind}' gives {' and '.join(map(str, self.inputs))}; "
                "with ?inputs=image behind the data it is not told the task, and has one head per task"
            )
        if len(self.inputs) != 1:
            raise self._other(_IMAGES)
        return self._image()

    def asked(self) -> tuple[int, int, int]:
        """(channels, height, width) of images that are each asked for one of the tasks `heads`, whose number is the
        second input. Raises UsageError where none are."""
        if len(self.inputs) != 2 or not self.heads:
            raise self._other("images and the numbers of their tasks, two inputs")
        return self._image()

    def _image(self) -> tuple[int, int, int]:
        if len(self.input_shape) != 3 or min(*self.input_shape, self.outputs) < 1:
            raise self._other(_IMAGES)
        channels, height, width = self.input_shape
        return channels, height, width

    @property
    def padding(self) -> int | None:
        """What fills up the sequences that are learned from; None where all are of one length."""
        return self.inputs[0].padding

    @property
    def edge_features(self) -> int | None:
        """Features per edge of the graphs that are learned from; None where edges have none."""
        return next((each.shape[0] for each in self.inputs if each.name == EDGE_ATTR), None)

    def graphs(self, *levels: Level, edge_features: bool = True) -> Graphs:
        """What is learned from, one graph or many. Raises UsageError where it is neither, where answers are for none of
        `levels` (by default for anything), or where edges have features that are of no use."""
        names, shapes = [each.name for each in self.inputs], [each.shape for each in self.inputs]
        if names[:2] != [X, EDGE_INDEX] or len(shapes[0]) != 1 or not set(names[2:]) <= {EDGE_ATTR, COUNTS, PAIRS}:
            raise self._other(f"graphs, {X} [features] of nodes and {EDGE_INDEX} [2]")
        if levels and self.level not in levels:
            raise UsageError(
                f"needed is a task on graphs with one answer per {' or '.join(levels)}; '{self.kind}' has one per "
                f"{self.level}"
            )
        if self.edge_features is not None and not edge_features:
            raise UsageError(
                f"edges have {self.edge_features} features each, of which these networks make no use; with "
                "?edge_attr=drop behind the data they are left out"
            )
        return Graphs(self.input_shape[0], self.edge_features, self.level, COUNTS in names, PAIRS in names)

    def graph(self) -> int:
        """The features per node of the one graph whose nodes are learned. Raises UsageError for anything else."""
        if [len(each.shape) for each in self.inputs] != [1, 1] or self.inputs[1].dtype != "int64":
            raise self._other("a graph, features of nodes and pairs of them as edges")
        return self.input_shape[0]

    def graph_size(self) -> tuple[int, int]:
        """Nodes and edges of the graph, or the means of those of many. Raises UsageError where they are not known."""
        if self.nodes is None or self.edges is None:
            raise UsageError("costs of a graph network need the graph's size: set nodes and edges of the task")
        return self.nodes, self.edges

    def table(self) -> tuple[int, ...]:
        """The widths of the fields that the rows of the table are made of: 1 a number, k > 1 a one-hot block of k
        levels. Raises UsageError where no table is learned from."""
        if len(self.inputs) != 1 or not self.inputs[0].categories:
            raise self._other("rows of a table, one input with its fields' widths as categories")
        return self.inputs[0].categories

    def tokens(self) -> tuple[int, int]:
        """The length of the sequences that are learned from, and the size of their vocabulary. Raises UsageError where
        there are none."""
        first = self.inputs[0]
        if len(self.inputs) != 1 or len(first.shape) != 1 or first.dtype != "int64" or first.vocabulary is None:
            raise self._other("sequences, one input [length] of integers of a vocabulary")
        return first.shape[0], first.vocabulary

    def _other(self, needed: str) -> UsageError:
        return UsageError(f"needed are {needed}; '{self.kind}' has {', '.join(map(str, self.inputs)) or 'no inputs'}")


def image_task(shape: tuple[int, ...], outputs: int) -> Task:
    """Classes of images [c, h, w]."""
    return Task(kind=IMAGE_CLASSIFICATION, input_shape=shape, outputs=outputs)


def multi_task(shape: tuple[int, ...], heads: Sequence[Head], *, told: bool = True) -> Task:
    """Classes of images [c, h, w], each asked for one of several tasks. `told`: which one is a second input, the number
    of its head."""
    image = InputSpec(name="image", shape=shape)
    number = InputSpec(name="task", shape=(), dtype="int64", vocabulary=len(heads))
    outputs = sum(head.outputs for head in heads)
    return Task(kind=MULTI_TASK, inputs=(image, number) if told else (image,), outputs=outputs, heads=tuple(heads))


def graph_task(
    features: int,
    outputs: int,
    nodes: int,
    edges: int,
    *,
    kind: str = NODE_CLASSIFICATION,
    level: Level = "node",
    edge_features: int | None = None,
    counts: bool = False,
    metric: str = "accuracy",
) -> Task:
    """Answers for the nodes, pairs of nodes, or graphs (`level`) of one graph of this size, or of many (`counts`) whose
    mean size it is. By default classes of the nodes of one graph."""
    inputs = [
        InputSpec(name=X, shape=(features,)),
        InputSpec(name=EDGE_INDEX, shape=(2,), dtype="int64"),
        *([InputSpec(name=EDGE_ATTR, shape=(edge_features,))] if edge_features else []),
        *([InputSpec(name=COUNTS, shape=(), dtype="int64")] if counts or level == "graph" else []),
        *([InputSpec(name=PAIRS, shape=(2,), dtype="int64")] if level == "pair" else []),
    ]
    return Task(kind=kind, inputs=tuple(inputs), outputs=outputs, metric=metric, nodes=nodes, edges=edges, level=level)


def table_task(kind: str, fields: Sequence[int], outputs: int, metric: str) -> Task:
    """Classes, or numbers, of rows whose fields have these widths."""
    spec = InputSpec(name="x", shape=(sum(fields),), categories=tuple(fields))
    return Task(kind=kind, inputs=(spec,), outputs=outputs, metric=metric)


def text_task(window: int, vocabulary: int, metric: str) -> Task:
    """The next character at every position of windows of a text."""
    spec = InputSpec(name="tokens", shape=(window,), dtype="int64", vocabulary=vocabulary)
    return Task(
        kind=LANGUAGE_MODELLING, inputs=(spec,), outputs=vocabulary, metric=metric, positions=window, causal=True
    )


def question_task(length: int, vocabulary: int, metric: str) -> Task:
    """First and last place of the answer, among so many tokens of a question and its passage, which `PADDING`
    fills up."""
    spec = InputSpec(name="tokens", shape=(length,), dtype="int64", vocabulary=vocabulary, padding=PADDING)
    return Task(kind=QUESTION_ANSWERING, inputs=(spec,), outputs=2, metric=metric, positions=length)


def _usual(kind: object, shape: tuple[int, ...] | list[int]) -> tuple[dict[str, Any], ...]:
    """The inputs of a task of which only the shape is said."""
    if kind == NODE_CLASSIFICATION:
        return {"name": X, "shape": shape}, {"name": EDGE_INDEX, "shape": (2,), "dtype": "int64"}
    return ({"name": "image" if kind == IMAGE_CLASSIFICATION else "x", "shape": shape},)
