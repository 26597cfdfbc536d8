"""GraphGym's design space (You, Ying and Leskovec, "Design Space for Graph Neural Networks", NeurIPS 2020, section 4).

Linear layers, message passing, linear layers; twelve dimensions, four of which are of the training: 314,928 designs.
`condensed=True`: the 96 of section 5 (the other dimensions fixed at batch normalisation, PReLU, no dropout, batches of
32, Adam at 0.01, 400 epochs). Widths are those of the size, or what a number of parameters demands (`target_params`).

Deviations: every PReLU has a slope of its own (in the published program all of a network are one); in a head of pairs
the maps come before the product, as there for "dot". Layers beside the general one, `operators`, keep their bias where
batch normalisation follows.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value, When
from nas_core.config import SizeConfig
from nas_core.errors import NasError, TrialError, UsageError
from nas_core.graph import ArchGraph
from nas_core.notation import chosen, pairs
from nas_core.space import SearchSpace, check_legal
from nas_core.task import GRAPH_KINDS, Task
from search_spaces.graphgym.costs import STACK, Design, Shape, costs, matched, places
from search_spaces.operators.graph.counted import mean_degree
from search_spaces.operators.graph.parts import adds_nothing, check_edges, for_whole_graphs_alone, parts
from search_spaces.operators.operator import Operator

if TYPE_CHECKING:
    from torch import nn

GENERAL = "general"
PRE, POST = "layers/pre", "layers/post"
AGGREGATORS = ("sum", "mean", "max")
READOUTS = ("sum",)
NONE = "none"
DIMENSIONS: Mapping[str, tuple[Value, ...]] = {
    PRE: (1, 2, 3),
    "layers/message": (2, 4, 6, 8),
    POST: (1, 2, 3),
    "connectivity": (STACK, "skipsum", "skipconcat"),
    "batchnorm": (True, False),
    "activation": ("relu", "prelu", "swish"),
    "dropout": (0.0, 0.3, 0.6),
    "aggregation": AGGREGATORS,
    "batch_size": (16, 32, 64),
    "optimizer": ("adam", "sgd"),
    "lr": (0.1, 0.01, 0.001),
    "epochs": (100, 200, 400),
}
"""Of the network, then of the training; section 4, and `round1.txt` of the published program."""
TRAINING = ("batch_size", "optimizer", "lr", "epochs")
CONDENSED: Mapping[str, tuple[Value, ...]] = {
    PRE: (1, 2),
    "layers/message": (2, 4, 6, 8),
    POST: (2, 3),
    "connectivity": ("skipsum", "skipconcat"),
    "batchnorm": (True,),
    "activation": ("prelu",),
    "dropout": (0.0,),
    "aggregation": AGGREGATORS,
    "batch_size": (32,),
    "optimizer": ("adam",),
    "lr": (0.01,),
    "epochs": (400,),
}
"""Section 5, and `round2.txt`."""
ORDERED = frozenset({"layers/pre", "layers/message", "layers/post", "dropout", "batch_size", "lr", "epochs"})
_REFERENCE: Mapping[str, Value] = {
    PRE: 0,
    "layers/message": 2,
    POST: 0,
    "connectivity": STACK,
    "batchnorm": False,
    "activation": "relu",
    "dropout": 0.6,
    "aggregation": "mean",
    "batch_size": 32,
    "optimizer": "adam",
    "lr": 0.01,
    "epochs": 200,
}
"""Two layers as Kipf and Welling (2017) and Velickovic et al. (2018) have them on Cora, as far as the dimensions go."""


class GraphGymSize(SizeConfig):
    """Width: said, or found for a number of parameters."""

    hidden: int = Field(256, ge=1, le=8192, description="width of every layer; unused with target_params")
    target_params: int | None = Field(
        None,
        ge=1,
        description="instead: as narrow as with at least so many parameters, counted for one feature and one output",
    )
    dropout_features: float = Field(
        0.0,
        ge=0.0,
        lt=1.0,
        description="dropout of the features of nodes as they come in; the published ones have none",
    )
    l2norm: bool = Field(
        True, description="states of nodes have length 1 after message passing, where linear layers follow"
    )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"search": {"hidden": 64}, "full": {}}
    later: ClassVar[frozenset[str]] = frozenset({"dropout_features"})

    def unused(self, task: Task) -> Mapping[str, str]:
        return {} if self.target_params is None else {"hidden": "target_params finds the width"}


class GraphGym(SearchSpace):
    """12 dimensions of graph networks and their training: 314,928 designs; with `condensed`, 96.

    `training=False` leaves the four dimensions of the training to the recipe. `operators`: what a layer may be, of the
    catalogue (`search_spaces.operators.graph`) or your own in a file, `graphgym(operators=('gcn', 'gat',
    'my_ops.py:Mine'))`; the general layer alone has an aggregation. `aggregators` are what that may be, `readouts` how
    nodes become a graph, `encodings` what features of nodes may be joined by, and `rewirings` on which other graphs
    messages may pass (beside none). `pre` and `post`: how many linear layers may come before and after message passing;
    with 0, which the grid of the paper does not have, the first layer of messages maps the features, and the last one
    answers, as in GCN and GAT.
    Raises UsageError for operators that cannot take part, and for what are no numbers of layers.
    """

    name = "graphgym"
    version = 1
    tasks = GRAPH_KINDS
    Size = GraphGymSize
    why_not_relaxable = "its choices set depths, widths and the training, so the candidates of one have no common shape"

    def __init__(
        self,
        condensed: bool = False,
        training: bool = True,
        operators: Sequence[str] = (GENERAL,),
        aggregators: Sequence[str] | None = None,
        encodings: Sequence[str] = (),
        readouts: Sequence[str] | None = None,
        rewirings: Sequence[str] = (),
        pre: Sequence[int] | None = None,
        post: Sequence[int] | None = None,
    ) -> None:
        for name, value in (("condensed", condensed), ("training", training)):
            if type(value) is not bool:
                raise UsageError(f"graphgym: {name} is {value!r}; use True or False")
        if readouts is not None:
            for_whole_graphs_alone(self)
        how_read = READOUTS if readouts is None else readouts
        how_aggregated = AGGREGATORS if aggregators is None else aggregators
        self.parts = parts(operators, how_aggregated, encodings, how_read, rewirings)
        for role, found in (("operators", self.parts.operators), ("readouts", self.parts.readouts)):
            if not found:
                raise UsageError(f"graphgym needs {role}; leave them out for what is published")
        for label, operator in self.parts.operators.items():
            if adds_nothing(operator):
                raise UsageError(f"graphgym has no place for '{label}', which adds nothing")
        general = tuple(label for label, one in self.parts.operators.items() if _aggregates(one))
        if general and not self.parts.aggregators:
            raise UsageError(f"'{general[0]}' needs aggregators; leave them out for sum, mean and max")
        if aggregators and not general:
            raise UsageError(
                f"none of the operators {', '.join(self.parts.operators)} has an aggregation to choose; leave "
                f"aggregators= out, or add '{GENERAL}' to the operators"
            )
        self.training = training
        self.fixed: dict[str, Value] = {}
        grid = CONDENSED if condensed else DIMENSIONS
        counts = {name: _layers(name, said) for name, said in ((PRE, pre), (POST, post)) if said is not None}
        self.choices = tuple(self._choices({**grid, **counts}, general))
        plain = (tuple(operators), tuple(how_aggregated), tuple(encodings), tuple(how_read)) == (
            (GENERAL,),
            AGGREGATORS,
            (),
            READOUTS,
        )
        more = [*([list(self.parts.rewirings)] if rewirings else []), *([counts] if {**grid, **counts} != grid else [])]
        if not plain or more or not training:
            self.name = f"graphgym-{self._digest(condensed, more)}"
        elif condensed:
            self.name = "graphgym-condensed"
        named = {name: self._reference(name) for name in self._references()}
        self.named: Mapping[str, Architecture] = MappingProxyType(named)
        self.left_out: Mapping[str, str] = (
            {}
            if "gat" in named
            else {"gat": "attention is none of its operators; graphgym(operators=('general', 'gat'))"}
        )

    def _digest(self, condensed: bool, more: Sequence[Any]) -> str:
        """Of what is not as published, by labels: several such spaces may be in one database."""
        every = (self.parts.operators, self.parts.aggregators, self.parts.encodings, self.parts.readouts)
        said = json.dumps([condensed, self.training, *(list(role) for role in every), *more])
        return hashlib.sha256(said.encode()).hexdigest()[:8]

    def _choices(self, dimensions: Mapping[str, tuple[Value, ...]], general: tuple[str, ...]) -> Iterator[Choice]:
        """Dimensions with one option only are fixed instead."""
        options = dict(dimensions)
        options["aggregation"] = tuple(self.parts.aggregators)
        labels = tuple(self.parts.operators)
        beside: dict[str, tuple[Value, ...]] = {
            "operator": labels,
            "encoding": (NONE, *self.parts.encodings),
            "rewiring": (NONE, *self.parts.rewirings),
            "readout": tuple(self.parts.readouts),
        }
        for name, values in {**beside, **options}.items():
            if (name in TRAINING and not self.training) or (name == "aggregation" and not general):
                continue
            when = (When("operator", general),) if name == "aggregation" and general != labels else ()
            if len(values) == 1:
                self.fixed[name] = values[0]
            else:
                yield Choice(name, values, name.partition("/")[0], when, ordered=name in ORDERED)

    def _references(self) -> Iterator[str]:
        """Of the two everybody knows, those that are members; GCN's nearest member averages by the general layer."""
        if self._operator("gcn") or GENERAL in self.parts.operators:
            yield "gcn"
        if self._operator("gat"):
            yield "gat"

    def _operator(self, name: str) -> str | None:
        """The label of this operator, with the options that it has here."""
        return next((label for label in self.parts.operators if label.partition("(")[0] == name), None)

    def _reference(self, name: str) -> Architecture:
        wanted = {**_REFERENCE, "operator": self._operator(name) or GENERAL}
        values: dict[str, Value] = {}
        for choice in self.choices:
            if choice.active({**self.fixed, **values}):
                values[choice.name] = _nearest(wanted.get(choice.name), choice)
        return Architecture(self.name, values)

    def findings(self) -> Iterator[str]:
        """What is wrong with parts of a user's."""
        yield from self.parts.findings()

    def values(self, arch: Architecture) -> Mapping[str, Value]:
        """Of all dimensions, those that are fixed too."""
        return {**self.fixed, **arch.values}

    def recipe(self, arch: Architecture) -> Mapping[str, Value]:
        """Batch size, optimiser, learning rate and epochs; one graph is always one batch."""
        return {name: value for name, value in self.values(arch).items() if name in TRAINING}

    def identity(self, arch: Architecture) -> str:
        """Its key; where nothing may go around any layer of message passing, connectivities are one."""
        values = dict(arch.values)
        if "connectivity" in values and not any(around != STACK for around, _ in places(self.values(arch))):
            values["connectivity"] = STACK
        return Architecture(arch.space, values).key

    def to_text(self, arch: Architecture) -> str:
        """All choices in order: `layers/pre=1,layers/message=2,...`."""
        return ",".join(f"{name}={value}" for name, value in arch.values.items())

    def from_text(self, text: str) -> Architecture:
        """Reads `name=value` for every choice, in any order. Raises ValueError."""
        values = chosen(text, self.choices, pairs(text, text.split(",")), self.fixed)
        return Architecture(self.name, values)

    def graph(self, arch: Architecture) -> ArchGraph:
        """A node per layer, and an edge around each layer of message passing that has a skip."""
        values = self.values(arch)
        labels, edges = ["input"], list[tuple[int, int]]()

        def add(label: str, *sources: int) -> int:
            labels.append(label)
            edges.extend((source, len(labels) - 1) for source in sources)
            return len(labels) - 1

        dims = ("batchnorm", "activation", "dropout")
        wrapper = " ".join(str(values[name]) for name in dims)
        message = " ".join(str(values[name]) for name in ("operator", "aggregation") if name in values)
        last = 0
        if values["encoding"] != NONE:
            last = add(f"encoding {values['encoding']}", last)
        for _ in range(int(values[PRE])):
            last = add(f"linear {wrapper}", last)
        if values["rewiring"] != NONE:
            last = add(f"rewiring {values['rewiring']}", last)
        for around, answers in places(values):
            layer = add(message if answers else f"{message} {wrapper}", last)
            last = layer if around == STACK else add(around, layer, last)
        last = add(f"readout {values['readout']}", last)
        for _ in range(int(values[POST]) - 1):
            last = add(f"linear {wrapper}", last)
        training = " ".join(str(values[name]) for name in TRAINING if name in values)
        if values[POST]:
            last = add("linear", last)
        add(f"output {training}".strip(), last)
        return ArchGraph(tuple(labels), tuple(edges))

    def design(self, arch: Architecture) -> Design:
        """The architecture with its operators."""
        return self._design(self.values(arch))

    def _design(self, values: Mapping[str, Value]) -> Design:
        operator = self.parts.operators[str(values["operator"])]
        return Design(
            values,
            operator,
            self.parts.aggregators[str(values["aggregation"])] if _aggregates(operator) else None,
            self.parts.encodings.get(str(values["encoding"])),
            self.parts.readouts[str(values["readout"])],
            self.parts.rewirings.get(str(values["rewiring"])),
        )

    def costs(self, arch: Architecture, task: Task, size: SizeConfig) -> Mapping[str, float]:
        """Parameters, and multiply-accumulates of one graph of the mean size, or of the whole one; pairs are as many as
        edges. Raises UsageError when the task does not say how large its graphs are, or for `target_params` that no
        width is narrow enough for."""
        nodes, edges = task.graph_size()
        shape = Shape(task.graphs().features, task.outputs, task.level, nodes, edges, task.edge_features)
        params, macs = costs(self.design(arch), shape, self.width(arch, task, size))
        return {"params": params, "macs": macs}

    def hidden_units(self, arch: Architecture, task: Task, size: SizeConfig) -> Mapping[str, int]:
        """The width that `target_params` demands, where they are given."""
        own = GraphGymSize.own(size, self.name)
        return {} if own.target_params is None else {"layer": self.width(arch, task, size)}

    def width(self, arch: Architecture, task: Task, size: SizeConfig) -> int:
        """Of every layer: said, or the smallest multiple of what operators need that has `target_params`, counted for
        one feature and one output as published. Raises TrialError where the architecture has no such width, and
        UsageError where none of the space has."""
        own, design = GraphGymSize.own(size, self.name), self.design(arch)
        every = _multiple(design.operator)
        if own.target_params is None:
            if own.hidden % every:
                others = any(own.hidden % _multiple(one) == 0 for one in self.parts.operators.values())
                raise _unfit(
                    f"'{design.operator.label}' has {every} heads, which do not make up hidden={own.hidden}", others
                )
            return own.hidden
        shape = Shape(1, 1, task.level, 1, 1, task.edge_features)
        narrowest = costs(design, shape, every)[0]
        if narrowest > own.target_params:
            raise _unfit(
                f"target_params {own.target_params} is below {narrowest}, the parameters of this network at its "
                f"narrowest, {every} wide",
                self._least(shape) <= own.target_params,
            )
        return _matched(self, arch, own.target_params, every, shape)

    def _least(self, shape: Shape) -> int:
        """Parameters of the smallest network: choice after choice the option that has the fewest."""
        values = {choice.name: choice.options[0] for choice in self.choices}

        def count(name: str, option: Value) -> int:
            design = self._design({**self.fixed, **values, name: option})
            return costs(design, shape, _multiple(design.operator))[0]

        for choice in self.choices:
            values[choice.name] = min(choice.options, key=partial(count, choice.name))
        return min(count(name, option) for name, option in values.items())

    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
        """`model(x, edge_index[, edge_attr][, counts | pairs])` as the task has it, to an answer per node, graph or
        pair.

        Raises UsageError for an illegal architecture, a task that is no graph's, another space's size, and features of
        edges that no operator of the space reads.
        """
        from search_spaces.graphgym.built import built

        graphs = task.graphs()
        check_legal(self, arch)
        check_edges(self.parts.operators, graphs.edge_features, "graphgym(operators=('general', 'gine'))")
        own = GraphGymSize.own(size, self.name)
        degree, design = mean_degree(task), self.design(arch)
        hidden = self.width(arch, task, size)
        return built(design, graphs, task.outputs, degree, hidden, own.l2norm, own.dropout_features)


@lru_cache(maxsize=4096)
def _matched(space: GraphGym, arch: Architecture, target: int, every: int, shape: Shape) -> int:
    design = space.design(arch)
    return every * matched(lambda many: costs(design, shape, every * many)[0], target)


def _unfit(why: str, others: bool) -> NasError:
    """Of an architecture that cannot be as large as it is asked to be; where `others` of the space can, a search goes
    on without it."""
    return TrialError("size", why) if others else UsageError(why)


def _layers(name: str, said: Sequence[int]) -> tuple[int, ...]:
    """How many layers there may be. Raises UsageError for what are no numbers of them."""
    found = tuple(said) if isinstance(said, (tuple, list)) else ()
    if not found or any(type(count) is not int or count < 0 for count in found) or len(set(found)) < len(found):
        what = name.rpartition("/")[2]
        raise UsageError(f"graphgym: {what} is {said!r}; give different numbers of layers, {what}=(0, 1, 2, 3)")
    return tuple(sorted(found))


def _aggregates(operator: Operator) -> bool:
    """Whether it is given an aggregator; of the catalogue's the general one alone, which is known without importing."""
    if not operator.own:
        return operator.name == GENERAL
    return "aggregator" in inspect.signature(operator.kind).parameters


def _multiple(operator: Operator) -> int:
    """What widths are a multiple of: the heads of attention."""
    if not operator.own and operator.name == GENERAL:
        return 1
    heads = inspect.signature(operator.kind).parameters.get("heads")
    default = 1 if heads is None or heads.default is inspect.Parameter.empty else heads.default
    return max(1, int(operator.options.get("heads", default)))


def _nearest(wanted: Value | None, choice: Choice) -> Value:
    """The option that is wanted, or the nearest of ordered ones, or the first."""
    if wanted in choice.options or wanted is None:
        return choice.options[0] if wanted is None else wanted
    if choice.ordered:
        return min(choice.options, key=lambda option: abs(float(option) - float(wanted)))
    return choice.options[0]
