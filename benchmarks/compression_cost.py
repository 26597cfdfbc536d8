"""What scores cost beside training steps on the same batches, and tracing beside `torch.export`.

    python benchmarks/compression_cost.py [--rounds 5] [--batches 20] --data ../shared/data/fashion-mnist

CPU time on one thread, of an untrained network (what it computes is the same). What is compared takes turns within a
round, so that other load on the machine meets both; the ratio is the median over the rounds. `training` is as many
steps of the fit loop as a score has batches, `export` `torch.export` of the same network. What one run leaves to the
garbage collector is collected before the next: every export leaves some, which would be counted for whatever follows.
RegNets have the most units for their nodes.
"""

from __future__ import annotations

import argparse
import copy
import gc
import statistics
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy
import torch
from compressed import ARCH, CPU, SPACE, Problem, method
from rows import Rows
from torch import nn

from compressors.groups.trace import trace
from nas_core.moves import sample
from search_spaces.regnet.space import RegNet
from training.fit import Training
from training.networks import build

FIELDS = ("what", "beside", "ratio", "low", "high", "seconds", "seconds_beside", "rounds")
SCORES = {
    "magnitude": ("magnitude", {}),
    "taylor": ("taylor", {}),
    "obd": ("obd", {}),
    "oba": ("oba", {}),
    "oba series": ("oba", {"hessian": "series"}),
}


REGNETS = 3


def seconds(run: Callable[[], object]) -> float:
    gc.collect()
    begun = time.process_time()
    run()
    return time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the four files of Fashion-MNIST")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "compression_cost.csv")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows(arguments.out, FIELDS, named=2)
    problem = Problem(arguments.data, Path("."), 4_000, 1, 0)
    network = build(SPACE, ARCH, problem.source.task, problem.size, 0).eval()
    subject = problem.subject(network, 0, {}, "macs<=0.5x")
    groups = trace(network, subject.inputs)
    batches = list(islice(problem.data.batches("train", 0, 0), arguments.batches))

    def steps(precision: str) -> Callable[[], object]:
        plan = problem.plan.model_copy(update={"precision": precision})

        def run() -> None:
            training = Training(copy.deepcopy(network), problem.data, plan, CPU, 0, None)
            training.model.train()
            for batch in batches:
                training.update(batch)

        return run

    def scored(name: str) -> Callable[[], object]:
        kind, settings = SCORES[name]
        given = {} if kind == "magnitude" else {"batches": arguments.batches}
        made = method(kind, problem.subject(network, 0, {}), **settings, **given)
        return lambda: made.score(made.config)(network, groups, subject, 0)

    def traced(network: nn.Module) -> Callable[[], object]:
        return lambda: trace(network, subject.inputs)

    def exported(network: nn.Module) -> Callable[[], object]:
        return lambda: torch.export.export(copy.deepcopy(network), subject.inputs)

    def regnet(number: int) -> nn.Module:
        space = RegNet()
        return build(
            space, sample(space, numpy.random.default_rng(number)), problem.source.task, space.Size(), 0
        ).eval()

    networks = {"": network, **{f" regnet {number}": regnet(number) for number in range(REGNETS)}}
    pairs: list[tuple[str, str, Callable[[], Callable[[], object]], Callable[[], object]]] = [
        *((name, "training float32", lambda name=name: scored(name), steps("float32")) for name in SCORES),  # type: ignore[misc]
        *((name, "training auto", lambda name=name: scored(name), steps("auto")) for name in SCORES),  # type: ignore[misc]
        *((f"trace{name}", "export", lambda one=one: traced(one), exported(one)) for name, one in networks.items()),  # type: ignore[misc]
    ]
    for what, beside, make, other in pairs:
        if rows.get(what, beside):
            continue
        run = make()
        other()  # fills what is filled once
        measured = [(seconds(run), seconds(other)) for _ in range(arguments.rounds)]
        ratios = [one / two for one, two in measured]
        ours, theirs = (statistics.median(column) for column in zip(*measured, strict=True))
        row = {
            "what": what,
            "beside": beside,
            "ratio": round(statistics.median(ratios), 3),
            "low": round(min(ratios), 3),
            "high": round(max(ratios), 3),
            "seconds": round(ours, 3),
            "seconds_beside": round(theirs, 3),
            "rounds": arguments.rounds,
        }
        print(rows.write(row), flush=True)


if __name__ == "__main__":
    main()
