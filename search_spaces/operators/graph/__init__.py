"""Node operators: one step of a graph network.

Made by `(width, hidden)`, called with features `x [nodes, width]` and `edge_index [2, edges]`, source and target, both
directions of an undirected edge; answers `[nodes, hidden]`. Most layers of PyTorch Geometric are such, too.

With `takes_graph = True` it gets `search_spaces.layers.graph_batch.GraphBatch` instead of the tensor, which computes
once what several layers need of the edges; with `takes_sparse = True` features may be a sparse tensor, as products take
it: a bag of words has few values.
"""

from search_spaces.operators.operator import Role

GRAPH = Role(
    "graph operator",
    group="nas.graph_operators",
    made_by=("width", "hidden"),
    table={
        "gat": "search_spaces.operators.graph.node.gat:Attention",
        "gcn": "search_spaces.operators.graph.node.gcn:Convolution",
        "gin": "search_spaces.operators.graph.node.gin:Isomorphism",
        "cheb": "search_spaces.operators.graph.node.cheb:Chebyshev",
        "sage": "search_spaces.operators.graph.node.sage:Sage",
        "arma": "search_spaces.operators.graph.node.arma:Arma",
        "graph": "search_spaces.operators.graph.node.kgnn:KGNN",
        "fc": "search_spaces.operators.graph.node.fc:Dense",
        "skip": "search_spaces.operators.graph.node.skip:Skip",
    },
)
