"""Search strategies: families of them, one file per strategy, listed here.

`ONE_SHOT` train a supernet, `BUILTIN` ask and are told, and so does what `BLACK_BOX` lists beside them: a name that
ends in a colon takes the rest of a reference as its argument.
"""

GROUP = "nas.strategies"

BUILTIN = {
    "random": "strategies.basic.random_search:RandomSearch",
    "regularized-evolution": "strategies.evolution.regularized:RegularizedEvolution",
    "local-search": "strategies.basic.local_search:LocalSearch",
    "successive-halving": "strategies.multi_fidelity.successive_halving:SuccessiveHalving",
    "hyperband": "strategies.multi_fidelity.hyperband:Hyperband",
    "asha": "strategies.multi_fidelity.asha:Asha",
    "ae-cnn": "strategies.evolution.ae_cnn:AeCnn",
    "nsga2": "strategies.evolution.nsga:Nsga2",
    "nsga3": "strategies.evolution.nsga:Nsga3",
    "evonorm": "strategies.evolution.evonorm:EvoNorm",
    "tpe": "strategies.model_based.optuna_sampler:TPE",
    "gp": "strategies.model_based.optuna_sampler:GP",
    "reinforce": "strategies.reinforcement.reinforce:Reinforce",
    "ppo": "strategies.reinforcement.ppo:PPO",
    "agnn-rl": "strategies.reinforcement.agnn:AutoGNN",
    "bananas": "strategies.model_based.bananas:Bananas",
    "diffusion": "strategies.diffusion.masked:Diffusion",
    "diffusion-nag": "strategies.diffusion.nag:DiffusionNag",
    "proxy-filter": "strategies.wrappers.proxy_filter:ProxyFilter",
    "genetic-predictor": "strategies.model_based.genetic_predictor:GeneticPredictor",
    "warm-up": "strategies.wrappers.warm_up:WarmUp",
    "enqueue": "strategies.wrappers.enqueue:Enqueue",
}

BLACK_BOX = {**BUILTIN, "command:": "strategies.external.command:running"}

ONE_SHOT = {
    "darts": "strategies.one_shot.darts:Darts",
    "gdas": "strategies.one_shot.gdas:Gdas",
    "drnas": "strategies.one_shot.drnas:DrNas",
    "dropnas": "strategies.one_shot.dropnas:DropNas",
    "rc-darts": "strategies.one_shot.rc_darts:RcDarts",
    "sgas": "strategies.one_shot.sgas:Sgas",
    "argnp": "strategies.one_shot.argnp:Argnp",
    "enas": "strategies.one_shot.enas:Enas",
    "spos": "strategies.one_shot.spos:Spos",
    "hessian-guard": "strategies.one_shot.guard:HessianGuard",
}

ALL = {**BLACK_BOX, **ONE_SHOT}
