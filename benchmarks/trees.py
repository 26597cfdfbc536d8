"""Boosted trees of scikit-learn on the parts of a table, encoded as the networks see them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from training.data.table_source import TableSource

DEFAULTS, STOPPED = "boosted trees, 100 iterations", "boosted trees, stopped by validation"
MOST = 500  # iterations of boosting


def _rmse(answers: np.ndarray, targets: np.ndarray) -> float:
    return float(np.sqrt(np.square(answers - targets).mean()))


def _r2(answers: np.ndarray, targets: np.ndarray) -> float:
    return 1 - float(np.square(answers - targets).mean() / targets.var())


def _accuracy(answers: np.ndarray, targets: np.ndarray) -> float:
    """Of probabilities `[n, classes]`."""
    return float((answers.argmax(1) == targets).mean())


def _loss(answers: np.ndarray, targets: np.ndarray) -> float:
    """The mean cross entropy in nats, of probabilities `[n, classes]`."""
    return float(-np.log(answers[np.arange(len(targets)), targets].clip(1e-15)).mean())


SCORES: Mapping[str, tuple[Callable[[np.ndarray, np.ndarray], float], bool]] = {
    "rmse": (_rmse, True),
    "r2": (_r2, False),
    "accuracy": (_accuracy, False),
    "loss": (_loss, True),
}
"""Metrics, each with whether less is better; `loss` is that of classes."""


def boosted(source: TableSource, metric: str) -> Iterator[dict[str, Any]]:
    """`HistGradientBoosting` with its defaults, and with as many iterations, up to `MOST`, as are best on the
    validation part. No seed matters."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingClassifier if source.inputs.classes else HistGradientBoostingRegressor
    score, less = SCORES[metric]
    rows = {part: (source.features[numbers], source.targets[numbers]) for part, numbers in source.parts.items()}
    begun = time.perf_counter()
    trees = kind(max_iter=MOST, early_stopping=False).fit(*rows["train"])
    seconds = time.perf_counter() - begun
    staged = trees.staged_predict_proba if source.inputs.classes else trees.staged_predict
    scores = {part: [score(answers, rows[part][1]) for answers in staged(rows[part][0])] for part in ("valid", "test")}
    best = int(np.argmin(scores["valid"]) if less else np.argmax(scores["valid"]))
    for model, iterations in ((DEFAULTS, 100), (STOPPED, best + 1)):
        valid, test = (scores[part][iterations - 1] for part in ("valid", "test"))
        yield {"model": model, "valid": valid, "test": test, "seconds": seconds * iterations / MOST}
