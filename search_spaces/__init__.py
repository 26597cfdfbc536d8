"""Search spaces: one folder per space, listed here; a small one is one file."""

GROUP = "nas.search_spaces"

BUILTIN = {
    "activation": "search_spaces.activation.space:ActivationSpace",
    "ae-cnn": "search_spaces.ae_cnn.space:AeCnn",
    "argnp": "search_spaces.argnp.space:Argnp",
    "auto-gnn": "search_spaces.auto_gnn.space:AutoGnn",
    "darts": "search_spaces.darts.space:Darts",
    "graphgym": "search_spaces.graphgym.space:GraphGym",
    "graphnas": "search_spaces.graphnas.macro:GraphNas",
    "graphnas-micro": "search_spaces.graphnas.micro:GraphNasMicro",
    "evonorm": "search_spaces.evonorm.space:EvoNorm",
    "gnas": "search_spaces.gnas.space:Gnas",
    "mlp": "search_spaces.mlp.space:Mlp",
    "moe": "search_spaces.moe.space:Moe",
    "nasbench201": "search_spaces.nasbench201.space:NasBench201",
    "nasbench_graph": "search_spaces.nasbench_graph.space:NasBenchGraph",
    "nasnet": "search_spaces.nasnet.space:NASNet",
    "regnet": "search_spaces.regnet.space:RegNet",
    "stages": "search_spaces.stages.space:Stages",
}
