"""Fashion-MNIST: pruned networks after plain fine-tuning and with the network before as teacher, paired by network.

    python benchmarks/compression_distillation.py --data ../shared/data/fashion-mnist [--folder structured]

The AE-CNN of `compression_structured.py` is pruned once per seed, by magnitude to a quarter of its MACs, with the
statistics of batch normalisations made anew. Then it is trained for three epochs, alone and with every alpha and
temperature, each time in the same order of batches. Every training is a row of a file in `benchmarks/results`; a row
that is there is not made again.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import math
import statistics
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from compressed import CPU, Compressed, Problem, compressed, method
from rows import Rows
from torch import nn

from training.fit import fit
from training.regimes.distillation import Distillation
from training.teacher import Teacher

FIELDS = ("seed", "way", "before", "val_accuracy", "test_accuracy", "macs_share", "seconds")
TARGET = "macs<=0.25x"
PLAIN = "plain"
WAYS: dict[str, Distillation | None] = {
    PLAIN: None,
    **{
        f"alpha {alpha}, T {temperature}": Distillation(alpha=alpha, temperature=temperature)
        for alpha, temperature in product((0.5, 0.9), (1, 4))
    },
}


def taught_by(network: nn.Module, problem: Problem, seed: int) -> Teacher:
    """The network before as a teacher."""
    weights = b"".join(one.detach().numpy().tobytes() for one in network.state_dict().values())
    return Teacher(
        f"dense-{seed}", hashlib.sha256(weights).hexdigest(), problem.source.task, None, lambda: copy.deepcopy(network)
    )


def trained(problem: Problem, pruned: Compressed, way: str, seed: int, teacher: Teacher) -> dict[str, Any]:
    """What a row says of one training of a pruned network."""
    network, begun = copy.deepcopy(pruned.network), time.process_time()
    assert problem.tuning is not None
    settings = WAYS[way]
    plan = problem.tuning.model_copy(update={"distillation": settings})
    taught = None if settings is None else teacher
    *_, last = fit(network, problem.data, plan, device=CPU, seed=seed, test=True, teacher=taught)
    found = {name: last.metrics[name] for name in ("val_accuracy", "test_accuracy")}
    return {"before": pruned.before, "seconds": round(time.process_time() - begun, 1), **found}


def gains(rows: Rows) -> Iterator[tuple[str, list[float], list[float]]]:
    """By way the test accuracies in percent, and what each network gained over its plain training, in points."""
    test: dict[tuple[str, str], float] = {(row["seed"], row["way"]): 100 * float(row["test_accuracy"]) for row in rows}
    for way in WAYS:
        seeds = [seed for seed, other in test if other == way and (seed, PLAIN) in test]
        yield way, [test[seed, way] for seed in seeds], [test[seed, way] - test[seed, PLAIN] for seed in seeds]


def error(values: list[float]) -> float:
    """The standard error of a mean; of a single value it is not known."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def summary(rows: Rows) -> None:
    """Means and standard errors, of accuracies and of paired gains, and what may be the default."""
    good = []
    for way, test, gain in gains(rows):
        if not test:
            continue
        mean, spread = statistics.fmean(gain), error(gain)
        print(
            f"{way:>14}: test {statistics.fmean(test):.2f} ± {error(test):.2f}, "
            f"paired gain {mean:+.2f} ± {spread:.2f} ({len(test)})"
        )
        if way != PLAIN and mean >= -spread:
            good.append(way)
    usual = Distillation()
    print(f"not worse than {PLAIN} by more than one standard error: {'; '.join(good) or 'none'}")
    told = "one of them" if any(WAYS[way] == usual for way in good) else "none of them"
    print(f"the default, alpha {usual.alpha:g} and T {usual.temperature:g}, is {told}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the four files of Fashion-MNIST")
    parser.add_argument("--folder", type=Path, default=Path("structured"), help="where the dense weights are")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8, help="of the dense network, where it is not there")
    parser.add_argument("--tune", type=int, default=3, help="epochs after the pruning")
    parser.add_argument("--limit", type=int, default=12_000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    problem = Problem(arguments.data, arguments.folder, arguments.limit, arguments.epochs, arguments.tune)
    rows = Rows(arguments.out or Path(__file__).parent / "results" / "compression_distillation.csv", FIELDS, named=2)
    for seed in range(arguments.seeds):
        if all(rows.get(seed, way) for way in WAYS):
            continue
        network = problem.network(seed)
        teacher, subject = taught_by(network, problem, seed), problem.subject(network, seed, {}, TARGET)
        pruned = compressed(problem, network, method("magnitude", subject), seed)
        share = round(problem.subject(pruned.network, seed, {}).base["macs"] / subject.base["macs"], 4)
        for way in WAYS:
            if not rows.get(seed, way):
                found = trained(problem, pruned, way, seed, teacher)
                print(rows.write({"seed": seed, "way": way, "macs_share": share, **found}), flush=True)
    summary(rows)


if __name__ == "__main__":
    main()
