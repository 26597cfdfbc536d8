"""Continuous diffusion of `diffusion-nag`: what training its score network takes, and two samplers side by side.

    python benchmarks/diffusion_nag.py [--data ../shared/data] [--count 256] [--threads 2]

NAS-Bench-201. The score network is trained once, on random cells, on one thread as always; then `--count` matrices are
drawn by 18 Heun steps (35 calls of the network) and by `--pc-steps` steps of predictor and corrector (two calls each),
without guidance and guided by an ensemble of noise-aware predictors times `--scale`. The same strength leads the two
samplers differently far, and costs diversity; so Heun is shown at `--heun-scale` too. The ensemble has learned from
`--labels` random cells, whose targets are the normal scores of their recorded CIFAR-10 validation accuracy, or without
tables of a made-up quality. Per sampler: seconds, share of valid matrices, share of the valid ones that are different,
mean of what the ensemble predicts of the valid ones and of their true value, in percent for accuracy. After ± are
standard errors; `difference` is the last Heun less predictor and corrector. `all cells` is what an unguided sampler
without any error would give in the mean. With `--kept DIR` the trained network is kept there and found again.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.config import validate
from nas_core.seeds import generator
from predictors.targets import NormalScores
from search_spaces.nasbench201.space import NasBench201
from strategies.diffusion import reverse, score
from strategies.diffusion.config import NoisyConfig, ScoreConfig
from strategies.diffusion.noisy import NoisyEnsemble
from strategies.diffusion.operation_matrix import OperationMatrix
from studies.store.file_cache import FileCache

SPACE = NasBench201()
SKELETON = OperationMatrix(SPACE)
SAMPLES = 10_000
Floats = NDArray[numpy.float64]
Values = Callable[[list[Architecture]], Floats]
Sampler = Callable[[reverse.Field | None], Tensor]
Row = list[tuple[float, float]]


def cells(count: int, *words: int | str) -> list[Architecture]:
    rng = generator(*words)
    return [moves.sample(SPACE, rng) for _ in range(count)]


def recorded(data: Path) -> Values:
    """CIFAR-10 validation accuracy in percent."""
    with gzip.open(data / "nb201.csv.gz", "rt") as file:
        table = {row["arch"]: float(row["c10_valid"]) for row in csv.DictReader(file)}
    return lambda archs: numpy.array([table[SPACE.to_text(arch)] for arch in archs])


def made_up(archs: list[Architecture]) -> Floats:
    """The mean place of the options."""
    return numpy.array(
        [numpy.mean([choice.options.index(arch.values[choice.name]) for choice in SPACE.choices]) for arch in archs]
    )


def train(config: ScoreConfig, kept: Any) -> score.Score:
    before, begun = _memory(), time.perf_counter()
    found = score.trained(
        lambda: SKELETON.encode(cells(SAMPLES, "benchmark", "samples")), SKELETON.reach, config, kept, "benchmark"
    )
    count = sum(parameter.numel() for parameter in found.network.parameters())
    print(
        f"score network of {count:,} parameters: {config.steps} steps of {config.batch} in "
        f"{time.perf_counter() - begun:.1f} s, {_memory() - before:.0f} MB more than before"
    )
    return found


def measure(sampler: Sampler, guidance: reverse.Field | None, ensemble: NoisyEnsemble, values: Values) -> Row:
    """Pairs of a mean and its standard error, the columns of the table."""
    begun = time.perf_counter()
    rows = sampler(guidance)
    took = time.perf_counter() - begun
    found = SKELETON.decode(rows.numpy())
    archs = [arch for arch in found if arch is not None]
    valid, unique = len(archs) / len(found), len(set(archs)) / max(len(archs), 1)
    columns: Row = [(took, 0.0), (valid, (valid * (1 - valid) / len(found)) ** 0.5), (unique, 0.0)]
    for numbers in (ensemble.predict(SKELETON.encode(archs))[0], values(archs)) if archs else ():
        columns.append((float(numbers.mean()), float(numbers.std(ddof=1) / len(archs) ** 0.5)))
    return columns


def printed(name: str, columns: Row) -> None:
    cells = [f"{mean:.3f}" + (f" ± {error:.3f}" if error else "") for mean, error in columns]
    print(f"{name:<36}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with nb201.csv.gz")
    parser.add_argument("--count", type=int, default=256, help="matrices that each sampler draws")
    parser.add_argument("--pc-steps", type=int, default=1000)
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--scale", type=float, default=10.0, help="strength of the guidance")
    parser.add_argument("--heun-scale", type=float, default=14.0, help="the strength at which Heun is as far led")
    parser.add_argument("--seed", type=int, default=0, help="of the labels, the ensemble and the samples")
    parser.add_argument("--threads", type=int, default=1, help="of the samplers")
    parser.add_argument("--kept", type=Path, help="folder in which the trained network is kept")
    parser.add_argument("--network", nargs="*", default=[], metavar="KEY=VALUE", help="of ScoreConfig, e.g. head=1536")
    arguments = parser.parse_args()
    settings: Mapping[str, str] = dict(one.split("=", 1) for one in arguments.network)
    kept = FileCache(arguments.kept) if arguments.kept else {}
    network = train(validate(ScoreConfig, settings, "network"), kept)
    torch.set_num_threads(arguments.threads)
    values = recorded(arguments.data) if arguments.data else made_up
    labelled = list(dict.fromkeys(cells(arguments.labels, arguments.seed, "labels")))
    targets = values(labelled)
    ensemble = NoisyEnsemble(SKELETON, NoisyConfig(), arguments.seed)
    ensemble.fit(SKELETON.encode(labelled), NormalScores.of(targets)[1], network.levels)

    def guided(scale: float) -> reverse.Field:
        return lambda x, sigma: scale * ensemble.gradient(x, sigma)

    shape = (arguments.count, SKELETON.count, len(SKELETON.vocabulary))

    def heun(guide: reverse.Field | None) -> Tensor:
        random = torch.Generator().manual_seed(arguments.seed)
        return reverse.heun(network, shape, random, guidance=guide, schedule=network.schedule)

    def corrected(guide: reverse.Field | None) -> Tensor:
        random = torch.Generator().manual_seed(arguments.seed)
        return reverse.predictor_corrector(network, shape, random, network.schedule, arguments.pc_steps, guidance=guide)

    true = "accuracy" if arguments.data else "quality"
    print(f"{'':<36}" + "".join(f"{name:>18}" for name in ("seconds", "valid", "unique", "predicted", true)))
    archs = list(moves.enumerate_all(SPACE))
    predicted = ensemble.predict(SKELETON.encode(archs))[0]
    printed(
        "all cells",
        [(0.0, 0.0), (1.0, 0.0), (1.0, 0.0), *((float(of.mean()), 0.0) for of in (predicted, values(archs)))],
    )
    strong, wide = arguments.scale, arguments.heun_scale
    printed(f"Heun, guided by {strong:g}", measure(heun, guided(strong), ensemble, values))
    for name, other, mine, theirs in (
        ("", "", None, None),
        (f", guided by {wide:g}", f", guided by {strong:g}", guided(wide), guided(strong)),
    ):
        rows = measure(heun, mine, ensemble, values), measure(corrected, theirs, ensemble, values)
        printed("Heun" + name, rows[0])
        printed("predictor-corrector" + other, rows[1])
        printed("difference", [(a - c, (b * b + d * d) ** 0.5) for (a, b), (c, d) in zip(*rows, strict=False)])


def _memory() -> float:
    """The most that the process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
