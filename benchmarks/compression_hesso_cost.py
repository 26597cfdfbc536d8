"""What an epoch costs in which units shrink (`hesso`, `hesso-cric`, `polarization`), beside an epoch of plain training.

    python benchmarks/compression_hesso_cost.py --data ../shared/data/fashion-mnist --out compression_hesso_cost.csv

A network of `nasbench201` (16 channels, one cell per stage) is trained for `--epochs` by each method and by none, the
same epoch of both one after the other; what is compared is the processor time of all epochs together, validation left
out. With these few epochs every phase of a method is in it. Every pair of trainings is a row; one that is there is not
made again.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from rows import Rows

from compressors.compressor import Subject
from compressors.hesso import Hesso
from compressors.hesso_cric import HessoCric
from compressors.polarization import Polarization
from compressors.target import parse_targets
from compressors.zeroing import Zeroing
from search_spaces.nasbench201 import NasBench201
from training.cost import macs, params
from training.data import load
from training.data.loading import Loading
from training.data.protocol import Source
from training.data.split import Split
from training.fit import Training
from training.networks import build
from training.recipe import Recipe, learning_rate, recipe
from training.regimes.regime import Regime
from training.tasks import sample_inputs

FIELDS = ("method", "repeat", "params", "epochs", "plain_seconds", "seconds", "ratio")
CELL = "|nor_conv_3x3~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
METHODS: dict[str, type[Zeroing]] = {"hesso": Hesso, "hesso-cric": HessoCric, "polarization": Polarization}
CPU = torch.device("cpu")


def pair(source: Source, plan: Recipe, method: type[Zeroing], size: Any, repeat: int) -> dict[str, Any]:
    """Two trainings at once; what their rows say."""
    space, data = NasBench201(), source.bind("cpu", Loading(batch_size=plan.batch_size, channels_last=True))
    network = build(space, space.from_text(CELL), source.task, size, repeat)
    inputs = sample_inputs(source.task)
    base = {"params": float(params(network)), "macs": float(macs(network, inputs))}
    targets = parse_targets(("macs<=0.5x",))
    subject = Subject(source.task, data, CPU, repeat, inputs, plan, plan.epochs, targets, base)
    regime = method(subject, method.Config()).regime(network, 0)
    assert regime is not None
    spent = [0.0, 0.0]
    trainings = [training(data, plan, space, source, size, repeat, regimes) for regimes in ((), (regime,))]
    for epoch in range(plan.epochs):
        for place in (0, 1) if epoch % 2 == 0 else (1, 0):
            one = trainings[place]
            one.set_rate(learning_rate(plan, epoch))
            begun = time.process_time()
            one.train(epoch)
            spent[place] += time.process_time() - begun
    plain, acting = spent
    times = {"plain_seconds": round(plain, 2), "seconds": round(acting, 2), "ratio": round(acting / plain, 4)}
    return {"repeat": repeat, "params": int(base["params"]), "epochs": plan.epochs, **times}


def training(
    data: Any, plan: Recipe, space: NasBench201, source: Source, size: Any, seed: int, regimes: tuple[Regime, ...]
) -> Training:
    network = build(space, space.from_text(CELL), source.task, size, seed)
    return Training(network, data, plan, CPU, seed, None, regimes=regimes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the four files of Fashion-MNIST")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--limit", type=int, default=12_000)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("compression_hesso_cost.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = load(f"idx:{arguments.data}", Split(limit=arguments.limit))
    plan = recipe("quick", source.task, epochs=arguments.epochs)
    size = NasBench201().Size(channels=arguments.channels, cells=1)
    rows = Rows(arguments.out, FIELDS, named=2)
    for repeat in range(arguments.repeats):
        for name, method in METHODS.items():
            if not rows.get(name, repeat):
                print(rows.write({"method": name, **pair(source, plan, method, size, repeat)}), flush=True)
    for name in METHODS:
        ratios = [float(row["ratio"]) for row in rows if row["method"] == name]
        print(f"{name}: {statistics.median(ratios):.3f} of a plain epoch ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
