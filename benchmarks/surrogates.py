"""Surrogates on NAS-Bench-201: rank correlation with the validation accuracy of unseen cells, by model and encoding.

    python benchmarks/surrogates.py --data ../shared/data [--splits 10] [--sizes 20,50,100,200] [--models auto,gp]

The observations are drawn uniformly over the cells; those that are held out compute other functions than any of them
(`identity`), 3,000 drawn anew per split. `s1` is the share of them within one standard deviation, `s1~|e|` the rank
correlation of the standard deviation and the absolute error. `fit` and `10k` are the medians of the time to fit, and to
encode and predict 10,000 cells, in milliseconds of wall time. Scores are the recorded ones of `nb201_proxies.csv.gz`,
and `params` the parameters of the cell's network at 16 channels and 5 cells. `--shuffle` permutes the values.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
from scipy.stats import spearmanr

import predictors
from nas_core import refs
from nas_core.architecture import Architecture
from nas_core.config import validate
from nas_core.errors import UsageError, unknown
from nas_core.seeds import generator
from nas_core.task import IMAGE_CLASSIFICATION, Task
from predictors.scoring import ScoreTable
from predictors.surrogate import Problem
from search_spaces.nasbench201.space import NasBench201, Size

SPACE = NasBench201()
TASK = Task(kind=IMAGE_CLASSIFICATION, input_shape=(3, 32, 32), outputs=10)
PROXIES = ("naswot", "logsynflow", "linear_regions", "params")
ENCODINGS: Mapping[str, Mapping[str, Any]] = {
    "one-hot": {"blocks": ("one-hot",)},
    "paths": {"blocks": ("paths",)},
    "counts": {"blocks": ("counts",)},
    "structure": {"blocks": ("structure", "counts")},
    "default": {},
    "default+structure": {"blocks": ("one-hot", "contracted-paths", "counts", "structure")},
    "default+proxies": {"proxies": PROXIES},
    "proxies": {"blocks": (), "proxies": PROXIES},
}
OWN: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "auto": {"default": {"proxies": ()}, "default+proxies": {}},
    "graph-network": {"default": {}},
}
"""Models that take encodings in a way of their own."""


def score_of(
    data: Path, dataset: str, cells: Sequence[str]
) -> Callable[[str, Sequence[Architecture]], Sequence[float]]:
    table = ScoreTable(SPACE, data / "nb201_proxies.csv.gz", dataset)

    everything = [SPACE.from_text(text) for text in cells]
    known = {"params": {arch: SPACE.costs(arch, TASK, Size())["params"] for arch in everything}}
    for name in ("naswot", "synflow", "logsynflow", "linear_regions"):
        known[name] = {found.arch: found.values[name] for found in table.score(everything, [name])}

    def score(name: str, archs: Sequence[Architecture]) -> list[float]:
        if name not in known:
            raise unknown("score", name, known)
        return [known[name][arch] for arch in archs]

    return score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of nb201.csv.gz and nb201_proxies.csv.gz")
    parser.add_argument("--dataset", choices=("cifar10", "cifar100"), default="cifar10")
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--sizes", default="20,50,100,200", help="numbers of observations")
    parser.add_argument("--models", default=",".join(predictors.SURROGATES))
    parser.add_argument("--encodings", default=",".join(ENCODINGS))
    parser.add_argument("--shuffle", action="store_true", help="permute the values: nothing can be learned")
    arguments = parser.parse_args()
    with gzip.open(arguments.data / "nb201.csv.gz", "rt", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    archs = [SPACE.from_text(row["arch"]) for row in rows]
    column = {"cifar10": "c10_valid", "cifar100": "c100_valid"}[arguments.dataset]
    values = numpy.array([float(row[column]) for row in rows])
    identities = numpy.array([SPACE.identity(arch) for arch in archs])
    score = score_of(arguments.data, arguments.dataset, [row["arch"] for row in rows])
    print(f"{'model':<15}{'encoding':<19}{'n':>5}{'rho':>7}{'+-':>7}{'s1':>6}{'s1~|e|':>8}{'fit':>7}{'10k':>7}")
    for name in arguments.models.split(","):
        kind = refs.find(name, predictors.SURROGATES, predictors.GROUP, "surrogate")
        for encoding in arguments.encodings.split(","):
            given = OWN.get(name, ENCODINGS).get(encoding)
            if given is None:
                continue
            for size in map(int, arguments.sizes.split(",")):
                found = []
                for split in range(arguments.splits):
                    rng = generator(split, "split")
                    order = rng.permutation(len(archs))
                    seen, rest = order[:size], order[size:]
                    unseen = rest[~numpy.isin(identities[rest], identities[seen])][:3000]
                    truth = rng.permutation(values) if arguments.shuffle else values
                    try:
                        surrogate = kind(Problem(SPACE, split, score), validate(kind.Config, given, name))
                    except UsageError as error:
                        raise SystemExit(f"{name}, {encoding}: {error}") from None
                    begun = time.perf_counter()
                    surrogate.fit([archs[row] for row in seen], [float(truth[row]) for row in seen])
                    fitted = time.perf_counter()
                    surrogate.predict([archs[row] for row in order[-10_000:]])
                    predicted = time.perf_counter()
                    mean, deviation = surrogate.predict([archs[row] for row in unseen])
                    off = numpy.abs(truth[unseen] - mean)
                    found.append(
                        (
                            spearmanr(mean, truth[unseen])[0],
                            (off <= deviation).mean(),
                            spearmanr(off, deviation)[0],
                            1000 * (fitted - begun),
                            1000 * (predicted - fitted),
                        )
                    )
                rho, inside, honest, fit, predict = numpy.array(found).T
                print(
                    f"{name:<15}{encoding:<19}{size:>5}{rho.mean():>7.3f}{rho.std() / len(rho) ** 0.5:>7.3f}"
                    f"{inside.mean():>6.2f}{honest.mean():>8.2f}{numpy.median(fit):>7.0f}{numpy.median(predict):>7.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
