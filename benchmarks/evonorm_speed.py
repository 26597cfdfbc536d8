"""What a layer of `evonorm` costs beside the module that it is named after: training steps and evaluation, in turn.

    python benchmarks/evonorm_speed.py --out evonorm_speed.csv [--pairs 30] [--threads 2] [--compile]

Ratios of times of the same pass, one right after the other, with their median over the pairs. S0 and B0 stand beside
modules written by hand, with the same scale and shift at the end; BN-ReLU and GN-SiLU beside the pairs of torch, which
have none. `--compile` adds what `torch.compile` makes of the layer beside torch's BN-ReLU pair and S0 by hand, which is
not compiled; it needs a C++ compiler.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import torch
from rows import Rows
from torch import Tensor, nn

from search_spaces.evonorm.layer import EvoNormLayer
from search_spaces.evonorm.space import EvoNorm

WHAT = ("layer", "pass", "layout", "compiled", "shape", "threads", "clock", "pairs")
FIELDS = (*WHAT, "lower_quartile", "median", "upper_quartile")
SHAPES = ((64, 32, 16, 16), (64, 64, 8, 8))
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
LAYOUTS = {torch.contiguous_format: "contiguous", torch.channels_last: "channels_last"}
EPS = 1e-5
SECONDS = 0.02  # that the passes of one measurement take, about


class S0(nn.Module):
    """`x * sigmoid(v x) / std_group(x)`, by hand."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.v, self.weight = (nn.Parameter(torch.ones(1, channels, 1, 1)) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        parts = x.reshape(n, 32, channels // 32, height, width)
        deviation = (parts.var((2, 3, 4), correction=0, keepdim=True) + EPS).sqrt().expand_as(parts).reshape(x.shape)
        return x * torch.sigmoid(self.v * x) / deviation * self.weight + self.bias


class B0(nn.Module):
    """`x / max(std_bhw(x), v x + std_hw(x))`, by hand."""

    variance: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.v, self.weight = (nn.Parameter(torch.ones(1, channels, 1, 1)) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.register_buffer("variance", torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            variance = x.var((0, 2, 3), correction=0, keepdim=True)
            count = x.numel() / x.shape[1]
            with torch.no_grad():
                self.variance.lerp_(variance * (count / (count - 1)), 0.1)
        else:
            variance = self.variance
        instance = (x.var((2, 3), correction=0, keepdim=True) + EPS).sqrt()
        return x / torch.maximum((variance + EPS).sqrt(), self.v * x + instance) * self.weight + self.bias


BESIDE: dict[str, Callable[[int], nn.Module]] = {
    "evonorm-s0": S0,
    "evonorm-b0": B0,
    "bn-relu": lambda channels: nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU()),
    "gn-silu": lambda channels: nn.Sequential(nn.GroupNorm(32, channels), nn.SiLU()),
}
COMPILED = ("bn-relu", "evonorm-s0")


def a_pass(module: nn.Module, x: Tensor, training: bool) -> Callable[[], None]:
    """A pass forward, and in training one back."""
    module.train(training)
    weight = torch.randn_like(x)

    def step() -> None:
        x.grad = None
        (module(x) * weight).sum().backward()

    def evaluation() -> None:
        with torch.no_grad():
            module(x)

    return step if training else evaluation


def ratios(
    one: Callable[[], None], other: Callable[[], None], pairs: int, clock: Callable[[], float]
) -> Iterator[float]:
    """Of `one` over `other`, which take turns in being first."""

    def seconds(step: Callable[[], None], repeats: int) -> float:
        start = clock()
        for _ in range(repeats):
            step()
        return (clock() - start) / repeats

    for step in (one, other):
        seconds(step, 3)
    repeats = max(1, round(SECONDS / seconds(other, 3)))
    for number in range(pairs):
        first, second = (one, other) if number % 2 else (other, one)
        times = {first: seconds(first, repeats), second: seconds(second, repeats)}
        yield times[one] / times[other]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: where others use the machine, 1 thread")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = Rows(arguments.out, FIELDS, len(WHAT))
    cases = [(name, False) for name in BESIDE] + [(name, True) for name in COMPILED if arguments.compile]
    for shape, layout, (name, compiled), training in product(SHAPES, LAYOUTS, cases, (True, False)):
        kind, size = "training" if training else "evaluation", "x".join(map(str, shape))
        what = (name, kind, LAYOUTS[layout], compiled, size, arguments.threads, arguments.clock, arguments.pairs)
        row = rows.get(*what)
        if row is None:
            steps = passes(name, compiled, shape, layout, training)
            found = statistics.quantiles(ratios(*steps, arguments.pairs, CLOCKS[arguments.clock]), n=4)
            row = rows.write(dict(zip(FIELDS, (*what, *(f"{each:.3f}" for each in found)), strict=True)))
        print(*row.values(), sep="  ", flush=True)


def passes(
    name: str, compiled: bool, shape: tuple[int, ...], layout: torch.memory_format, training: bool
) -> tuple[Callable[[], None], Callable[[], None]]:
    """That of the layer, and that of what it stands beside."""
    torch.manual_seed(0)
    space = EvoNorm()
    x = torch.randn(shape).contiguous(memory_format=layout).requires_grad_()
    ours = EvoNormLayer(space.layer(space.named[name]), shape[1])
    if compiled:
        torch.compiler.reset()  # a function that has been compiled for eight cases is not compiled for a ninth
        ours.compile(dynamic=False)
    return a_pass(ours, x, training), a_pass(BESIDE[name](shape[1]), x, training)


if __name__ == "__main__":
    main()
