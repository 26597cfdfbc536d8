"""Evaluators: what turns a proposal into metrics, one file each, listed here.

The class of one has `Settings` (`settings.EvaluatorSettings`), `open(settings, problem)` and `Options`
(`settings.EvaluatorOptions`); that of a user's file, or of a package, needs the first two (`own.py`).
"""

GROUP = "nas.evaluators"

BUILTIN = {
    "train": "training.evaluators.train:Train",
    "table": "training.evaluators.table:Table",
    "supernet": "training.evaluators.supernet:SupernetEvaluator",
    "told": "training.evaluators.told:Told",
}

WRAPPERS = {
    "compressed": "compressors.evaluator:Compressed",
    "screened": "training.evaluators.screened:Screened",
    "hosts": "training.evaluators.hosts:Hosts",
    "cost-table": "training.evaluators.joined:Joined",
}
"""Evaluators around another one, whose settings are their `inner`; the first one listed is the innermost."""
