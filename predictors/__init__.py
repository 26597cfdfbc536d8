"""Predictors: guesses of a metric without the full evaluation. One file per predictor, listed here."""

GROUP = "nas.predictors"

# Zero-cost proxies: a score from an untrained network, higher is better (`predictors.proxy.Proxy`).
PROXIES = {
    "gradsign": "predictors.zero_cost.gradsign:GradSign",
    "synflow": "predictors.zero_cost.synflow:SynFlow",
    "logsynflow": "predictors.zero_cost.logsynflow:LogSynFlow",
    "snip": "predictors.zero_cost.snip:Snip",
    "grasp": "predictors.zero_cost.grasp:GraSP",
    "fisher": "predictors.zero_cost.fisher:Fisher",
    "grad_norm": "predictors.zero_cost.grad_norm:GradNorm",
    "jacob_cov": "predictors.zero_cost.jacob_cov:JacobianCovariance",
    "naswot": "predictors.zero_cost.naswot:Naswot",
    "zen": "predictors.zero_cost.zen:Zen",
    "zico": "predictors.zero_cost.zico:ZiCo",
    "ntk_condition": "predictors.zero_cost.ntk_condition:NTKCondition",
    "linear_regions": "predictors.zero_cost.linear_regions:LinearRegions",
    "az_nas": "predictors.zero_cost.az_nas:AZNAS",
    "path_norm": "predictors.zero_cost.path_norm:PathNorm",
    "params": "predictors.zero_cost.params:Params",
    "macs": "predictors.zero_cost.macs:Macs",
    "l2_norm": "predictors.zero_cost.l2_norm:L2Norm",
}

# Surrogates: fitted to evaluated architectures (`predictors.surrogate.Surrogate`).
SURROGATES = {
    "auto": "predictors.surrogates.auto:Auto",
    "ridge": "predictors.surrogates.ridge:Ridge",
    "gp": "predictors.surrogates.gp:GaussianProcess",
    "boosted-trees": "predictors.surrogates.boosted_trees:BoostedTrees",
    "random-forest": "predictors.surrogates.random_forest:RandomForest",
    "mlp": "predictors.surrogates.mlp:MLPEnsemble",
    "graph-network": "predictors.surrogates.graph_network:GraphNetwork",
    "pairwise": "predictors.surrogates.pairwise:Pairwise",
}
