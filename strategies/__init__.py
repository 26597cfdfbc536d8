"""Search strategies: one file per strategy, listed here. `ONE_SHOT` train a supernet, `BUILTIN` ask and are told."""

GROUP = "nas.strategies"

BUILTIN = {
    "random": "strategies.random_search:RandomSearch",
    "regularized-evolution": "strategies.evolution:RegularizedEvolution",
    "local-search": "strategies.local_search:LocalSearch",
    "successive-halving": "strategies.successive_halving:SuccessiveHalving",
    "hyperband": "strategies.hyperband:Hyperband",
    "asha": "strategies.asha:Asha",
    "ae-cnn": "strategies.ae_cnn:AeCnn",
    "nsga2": "strategies.nsga:Nsga2",
    "nsga3": "strategies.nsga:Nsga3",
    "tpe": "strategies.optuna_sampler:TPE",
    "gp": "strategies.optuna_sampler:GP",
    "reinforce": "strategies.reinforce:Reinforce",
    "ppo": "strategies.ppo:PPO",
    "agnn-rl": "strategies.agnn:AutoGNN",
    "bananas": "strategies.bananas:Bananas",
    "diffusion": "strategies.diffusion.masked:Diffusion",
    "diffusion-nag": "strategies.diffusion.nag:DiffusionNag",
    "proxy-filter": "strategies.proxy_filter:ProxyFilter",
    "genetic-predictor": "strategies.genetic_predictor:GeneticPredictor",
    "warm-up": "strategies.warm_up:WarmUp",
}

ONE_SHOT = {
    "darts": "strategies.one_shot.darts:Darts",
    "gdas": "strategies.one_shot.gdas:Gdas",
    "drnas": "strategies.one_shot.drnas:DrNas",
    "dropnas": "strategies.one_shot.dropnas:DropNas",
    "rc-darts": "strategies.one_shot.rc_darts:RcDarts",
    "enas": "strategies.one_shot.enas:Enas",
    "spos": "strategies.one_shot.spos:Spos",
    "hessian-guard": "strategies.one_shot.guard:HessianGuard",
}

ALL = {**BUILTIN, **ONE_SHOT}
