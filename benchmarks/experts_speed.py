"""A layer of experts beside the dense block of equal active parameters, and its ways of computing beside each other.

    python benchmarks/experts_speed.py [--rounds 15] [--threads 1] [--out experts_speed.csv]

Forward and backward, router included: `noisy-top-k`, top 2 of 8 experts of half the dense block's hidden units each,
GELU, float32, gradients of all weights and of the input, which no pass adds to those of another one. `with losses`:
the router's balance losses are a part of what is minimised, and the statistics are asked for. What is compared takes
turns; a ratio is the median over the rounds of the quotient of CPU times, with its quartiles. `loop` computes every
expert's tokens by a mask, one after another, as single files do. `split` and `grouped` are the experts alone, on the
same rows. A row that is in the file is not made again.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from rows import Rows
from torch import Tensor, nn
from torch.nn import functional

from search_spaces.layers.assigned import Grouped, Split
from search_spaces.layers.moe import MixtureOfExperts
from search_spaces.operators.experts.gelu import Gelu
from search_spaces.operators.routers.noisy_top_k import NoisyTopK

FIELDS = ("what", "beside", "width", "tokens", "threads", "ratio", "low", "high", "ms", "ms_beside", "rounds")
EXPERTS, ACTIVE = 8, 2
REPEATS = 8  # passes of one measurement


class Loop(nn.Module):
    """The same layer, expert after expert."""

    def __init__(self, layer: MixtureOfExperts) -> None:
        super().__init__()
        self.router, self.experts = layer.router, layer.experts

    def forward(self, x: Tensor) -> Tensor:
        routing = self.router(x, None)
        tokens, answer = x.flatten(0, 1), torch.zeros_like(x).flatten(0, 1)
        chosen, weights = routing.chosen.flatten(0, 1), routing.weights.flatten(0, 1)
        up, down = self.experts.up, self.experts.down
        for expert in range(EXPERTS):
            rows, places = torch.where(chosen == expert)
            hidden = functional.gelu(functional.linear(tokens[rows], up.weight[expert], up.bias[expert]))
            mapped = functional.linear(hidden, down.weight[expert], down.bias[expert])
            answer = answer.index_add(0, rows, mapped * weights[rows, places].unsqueeze(1))
        return answer.view_as(x)


def compared(width: int, tokens: int) -> Iterator[tuple[str, str, Callable[[], None], Callable[[], None]]]:
    """Pairs to measure: what, beside what."""
    torch.manual_seed(0)
    hidden = 4 * width
    dense = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
    experts = Gelu(EXPERTS, width, hidden // ACTIVE, width)
    layer = MixtureOfExperts(NoisyTopK(width, EXPERTS, ACTIVE), experts)
    loop = Loop(layer)
    x = torch.randn(1, tokens, width, requires_grad=True)
    rows = torch.randn(tokens * ACTIVE, width, requires_grad=True)
    counts = [tokens * ACTIVE // EXPERTS] * EXPERTS
    leaves = [x, rows, *dense.parameters(), *layer.parameters()]

    def passed(run: Callable[[], Tensor]) -> Callable[[], None]:
        def once() -> None:
            for leaf in leaves:
                leaf.grad = None
            run().backward()

        return once

    def minimised() -> Tensor:
        error = layer(x).square().mean()
        terms, _ = layer.take()
        return sum(terms.values(), error)

    one, other = passed(lambda: layer(x).square().mean()), passed(lambda: dense(x).square().mean())
    yield "experts", "dense", one, other
    yield "experts with losses", "dense", passed(minimised), other
    yield "experts", "loop", one, passed(lambda: loop(x).square().mean())
    yield (
        "split",
        "grouped",
        passed(lambda: experts(rows, Split(counts)).square().mean()),
        passed(lambda: experts(rows, Grouped(counts, rows.device)).square().mean()),
    )


def milliseconds(run: Callable[[], None]) -> float:
    """Of one pass, forward and backward."""
    begun = time.process_time()
    for _ in range(REPEATS):
        run()
    return 1000 * (time.process_time() - begun) / REPEATS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--tokens", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "experts_speed.csv")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    table = Rows(arguments.out, FIELDS, named=5)
    for width in arguments.widths:
        for tokens in arguments.tokens:
            for what, beside, one, other in compared(width, tokens):
                if table.get(what, beside, width, tokens, arguments.threads):
                    continue
                milliseconds(one), milliseconds(other)  # the first passes cost more
                pairs = [(milliseconds(one), milliseconds(other)) for _ in range(arguments.rounds)]
                low, ratio, high = statistics.quantiles([a / b for a, b in pairs], n=4)
                times = [round(statistics.median(times), 3) for times in zip(*pairs, strict=True)]
                found = (what, beside, width, tokens, arguments.threads, *(round(q, 3) for q in (ratio, low, high)))
                print(dict(table.write(dict(zip(FIELDS, (*found, *times, arguments.rounds), strict=True)))), flush=True)


if __name__ == "__main__":
    main()
