"""What an ask costs when a study has many trials: median and 90th percentile, in milliseconds, of every strategy.

    python benchmarks/ask_cost.py [--told 1000] [--asks 30] [--strategies random,tpe]

Two spaces: NAS-Bench-201 (6 choices) and 60 choices of 5 options. The outcomes are made up: a sum over the choices
with noise, so that a strategy has something to learn, and so are scores. Brackets are given a fidelity of 1 to 27
epochs, and what they propose is told at once. A strategy that refuses a space is left out, and says why.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy

import strategies
from nas_core import refs
from nas_core.architecture import Architecture
from nas_core.choice import Choice
from nas_core.errors import UsageError
from nas_core.evaluation import Fidelity, Objective
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from nas_core.strategy import Outcome, Setting, State
from search_spaces.nasbench201.space import NasBench201


class Wide(SearchSpace):
    """60 choices of three kinds."""

    name = "wide"
    tasks = frozenset({"image-classification"})
    choices = tuple(Choice(f"choice{n}", ("a", "b", "c", "d", "e"), kind=f"kind{n % 3}") for n in range(60))


def score(predictor: str, archs: Sequence[Architecture]) -> list[float]:
    """Scores that cost nothing: what asks do with scores is measured here, not the scoring."""
    return [float(int(arch.key, 16) % 10_007) for arch in archs]


def measure(name: str, space: SearchSpace, told: int, asks: int) -> tuple[list[float], float]:
    """Seconds of the last `asks` asks, and of all tells together."""
    kind = refs.find(name, strategies.BUILTIN, strategies.GROUP, "strategy")
    fidelity = Fidelity("epoch", 1, 27, continues=True)
    setting = Setting(space, 0, (Objective("quality", "max"),), (), space.identity, fidelity, score)
    strategy = kind(setting, kind.Config())
    found: list[float] = []
    telling = 0.0
    for number in range(told + asks):
        begun = time.perf_counter()
        proposal = strategy.ask(number, ())
        found.append(time.perf_counter() - begun)
        values = [choice.index(proposal.arch.values[choice.name]) for choice in space.choices]
        quality = sum(values) / (4 * len(values)) + 0.05 * float(generator(number, "noise").normal())
        begun = time.perf_counter()
        strategy.tell(Outcome(number, proposal, State.COMPLETE, (quality,), (), {"quality": quality}))
        telling += time.perf_counter() - begun
    return found[-asks:], telling


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--told", type=int, default=1000, help="trials told before the asks that count")
    parser.add_argument("--asks", type=int, default=30)
    parser.add_argument("--strategies", default=",".join(strategies.BUILTIN))
    arguments = parser.parse_args()
    print(f"{'strategy':<22}{'choices':>8}{'median ms':>11}{'p90 ms':>9}{'tell ms':>9}")
    for name in arguments.strategies.split(","):
        for space in (NasBench201(), Wide()):
            try:
                asks, telling = measure(name, space, arguments.told, arguments.asks)
            except UsageError as error:
                print(f"{name:<22}{len(space.choices):>8}  refuses: {error}")
                continue
            half, most = (1000 * float(value) for value in numpy.quantile(asks, (0.5, 0.9)))
            mean = 1000 * telling / (arguments.told + arguments.asks)
            print(f"{name:<22}{len(space.choices):>8}{half:>11.2f}{most:>9.2f}{mean:>9.2f}", flush=True)


if __name__ == "__main__":
    main()
