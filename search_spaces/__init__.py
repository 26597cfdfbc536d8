"""Search spaces: one file per space, listed here."""

GROUP = "nas.search_spaces"

BUILTIN = {
    "ae-cnn": "search_spaces.ae_cnn:AeCnn",
    "darts": "search_spaces.darts:Darts",
    "mlp": "search_spaces.mlp:Mlp",
    "nasbench201": "search_spaces.nasbench201:NasBench201",
    "nasbench_graph": "search_spaces.nasbench_graph:NasBenchGraph",
    "nasnet": "search_spaces.nasnet:NASNet",
    "regnet": "search_spaces.regnet:RegNet",
}
