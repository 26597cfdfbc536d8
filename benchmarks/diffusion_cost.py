"""What `diffusion` costs: its one-off training on a space, a pool, an ask and a tell, and its memory.

    python benchmarks/diffusion_cost.py [--told 100] [--asks 20] [--modes guided,cfg,refit] [--threads 1]

Spaces: NAS-Bench-201 (6 slots, every combination is an architecture), 60 choices of 5 options of which the second half
depends on the first, so that the generator has to learn it, and AE-CNN (97 slots). Outcomes are made up, as in
`ask_cost.py`. The mean of an ask is over whole pools, so that the generation of each counts; the memory is by how much
the process has grown at most. Each row has a process of its own; what is trained once is kept for the rows that follow.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Mapping
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import search_spaces
from nas_core import refs
from nas_core.choice import Choice, Value
from nas_core.evaluation import Objective
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from nas_core.strategy import Outcome, Setting, State
from strategies.diffusion.masked import Diffusion
from studies.store.file_cache import FileCache


class Pairs(SearchSpace):
    """30 choices, and 30 that take no option later than that of their partner."""

    name = "pairs"
    tasks = frozenset({"image-classification"})
    choices = tuple(Choice(f"choice{n}", (0, 1, 2, 3, 4), kind="first" if n < 30 else "second") for n in range(60))

    def allowed(self, choice: Choice, prefix: Mapping[str, Value]) -> tuple[Value, ...]:
        number = int(choice.name.removeprefix("choice"))
        return choice.options if number < 30 else choice.options[: 1 + int(prefix[f"choice{number - 30}"])]


def space_of(name: str) -> SearchSpace:
    if name == "pairs":
        return Pairs()
    found: SearchSpace = refs.load(name, search_spaces.BUILTIN, search_spaces.GROUP, "space").object
    return found


def measure(name: str, mode: str, told: int, asks: int, threads: int, kept: Path) -> str:
    """A row of the table."""
    torch.set_num_threads(threads)
    space = space_of(name)
    setting = Setting(space, 0, (Objective("quality", "max"),), cache=FileCache(kept))
    strategy = Diffusion(setting, Diffusion.Config(mode=mode))
    before = _memory()
    begun = time.perf_counter()
    _ = strategy.prior
    prepared = time.perf_counter() - begun
    asking = telling = slowest = 0.0
    for number in range(told + asks):
        begun = time.perf_counter()
        proposal = strategy.ask(number, ())
        took = time.perf_counter() - begun
        values = [
            choice.options.index(proposal.arch.values[choice.name]) / len(choice.options)
            for choice in space.choices
            if choice.name in proposal.arch.values
        ]
        quality = sum(values) / len(values) + 0.05 * float(generator(number, "noise").normal())
        begun = time.perf_counter()
        strategy.tell(Outcome(number, proposal, State.COMPLETE, (quality,), (), {"quality": quality}))
        if number >= told:
            asking, slowest = asking + took, max(slowest, took)
            telling += time.perf_counter() - begun
    return (
        f"{name:<12}{len(space.choices):>6}{mode:>8}{prepared:>10.1f}{asking / asks:>10.3f}{slowest:>12.2f}"
        f"{telling / asks:>10.3f}{_memory() - before:>10.0f}"
    )


def _memory() -> float:
    """The most that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--told", type=int, default=100, help="outcomes before the asks that count")
    parser.add_argument("--asks", type=int, default=20, help="a multiple of the outcomes between two pools")
    parser.add_argument("--modes", default="guided,cfg,refit")
    parser.add_argument("--spaces", default="nasbench201,pairs,ae-cnn")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    print(f"{'space':<12}{'slots':>6}{'mode':>8}{'once s':>10}{'ask s':>10}{'slowest s':>12}{'tell s':>10}{'MiB':>10}")
    with TemporaryDirectory() as kept, get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name in arguments.spaces.split(","):
            for mode in arguments.modes.split(","):
                row = (name, mode, arguments.told, arguments.asks, arguments.threads, Path(kept))
                print(pool.apply(measure, row), flush=True)


if __name__ == "__main__":
    main()
