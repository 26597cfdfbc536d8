"""Latency of networks at half of their MACs, by `magnitude`, beside the whole ones: medians of interleaved pairs.

    python benchmarks/compression_latency.py [--pairs 30] [--networks 5] [--share 0.5]

Networks of AE-CNN and NAS-Bench-201 with at least 10 M MACs at 28 x 28, drawn at random and untrained: how long a pass
takes does not depend on what was learned. Batch 32, one thread, evaluation mode, channels_last; who goes first changes
from pair to pair. A row per network: the median of the ratios smaller / whole and its quartiles, less than 1 is faster.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from compressed import CPU, method
from rows import Rows
from torch import Tensor, nn

from compressors.compressor import Subject
from compressors.target import parse_targets
from nas_core import moves
from nas_core.config import SizeConfig
from nas_core.errors import UsageError
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from nas_core.task import IMAGE_CLASSIFICATION, Task
from search_spaces.ae_cnn.space import AeCnn
from search_spaces.counter import macs, params
from search_spaces.nasbench201 import NasBench201
from training.networks import build
from training.tasks import sample_inputs

FIELDS = (
    "space",
    "architecture",
    "macs_share",
    "macs",
    "params",
    "kept_macs",
    "ratio",
    "low",
    "high",
    "ms",
    "ms_whole",
)
TASK = Task(kind=IMAGE_CLASSIFICATION, input_shape=(1, 28, 28), outputs=10)
LEAST, MOST = 10e6, 60e6  # MACs
SPACES: tuple[tuple[SearchSpace, dict[str, Any]], ...] = (
    (AeCnn(), {"width_scale": 0.25, "depth_scale": 0.3}),
    (NasBench201(), {"channels": 16, "cells": 1}),
)


def networks(space: SearchSpace, size: SizeConfig, wanted: int) -> Iterator[tuple[str, nn.Module]]:
    """The first so many random ones whose MACs are within the limits."""
    found, number = 0, 0
    while found < wanted:
        arch = moves.sample(space, generator(number, "latency"))
        number += 1
        network = build(space, arch, TASK, size, 0).eval()
        if LEAST <= macs(network, sample_inputs(TASK)) <= MOST:
            found += 1
            yield space.to_text(arch), network  # type: ignore[attr-defined]


def passes(network: nn.Module, x: Tensor) -> float:
    begun = time.perf_counter()
    with torch.inference_mode():
        network(x)
    return 1000 * (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--networks", type=int, default=5, help="of each space")
    parser.add_argument("--share", type=float, default=0.5, help="of the MACs that are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "compression_latency.csv")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows(arguments.out, FIELDS, named=3)
    x = sample_inputs(TASK, 32)[0].contiguous(memory_format=torch.channels_last)
    for space, fields in SPACES:
        size = space.Size(**fields).fitted(TASK)
        for text, network in networks(space, size, arguments.networks):
            if rows.get(space.name, text, arguments.share):
                continue
            one = sample_inputs(TASK)
            base = {"params": float(params(network)), "macs": float(macs(network, one))}
            targets = parse_targets([f"macs<={arguments.share}x"])
            subject = Subject(TASK, None, CPU, 0, inputs=tuple(one), targets=targets, base=base)  # type: ignore[arg-type]
            small = copy.deepcopy(network)
            try:
                method("magnitude", subject).compress(small, 0)
            except UsageError as error:
                print(space.name, text, error, flush=True)
                continue
            pair = [model.to(memory_format=torch.channels_last) for model in (small, network)]
            for model in pair:
                for _ in range(3):
                    passes(model, x)
            taken: list[tuple[float, float]] = []
            for number in range(arguments.pairs):
                if number % 2:
                    ours, theirs = (passes(model, x) for model in pair)
                else:
                    theirs, ours = (passes(model, x) for model in reversed(pair))
                taken.append((ours, theirs))
            low, middle, high = statistics.quantiles([ours / theirs for ours, theirs in taken], n=4)
            row = {
                "space": space.name,
                "architecture": text,
                "macs_share": arguments.share,
                "macs": int(base["macs"]),
                "params": int(base["params"]),
                "kept_macs": macs(small, one),
                "ratio": round(middle, 3),
                "low": round(low, 3),
                "high": round(high, 3),
                "ms": round(statistics.median(ours for ours, _ in taken), 3),
                "ms_whole": round(statistics.median(theirs for _, theirs in taken), 3),
            }
            print(rows.write(row), flush=True)


if __name__ == "__main__":
    main()
