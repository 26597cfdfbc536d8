"""GraphNAS's space of cells: a small graph of operators, and the training (Gao, Yang, Zhang, Zhou and Hu, "Graph Neural
Architecture Search", IJCAI 2020, section 3.4, and its program).

Every node of a cell applies an operator to one of the cell's two inputs, or to an earlier node; the nodes are joined.
In the program the first node counts twice in sums and products, which have no activation; here they are as in the
paper, `relu(O_3 + O_4)`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value
from nas_core.config import SizeConfig
from nas_core.errors import UsageError
from nas_core.graph import ArchGraph
from nas_core.notation import chosen, pairs
from nas_core.space import SearchSpace, check_legal
from nas_core.task import GRAPH_KINDS, Task
from search_spaces.graphnas.design import Design, cells_of_use
from search_spaces.operators.graph.counted import encoding_costs, mean_degree, operator_costs, readout_costs
from search_spaces.operators.graph.parts import adds_nothing, check_edges, for_whole_graphs_alone, parts

if TYPE_CHECKING:
    from torch import nn

OPERATORS: Mapping[str, str] = {
    **{f"gat_{heads}": f"gat(heads={heads}, concat=False)" for heads in (8, 6, 4, 2, 1)},
    **{name: name for name in ("gcn", "cheb", "sage", "arma")},
    "sg": "sgc(steps=1)",
    "linear": "fc",
    "zero": "zero",
}
"""The published names, and what they are in the catalogue."""
ACTIVATIONS = ("sigmoid", "tanh", "relu", "linear", "elu")
JOINS = ("add", "product", "concat")
TRAINING: Mapping[str, tuple[Value, ...]] = {
    "lr": (0.0001, 0.0005, 0.001, 0.005, 0.01),
    "dropout": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    "weight_decay": (0.0, 0.00001, 0.00005, 0.0001, 0.0005, 0.001),
    "hidden": (8, 16, 32, 64, 128, 256, 512),
}
RECIPE = ("lr", "weight_decay")
NO_ENCODING = "none"
READOUTS = ("mean",)
MOST = 16
FOUND: Mapping[str, tuple[str, str]] = {
    "cora": ("0 gat_6, 0 gcn, 0 gcn, 2 arma / tanh concat", "0.01 0.9 0.0001 64"),
    "citeseer": ("0 linear, 0 gat_6 / linear concat", "0.005 0.8 1e-05 128"),
    "pubmed": ("1 gat_8, 0 arma / tanh concat", "0.01 0.4 5e-05 64"),
}
"""The cells that were found on these, and their learning rate, dropout, weight decay and width."""


class MicroSize(SizeConfig):
    """How many cells, and with `training=False` what architectures choose otherwise."""

    layers: int = Field(2, ge=1, le=16, description="cells, one after the other")
    hidden: int | None = Field(None, ge=1, le=8192, description="width, with training=False: 128 unless it is said")
    dropout: float | None = Field(None, ge=0.0, lt=1.0, description="of features, with training=False: 0.8 unless said")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"search": {}, "full": {}}


class GraphNasMicro(SearchSpace):
    """Cells of `nodes` operators, how they are joined, and learning rate, dropout, weight decay and width.

    27,216,000 architectures of 2 nodes. All cells of a network are one. `training=False` leaves rate and decay to the
    recipe, and dropout and width to the size. `operators`: published names, those of the catalogue
    (`search_spaces.operators.graph`), or your own in a file, `graphnas-micro(operators=('gcn', 'zero',
    'my_ops.py:Mine'))`; `readouts` are how nodes become a graph, `encodings` what features of nodes may be joined by.

    Text form: what every node reads and applies, the activation and how they are joined, then all else:
    `1 gat_8, 0 arma / tanh concat / lr=0.01, dropout=0.4, weight_decay=5e-05, hidden=64`.

    Raises UsageError for numbers of nodes that are not 1 to 16, and for operators that cannot take part.
    """

    name = "graphnas-micro"
    version = 1
    tasks = GRAPH_KINDS
    Size = MicroSize
    why_not_relaxable = "its choices set widths and the training, so the candidates of one have no common shape"

    def __init__(
        self,
        nodes: int = 2,
        training: bool = True,
        operators: Sequence[str] = tuple(OPERATORS),
        encodings: Sequence[str] = (),
        readouts: Sequence[str] | None = None,
    ) -> None:
        if type(nodes) is not int or not 1 <= nodes <= MOST:
            raise UsageError(f"graphnas-micro: nodes is {nodes!r}; use 1 to {MOST}")
        if type(training) is not bool:
            raise UsageError(f"graphnas-micro: training is {training!r}; use True or False")
        names = operators if isinstance(operators, str) else [_reference(name) for name in operators]
        if readouts is not None:
            for_whole_graphs_alone(self)
        self.parts = parts(names, (), encodings, READOUTS if readouts is None else readouts)
        found = tuple(self.parts.operators.values())
        labels = [name if name in OPERATORS else one.label for name, one in zip(operators, found, strict=True)]
        self.operators = dict(zip(labels, found, strict=True))
        if all(adds_nothing(one) for one in found):
            raise UsageError("graphnas-micro needs operators that add something; leave them out for what is published")
        if not self.parts.readouts:
            raise UsageError("graphnas-micro needs readouts; leave them out for the mean")
        self.nodes, self.training = nodes, training
        self.fixed: dict[str, Value] = {}
        self.choices = tuple(self._choices())
        said = [nodes, training, labels, list(self.parts.encodings), list(self.parts.readouts)]
        if said != [2, True, list(OPERATORS), [], list(READOUTS)]:
            self.name = f"graphnas-micro-{hashlib.sha256(json.dumps(said).encode()).hexdigest()[:8]}"
        self.named: Mapping[str, Architecture] = MappingProxyType(dict(self._named()))
        self.left_out: Mapping[str, str] = {
            name: "its cell has another number of nodes, or operators that are not here; graphnas-micro(nodes=4) has "
            "cora, graphnas-micro(nodes=2) all others"
            for name in ("gcn", "gat", *FOUND)
            if name not in self.named
        }

    def findings(self) -> Iterator[str]:
        """What is wrong with parts of a user's."""
        yield from self.parts.findings()

    def recipe(self, arch: Architecture) -> Mapping[str, Value]:
        """Learning rate and weight decay."""
        return {name: arch.values[name] for name in RECIPE if name in arch.values}

    def unsound(self, arch: Architecture) -> str | None:
        """Nothing of the data comes through where a factor is zero, or all nodes read zeros."""
        cell = self._cell(arch)
        alive = {0, 1}
        for number, (source, label) in enumerate(cell, 2):
            if source in alive and not adds_nothing(self.operators[label]):
                alive.add(number)
        if alive == {0, 1}:
            return "constant: every node reads zeros, or is one"
        if arch.values["join"] == "product" and any(adds_nothing(self.operators[label]) for _, label in cell):
            return "constant: a product with zeros"
        return None

    def identity(self, arch: Architecture) -> str:
        """Its text with nodes in an order that does not depend on their numbers; what zeros are made of is no
        matter."""
        cell = self._cell(arch)
        readers: dict[int, list[int]] = {}
        for number, (source, label) in enumerate(cell, 2):
            readers.setdefault(0 if adds_nothing(self.operators[label]) else source, []).append(number)

        def written(number: int) -> str:
            below = sorted(map(written, readers.get(number, ())))
            return f"{cell[number - 2][1]}({', '.join(below)})"

        trees = [", ".join(sorted(map(written, readers.get(given, ())))) for given in (0, 1)]
        return " / ".join([*trees, *(f"{name}={value}" for name, value in self._others(arch).items())])

    def design(self, arch: Architecture, size: SizeConfig) -> Design:
        """The architecture with its operators. Raises UsageError for a size that says what the architecture does."""
        own, values = MicroSize.own(size, self.name), {**self.fixed, **arch.values}
        for name in ("hidden", "dropout"):
            if self.training and getattr(own, name) is not None:
                raise UsageError(
                    f"{name} is chosen by architectures of {self.name}; leave it out, or use training=False"
                )
        cell = self._cell(arch)
        return Design(
            tuple(source for source, _ in cell),
            tuple(self.operators[label] for _, label in cell),
            str(values["activation"]),
            str(values["join"]),
            int(values.get("hidden", own.hidden or 128)),
            float(values.get("dropout", 0.8 if own.dropout is None else own.dropout)),
            self.parts.encodings.get(str(values["encoding"])),
            self.parts.readouts[str(values["readout"])],
        )

    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
        """`model(x, edge_index[, edge_attr][, counts | pairs])` as the task has it, to an answer per node, graph or
        pair.

        Raises UsageError for an illegal architecture, a task that is no graph's, another space's size, and features of
        edges that no operator of the space reads.
        """
        from search_spaces.graphnas.cells import network_for

        graphs, own = task.graphs(), MicroSize.own(size, self.name)
        check_legal(self, arch)
        check_edges(self.operators, graphs.edge_features, "graphnas-micro(operators=('gcn', 'gine'))")
        return network_for(graphs)(self.design(arch, size), graphs, task.outputs, mean_degree(task), own.layers)

    def costs(self, arch: Architecture, task: Task, size: SizeConfig) -> Mapping[str, float]:
        """Parameters, and multiply-accumulates of one graph of the mean size, or of the whole one; pairs are as many as
        edges. Raises UsageError when the task does not say how large its graphs are."""
        (nodes, edges), graphs, design = task.graph_size(), task.graphs(), self.design(arch, size)
        layers = MicroSize.own(size, self.name).layers
        width, params, macs = graphs.features, 0, 0
        if design.encoding is not None:
            wide, params, macs = encoding_costs(design.encoding, nodes, edges)
            width += wide
        widths = [width, width, *[design.width] * layers]
        for number in cells_of_use(design.reads, layers):
            for given in design.reads:
                params += (widths[number + given] + 1) * design.hidden
                macs += nodes * widths[number + given] * design.hidden
            for operator in design.operators:
                more = operator_costs(operator, design.hidden, design.hidden, nodes, edges, graphs.edge_features)
                params, macs = params + more[0], macs + more[1]
        width, answers = design.width, {"node": nodes, "graph": 1, "pair": edges}[graphs.level]
        if graphs.level == "graph":
            width, more_params, more_macs = readout_costs(design.readout, width, nodes)
            params, macs = params + more_params, macs + more_macs
        return {"params": params + (width + 1) * task.outputs, "macs": macs + answers * width * task.outputs}

    def graph(self, arch: Architecture) -> ArchGraph:
        """Both inputs, every node, what they are joined by, and what the training is."""
        cell, others = self._cell(arch), self._others(arch)
        labels = ["input", "input before", "input last", *(label for _, label in cell)]
        edges = [(0, 1), (0, 2), *((source + 1, number + 1) for number, (source, _) in enumerate(cell, 2))]
        joined = len(labels)
        edges += [(node, joined) for node in range(3, joined)]
        labels.append(f"{others.pop('join')} {others.pop('activation')}")
        labels.append(" ".join(["output", *(f"{name}={value}" for name, value in others.items())]))
        return ArchGraph(tuple(labels), (*edges, (joined, joined + 1)))

    def to_text(self, arch: Architecture) -> str:
        """`1 gat_8, 0 arma / tanh concat / lr=0.01, ...`; the last part of what is chosen beside."""
        others = self._others(arch)
        cell = ", ".join(f"{source} {label}" for source, label in self._cell(arch))
        said = [cell, f"{others.pop('activation')} {others.pop('join')}"]
        return " / ".join(
            [*said, *([", ".join(f"{name}={value}" for name, value in others.items())] if others else [])]
        )

    def from_text(self, text: str) -> Architecture:
        """Raises ValueError, naming what is wrong with the text."""
        cell, _, rest = text.partition(" / ")
        joined, _, others = rest.partition(" / ")
        nodes = [node.strip().partition(" ") for node in cell.split(",")]
        if len(nodes) != self.nodes or len(joined.split()) != 2:
            raise ValueError(
                f"'{text}': write what each of {self.nodes} nodes reads and applies, apart by ', ', then ' / ' and the "
                "activation with how they are joined"
            )
        given: dict[str, str] = {}
        for number, (source, _, label) in enumerate(nodes, 1):
            given |= {f"node{number}/input": source, f"node{number}/operator": label.strip()}
        given |= dict(zip(("activation", "join"), joined.split(), strict=True))
        given = pairs(text, filter(None, map(str.strip, others.split(","))), given)
        values = chosen(text, self.choices, given, self.fixed)
        return Architecture(self.name, values)

    def _choices(self) -> Iterator[Choice]:
        """What has one option only, operators apart, is fixed instead."""
        for number in range(1, self.nodes + 1):
            yield Choice(f"node{number}/input", tuple(range(number + 1)), "input")
            yield Choice(f"node{number}/operator", tuple(self.operators), "operator")
        others: dict[str, tuple[Value, ...]] = {
            "activation": ACTIVATIONS,
            "join": JOINS,
            "encoding": (NO_ENCODING, *self.parts.encodings),
            "readout": tuple(self.parts.readouts),
            **(TRAINING if self.training else {}),
        }
        for name, options in others.items():
            if len(options) == 1:
                self.fixed[name] = options[0]
            else:
                yield Choice(name, options, name, ordered=name in TRAINING)

    def _cell(self, arch: Architecture) -> list[tuple[int, str]]:
        """What every node reads and applies."""
        values: Any = arch.values
        return [(int(values[f"node{n}/input"]), values[f"node{n}/operator"]) for n in range(1, self.nodes + 1)]

    def _others(self, arch: Architecture) -> dict[str, Value]:
        """What is chosen beside the nodes."""
        return {name: value for name, value in arch.values.items() if "/" not in name}

    def _named(self) -> Iterator[tuple[str, Architecture]]:
        """GCN and GAT as a node beside which nothing is, each with a linear map before it, and what was found."""
        alone = ", 1 zero" * (self.nodes - 1)
        known = {
            "gcn": (f"1 gcn{alone} / relu add", "0.01 0.5 0.0005 64"),
            "gat": (f"1 gat_8{alone} / elu add", "0.005 0.6 0.0005 64"),
            **FOUND,
        }
        for name, (cell, trained) in known.items():
            others = dict(zip(TRAINING, trained.split(), strict=True)) if self.training else {}
            others |= {choice.name: str(choice.options[0]) for choice in self.choices if choice.name in _BESIDE}
            text = " / ".join(
                [cell, *([", ".join(f"{key}={value}" for key, value in others.items())] if others else [])]
            )
            labels = {node.split()[1] for node in cell.partition(" / ")[0].split(", ")}
            if cell.count(",") == self.nodes - 1 and labels <= self.operators.keys():
                yield name, self.from_text(text)


_BESIDE = ("encoding", "readout")


def _reference(name: Any) -> Any:
    return OPERATORS.get(name, name) if isinstance(name, str) else name
