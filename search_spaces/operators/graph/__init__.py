"""Node operators: one step of a graph network.

Made by `(width, hidden)`, called with features `x [nodes, width]` and `search_spaces.layers.links.Links`, whose `edges`
are `[2, edges]`, source and target; answers `[nodes, hidden]`. With `takes_sparse = True` the features may be a sparse
tensor, as products take it: a bag of words has few values.
"""

from search_spaces.operators.operator import Role

GRAPH = Role(
    "graph operator",
    group="nas.graph_operators",
    made_by=("width", "hidden"),
    table={
        "gat": "search_spaces.operators.graph.gat:Attention",
        "gcn": "search_spaces.operators.graph.gcn:Convolution",
        "gin": "search_spaces.operators.graph.gin:Isomorphism",
        "cheb": "search_spaces.operators.graph.cheb:Chebyshev",
        "sage": "search_spaces.operators.graph.sage:Sage",
        "arma": "search_spaces.operators.graph.arma:Arma",
        "graph": "search_spaces.operators.graph.kgnn:KGNN",
        "fc": "search_spaces.operators.graph.fc:Dense",
        "skip": "search_spaces.operators.graph.skip:Skip",
    },
)
