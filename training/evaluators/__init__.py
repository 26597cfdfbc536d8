"""Evaluators: what turns a proposal into metrics, one file each, listed here."""

BUILTIN = {
    "train": "training.evaluators.train:Train",
    "table": "training.evaluators.table:Table",
    "supernet": "training.evaluators.supernet:SupernetEvaluator",
}
