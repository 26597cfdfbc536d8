"""What zero-cost proxies cost together beside one after another, on networks of NAS-Bench-201.

    OMP_NUM_THREADS=1 python benchmarks/proxies.py --archs 4
    OMP_NUM_THREADS=2 python benchmarks/proxies.py --data idx:../shared/data/fashion-mnist --channels 16 --threads 2

One after another is a call of `Networks.score` per proxy, each of which builds its network and computes what it needs;
together is one call for all of them, with one network and one labelled pass. In every round a cell is scored in every
way, so that other load on the machine meets all of them. A cell's costs are medians over the rounds; the ratio is taken
within a cell. Elapsed time, and the time of the processor, which other load disturbs less.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import torch

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.seeds import generator
from predictors import PROXIES
from predictors.scoring import Networks
from search_spaces.nasbench201.space import NasBench201
from training.data import load
from training.data.split import Split

LABELLED = ("grad_norm", "snip", "fisher", "grasp", "naswot", "jacob_cov", "l2_norm")
CLOCKS = {"elapsed": time.perf_counter, "processor": time.process_time}
BARS = {"labelled pass": 0.5, "whole list": 0.8}

Costs = dict[str, float]  # by clock


def cost(networks: Networks, arch: Architecture, names: Sequence[str]) -> Costs:
    """Seconds of one call."""
    begun = {clock: read() for clock, read in CLOCKS.items()}
    list(networks.score([arch], names))
    return {clock: read() - begun[clock] for clock, read in CLOCKS.items()}


def measure(networks: Networks, arch: Architecture, ways: Sequence[tuple[str, ...]], rounds: int) -> list[Costs]:
    """The median cost of each way, over rounds in which every way has its turn."""
    found: list[list[Costs]] = [[] for _ in ways]
    for number in range(rounds):
        order = range(len(ways)) if number % 2 == 0 else reversed(range(len(ways)))
        for way in order:
            found[way].append(cost(networks, arch, ways[way]))
    return [{clock: statistics.median(one[clock] for one in costs) for clock in CLOCKS} for costs in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="an image reference: digits, idx:DIR, npz:FILE, ...")
    parser.add_argument("--limit", type=int, default=2000, help="use this many training images only")
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--cells", type=int, default=1, help="per stage")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--archs", type=int, default=4, help="random cells")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--proxies", default=",".join(PROXIES), help="the whole list; by default all there are")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    space = NasBench201()
    size = space.Size(channels=options.channels, cells=options.cells)
    split = Split(limit=None if options.data == "digits" else options.limit)
    networks = Networks(space, size, load(options.data, split), batch=options.batch)
    names = [name for name in options.proxies.split(",") if name]
    groups = {"labelled pass": [name for name in LABELLED if name in names], "whole list": names}
    ways = [*((name,) for name in names), *(tuple(group) for group in groups.values())]
    shape = "x".join(map(str, networks.task.input_shape))
    print(f"{options.data} {shape}, C={options.channels}, N={options.cells}, batch {options.batch}, ", end="")
    print(f"{options.threads} threads, {options.archs} cells, {options.rounds} rounds", flush=True)

    rng = generator(options.seed, "cells")
    archs = [moves.sample(space, rng) for _ in range(options.archs)]
    for way in ways:
        cost(networks, archs[0], way)  # what happens only once
    measured = []
    for arch in archs:
        measured.append(measure(networks, arch, ways, options.rounds))
        print(f"  {space.to_text(arch)}: {1e3 * measured[-1][-1]['elapsed']:.0f} ms together", flush=True)

    print(f"\n{'ms per cell, mean':<24}{'elapsed':>10}{'processor':>12}")
    for position, name in enumerate(names):
        means = [1e3 * statistics.fmean(costs[position][clock] for costs in measured) for clock in CLOCKS]
        print(f"{name:<24}{means[0]:>10.1f}{means[1]:>12.1f}")
    for offset, (title, group) in enumerate(groups.items()):
        print(f"\n{title}, at most {BARS[title]}")
        for clock in CLOCKS:
            alone = [sum(costs[names.index(name)][clock] for name in group) for costs in measured]
            together = [costs[len(names) + offset][clock] for costs in measured]
            ratios = [ours / theirs for ours, theirs in zip(together, alone, strict=True)]
            print(
                f"  {clock:<10} one after another {1e3 * statistics.fmean(alone):8.1f} ms, "
                f"together {1e3 * statistics.fmean(together):8.1f} ms, "
                f"ratio {statistics.median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f})"
            )


if __name__ == "__main__":
    main()
