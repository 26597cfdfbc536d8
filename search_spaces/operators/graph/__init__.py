"""The catalogue of graph operators: a table per role, a folder per role, a file per idea.

| role | made by | called with | answers |
|---|---|---|---|
| node operator `GRAPH` | `(width, hidden)` | `(x, e, graph)`, see below | `[nodes, hidden]` |
| relation operator | `(node_width, edge_width)` | `(x, e [edges, edge_width], graph)` | `[edges, edge_width]` |
| aggregator | `(width)` | `(values [k, width], index [k], count)`, values in the order of `index` | `[count, width']` |
| encoding | its options | `(graph)` | `[nodes, width']` |
| rewiring | its options | `(x, graph)` | `rewiring.rewired.Rewired`: another graph |
| readout | `(width)` | `(x, graph)` | `[graphs, width']` |
| head | `(width, outputs)` | `(x, graph)`, or `(x, pairs [2, p], graph)` with `pairs = True` | outputs of each |

`graph` is a `search_spaces.layers.graph_batch.GraphBatch`, with as many graphs as it has, and edges are in the order of
its `edge_index`; `width'` is the attribute `out_features` of what is made. Every entry of a table also has
`macs(nodes, edges)`, the multiply-accumulates of one graph without self-loops (for heads of pairs `edges` are the
pairs; of an aggregator `edges` values go to `nodes`), and `signature()`, a hashable value: weights mean the same where
it is equal (`nas_core.traits.HasSignature`).

What else a class may say: `stochastic = True`, its answer is drawn anew in every pass; `ordered`, a text: why its
answer depends on the order of edges, or of nodes; `why_not_exportable`, a text; `static = True`, an encoding that is
the same in every pass.

A node operator is called as layers of PyTorch Geometric are, `(x [nodes, width], edge_index [2, edges])`, source and
target, both directions of an undirected edge: most of those layers are such, too. With `takes_graph = True` the graph
takes the place of `edge_index`; with `takes_edges = True` features of the edges in its order, or None, come third,
`e [edges, edge_dim]`, and `edge_dim` is an option; with `takes_degree = True` the mean degree is an option, `degree`;
with `takes_sparse = True` features may be `search_spaces.layers.sparse_features.SparseFeatures`, of which linear maps
are sparse products: a bag of words has few values. One that propagates raw features before there are any weights asks
the graph for what comes out, `GraphBatch.spread`, as `sgc` does: it is made once per data set.
`made.step` hides all of that behind `(x, e, graph)`.
"""

from search_spaces.operators.operator import Role

_HERE = "search_spaces.operators.graph"

GRAPH = Role(
    "graph operator",
    group="nas.graph_operators",
    made_by=("width", "hidden"),
    table={
        "gat": f"{_HERE}.node.gat:Attention",
        "gcn": f"{_HERE}.node.gcn:Convolution",
        "gin": f"{_HERE}.node.gin:Isomorphism",
        "cheb": f"{_HERE}.node.cheb:Chebyshev",
        "sage": f"{_HERE}.node.sage:Sage",
        "arma": f"{_HERE}.node.arma:Arma",
        "graph": f"{_HERE}.node.kgnn:KGNN",
        "fc": f"{_HERE}.node.fc:Dense",
        "skip": f"{_HERE}.node.skip:Skip",
        "zero": f"{_HERE}.node.zero:Zero",
        "gatv2": f"{_HERE}.node.gatv2:DynamicAttention",
        "gine": f"{_HERE}.node.gine:IsomorphismWithEdges",
        "sgc": f"{_HERE}.node.sgc:Simplified",
        "appnp": f"{_HERE}.node.appnp:Personalised",
        "pna": f"{_HERE}.node.pna:Principal",
        "transformer": f"{_HERE}.node.transformer:GraphTransformer",
        "gcn2": f"{_HERE}.node.gcn2:Remembering",
        "general": f"{_HERE}.node.general:General",
    },
)

RELATION = Role(
    "relation operator",
    group="nas.relation_operators",
    made_by=("node_width", "edge_width"),
    table={name: f"{_HERE}.relation.gated:Gated(by={name})" for name in ("sub", "gauss", "max", "sum", "mean", "had")},
)

AGGREGATOR = Role(
    "aggregator",
    group="nas.aggregators",
    made_by=("width",),
    table={
        "sum": f"{_HERE}.aggregator.reduced:Reduced(by=sum)",
        "mean": f"{_HERE}.aggregator.reduced:Reduced(by=mean)",
        "max": f"{_HERE}.aggregator.reduced:Reduced(by=max)",
        "std": f"{_HERE}.aggregator.std:Deviation",
        "softmax": f"{_HERE}.aggregator.softmax:Softmax",
        "gem2": f"{_HERE}.aggregator.power_mean:PowerMean(power=2)",
        "gem3": f"{_HERE}.aggregator.power_mean:PowerMean(power=3)",
        "lcm": f"{_HERE}.aggregator.lcm:LearnedMonoid",
    },
)

ENCODING = Role(
    "encoding",
    group="nas.encodings",
    made_by=(),
    table={
        "laplacian": f"{_HERE}.encoding.laplacian:Laplacian",
        "random-walk": f"{_HERE}.encoding.random_walk:RandomWalk",
        "random": f"{_HERE}.encoding.random_nodes:RandomNodes",
    },
)

REWIRING = Role(
    "rewiring",
    group="nas.rewirings",
    made_by=(),
    table={"virtual-node": f"{_HERE}.rewiring.virtual_node:VirtualNode"},
)

READOUT = Role(
    "readout",
    group="nas.readouts",
    made_by=("width",),
    table={name: f"{_HERE}.readout.aggregated:Aggregated(by={name})" for name in AGGREGATOR.table},
)

HEAD = Role(
    "head",
    group="nas.graph_heads",
    made_by=("width", "outputs"),
    table={
        "linear": f"{_HERE}.head.linear:LinearHead",
        "dot": f"{_HERE}.head.dot:DotHead",
        "mlp": f"{_HERE}.head.mlp:MlpHead",
    },
)
