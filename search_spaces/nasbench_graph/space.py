"""NAS-Bench-Graph: four computing nodes in a small DAG, nine operations (Qin et al., NeurIPS 2022).

Every node reads one earlier node (0 is the raw features); the nodes that nobody reads are concatenated
and classified. Text form: the input of each node, then its operation, `0112:gcn,gin,cheb,fc`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value
from nas_core.config import SizeConfig
from nas_core.errors import UsageError
from nas_core.graph import ArchGraph
from nas_core.relax import Picker, derive_by_choice
from nas_core.space import SearchSpace
from nas_core.task import EDGE_CLASSIFICATION, LINK_PREDICTION, NODE_CLASSIFICATION, NODE_REGRESSION, Task
from search_spaces.nasbench_graph.costs import operator_costs
from search_spaces.operators.graph import GRAPH
from search_spaces.operators.graph.parts import adds_nothing

if TYPE_CHECKING:
    from torch import nn

NODES = 4
TOPOLOGIES = ("0000", "0001", "0011", "0012", "0013", "0111", "0112", "0122", "0123")
OPERATIONS = ("gat", "gcn", "gin", "cheb", "sage", "arma", "graph", "fc", "skip")  # the benchmark's
NAMES = tuple(f"node{node}/operation" for node in range(1, NODES + 1))

SKIP = "skip"


def _place(links: Sequence[int]) -> tuple[str, tuple[int, ...]]:
    """The canonical topology of a link list, and which of its nodes (from 0) stands at each place of it.

    Breadth first; of siblings the one with more descendants comes first, then the earlier one.
    """
    sizes = [1] * (NODES + 1)
    for node in range(NODES, 0, -1):
        sizes[links[node - 1]] += sizes[node]
    order, inputs = [0], []
    for place in range(NODES + 1):
        children = [node for node in range(1, NODES + 1) if links[node - 1] == order[place]]
        children.sort(key=lambda node: -sizes[node])
        order += children
        inputs += [place] * len(children)
    return "".join(map(str, inputs)), tuple(node - 1 for node in order[1:])


LINK_LISTS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "".join(map(str, links)): _place(links) for links in product(*(range(node) for node in range(1, NODES + 1)))
}
"""All 24 valid link lists: text -> (canonical topology, the node of the list at each place of the topology)."""


def reorder(
    links: Iterable[int] | str, operations: Sequence[str], known: Sequence[str] = OPERATIONS
) -> tuple[str, tuple[str, ...]]:
    """Any of the 24 link lists with its operations, renumbered as one of the nine topologies.

    Only the numbering changes; a list that is canonical already keeps it.
    Raises ValueError for a link list that is no such list, or for operations that are not four known ones.
    """
    text = "".join(map(str, links))
    if text not in LINK_LISTS:
        raise ValueError(f"'{text}' is no link list: {NODES} digits, node k reads one of 0..k-1, for example 0121")
    if len(operations) != NODES:
        raise ValueError(f"{NODES} operations are needed, got {len(operations)}: {','.join(operations)}")
    for operation in operations:
        if operation not in known:
            raise ValueError(f"'{operation}' is no operation (known: {', '.join(known)})")
    topology, nodes = LINK_LISTS[text]
    return topology, tuple(operations[node] for node in nodes)


def representative(
    topology: str, operations: Sequence[str], known: Sequence[str] = OPERATIONS
) -> tuple[str, tuple[str, ...]]:
    """The representative of all architectures with the same function: 26,206 in all, the rows of the benchmark.

    Operations form a tree under the raw features. A skip that is read by others, or is the only reader of
    its input, passes on what it gets: it leaves the tree. A skip that reads the raw features and is read by
    nobody is not joined to the output: it leaves as well. (A skip beside other readers of a node stays: it
    joins that node to the output.) Skips that left stand as a chain at the front. Siblings are sorted by
    descending size, operation in the order of `known`, then what reads them. Any of the 24 link lists will do as
    `topology`.
    """
    index = {operation: place for place, operation in enumerate(known)}
    leaf = (-1, index[SKIP], ())
    readers: tuple[list[Any], ...] = tuple([] for _ in range(NODES + 1))
    for node in range(NODES, 0, -1):
        operation = index[operations[node - 1]]
        siblings, own = readers[int(topology[node - 1])], readers[node]
        if operation == index[SKIP]:
            siblings.extend(own or [leaf])
            continue
        if own == [leaf]:
            own = []
        own.sort()
        siblings.append((sum(tree[0] for tree in own) - 1, operation, tuple(own)))
    roots = sorted(tree for tree in readers[0] if tree != leaf)
    front = NODES + sum(tree[0] for tree in roots)
    links = list(range(front))
    result = [SKIP] * front
    queue = [(front, tree) for tree in roots]
    for link, (_, operation, own) in queue:  # grows while it is walked: breadth first
        links.append(link)
        result.append(known[operation])
        queue.extend((len(links), tree) for tree in own)
    return "".join(map(str, links)), tuple(result)


class GraphSize(SizeConfig):
    """Width and dropout; "full" is what the benchmark trained on Cora."""

    hidden: int = Field(256, ge=2, multiple_of=2, description="width of every node; even, for the two attention heads")
    dropout: float = Field(0.7, ge=0.0, lt=1.0, description="on the raw features and before every operation")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"search": {"hidden": 64, "dropout": 0.5}, "full": {}}


class NasBenchGraph(SearchSpace):
    """9 topologies, 9 operations for each of 4 nodes, without the 9 all-skip ones: 59,040 architectures.

    They compute 26,206 different functions (`identity`). `build` and `graph` give the network of the
    representative, which is the one the benchmark trained; members of a class are the same network.

    `operators`: other ones of the catalogue (`search_spaces.operators.graph`), or your own in a file,
    `nasbench_graph(operators=('gcn', 'skip', 'my_ops.py:Mine'))`. That is another space: no table has its rows.
    Raises UsageError for operators that cannot take part.
    """

    name = "nasbench_graph"
    version = 1
    tasks = frozenset({NODE_CLASSIFICATION, NODE_REGRESSION, LINK_PREDICTION, EDGE_CLASSIFICATION})
    Size = GraphSize
    why_not_additive = "the topology decides which operations read the wide raw features, and how wide the head is"

    def __init__(self, operators: Sequence[str] = OPERATIONS) -> None:
        self.operators = {each.label: each for each in GRAPH.operators(operators)}
        labels = tuple(self.operators)
        for label, operator in self.operators.items():
            if operator.own and operator.skip:
                raise UsageError(f"nasbench_graph has no place for '{label}', which hands its input on; 'skip' does")
            if adds_nothing(operator):
                raise UsageError(f"nasbench_graph has no place for '{label}', which adds nothing")
        if labels == (SKIP,):
            raise UsageError("nasbench_graph needs an operator beside 'skip'; alone it has no output")
        if labels != OPERATIONS:  # several such spaces may be in one database
            said = hashlib.sha256(json.dumps(labels).encode()).hexdigest()[:8]
            self.name = f"nasbench_graph-{said}"
        self.choices = (
            Choice("topology", TOPOLOGIES, kind="topology"),
            *(Choice(name, labels, kind="operation") for name in NAMES),
        )
        # The benchmark's order, so that its rows are found; then what it does not have.
        self._order = (*OPERATIONS, *(label for label in labels if label not in OPERATIONS))

    def findings(self) -> Iterator[str]:
        """What is wrong with operators of a user's."""
        from search_spaces.operators.graph.suite import check

        for operator in self.operators.values():
            if operator.own:
                yield from check(operator)

    def allowed(self, choice: Choice, prefix: Mapping[str, Value]) -> tuple[Value, ...]:
        """The last operation is no skip where the three before it are: such a network has no output."""
        if choice.name == NAMES[-1] and all(prefix.get(name) == SKIP for name in NAMES[:-1]):
            return tuple(option for option in choice.options if option != SKIP)
        return choice.options

    def identity(self, arch: Architecture) -> str:
        """The text of the representative: `link:op1,op2,op3,op4` of its row in the benchmark's table."""
        topology, operations = self._reduced(arch)
        return f"{topology}:{','.join(operations)}"

    def _reduced(self, arch: Architecture) -> tuple[str, tuple[str, ...]]:
        values = arch.values
        return representative(str(values["topology"]), [str(values[name]) for name in NAMES], self._order)

    def to_text(self, arch: Architecture) -> str:
        """`0112:gcn,gin,cheb,fc`: inputs of the four nodes, then their operations."""
        return f"{arch.values['topology']}:{','.join(str(arch.values[name]) for name in NAMES)}"

    def from_text(self, text: str) -> Architecture:
        """Reads all 24 link lists; the architecture has the canonical topology. Raises ValueError."""
        links, separator, operations = text.partition(":")
        if not separator:
            raise ValueError(f"'{text}' is no architecture: write LINKS:OP,OP,OP,OP, for example 0112:gcn,gin,cheb,fc")
        ordered: Sequence[str] = [operation.strip() for operation in operations.split(",")]
        try:
            topology, ordered = reorder(links.strip(), ordered, tuple(self.operators))
        except ValueError as error:
            raise ValueError(f"'{text}': {error}") from None
        arch = Architecture(self.name, _named(topology, ordered))
        reason = self.illegal(arch)
        if reason:
            raise ValueError(f"'{text}': {reason}")
        return arch

    def graph(self, arch: Architecture) -> ArchGraph:
        """The network that `build` makes: input, four nodes, output; the nodes nobody reads lead to the output."""
        topology, operations = self._reduced(arch)
        links = [int(link) for link in topology]
        edges = [(link, node) for node, link in enumerate(links, start=1)]
        edges += [(node, NODES + 1) for node in _leaves(links)]
        return ArchGraph(("input", *operations, "output"), tuple(edges))

    def network(self, picker: Picker, task: Task, size: SizeConfig) -> nn.Module:
        """`model(x, edge_index)`: `(nodes, features), (2, edges)` to `(nodes, task.outputs)`; of pairs of nodes
        `model(x, edge_index, pairs)` to `(pairs, task.outputs)`. Every choice is a group, and the topology decides what
        is read where. Raises UsageError for another space's size, and for edges with features."""
        from search_spaces.nasbench_graph.network import NodeNetwork, PairNetwork

        task.graphs("node", "pair", edge_features=False)
        network = PairNetwork if task.level == "pair" else NodeNetwork
        own = GraphSize.own(size, self.name)
        groups = {choice.name: choice.options for choice in self.choices}
        return network(picker, groups, self.operators, task.input_shape[0], task.outputs, own.hidden, own.dropout)

    def assignment(self, arch: Architecture) -> Mapping[str, Value | None]:
        """The values of the representative, which is what is built."""
        return _named(*self._reduced(arch))

    def derive(self, strengths: Mapping[str, Sequence[float]]) -> Architecture:
        """The representative of the strongest topology and the strongest operations, the first of equals. Where all
        four would be skips, the last node takes the next operation."""
        return Architecture(self.name, _named(*self._reduced(derive_by_choice(self, strengths))))

    def costs(self, arch: Architecture, task: Task, size: SizeConfig) -> Mapping[str, float]:
        """Parameters, and multiply-accumulates of one forward pass over the whole graph.

        MACs are the matrix products of all layers on all nodes (each operation projects to the hidden width
        before it propagates) plus one per feature of every message, and the last map on what is answered for, of pairs
        as many as there are edges; see `nasbench_graph.costs`. Normalisation,
        activations, biases and the attention's softmax are not counted. Every node owns a batch
        normalisation, also where it reads raw features and does not use it, as in the benchmark.

        Raises UsageError when the task does not say how large its graph is.
        """
        hidden = GraphSize.own(size, self.name).hidden
        if task.nodes is None or task.edges is None:
            raise UsageError("MACs of a graph network need the graph's size: set nodes and edges of the task")
        topology, operations = self._reduced(arch)
        links = [int(link) for link in topology]
        joined = hidden * len(_leaves(links))
        params = NODES * 2 * hidden + (joined + 1) * hidden + (hidden + 1) * task.outputs
        rows = task.edges if task.level == "pair" else task.nodes
        macs = task.nodes * hidden * joined + rows * hidden * task.outputs
        widths = [task.input_shape[0]]
        for link, operation in zip(links, operations, strict=True):
            width = widths[link]
            more = operator_costs(self.operators[operation], width, hidden, task.nodes, task.edges)
            params, macs = params + more[0], macs + more[1]
            widths.append(width if operation == SKIP else hidden)
        return {"params": params, "macs": macs}


def _named(topology: str, operations: Sequence[str]) -> dict[str, Value]:
    return dict(zip(("topology", *NAMES), (topology, *operations), strict=True))


def _leaves(links: Sequence[int]) -> list[int]:
    return [node for node in range(1, NODES + 1) if node not in links]
