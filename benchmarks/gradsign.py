"""GradSign beside the loop of one backward pass per sample, on a network of NAS-Bench-201 and made-up images.

    OMP_NUM_THREADS=2 python benchmarks/gradsign.py --channels 16 --cells 5 --resolution 32
    OMP_NUM_THREADS=2 python benchmarks/gradsign.py --channels 8 --cells 1 --resolution 16 --rounds 21

The loop is what the paper's Algorithm 1 says: the network in training mode, the loss of one sample at a time, the signs
of its gradients added up by weight. Both score the same network on the same batch and take turns, so that other load
on the machine meets both; the ratio is taken within each round, and the median of the ratios is reported. Memory is
the peak of a process of its own, above what it held before scoring.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from nas_core.batch import Batch
from nas_core.task import IMAGE_CLASSIFICATION, Task
from predictors.forward_pass import ForwardPass, weights
from predictors.zero_cost.gradsign import GradSign
from search_spaces.nasbench201.space import CONV3, NasBench201
from training.data.scored import Scored
from training.tasks.image_classification import KIND

IMAGE_DATA = Scored(KIND.example)
mean_loss = IMAGE_DATA.loss

ALL_3X3 = f"|{CONV3}~0|+|{CONV3}~0|{CONV3}~1|+|{CONV3}~0|{CONV3}~1|{CONV3}~2|"
CHUNKS = (4, 16, 64)


def loop(model: nn.Module, batch: Batch) -> float:
    """The score, sample after sample."""
    found = list(weights(model).values())
    totals = [torch.zeros_like(weight) for weight in found]
    (images,) = batch.inputs
    for sample in range(len(images)):
        one = slice(sample, sample + 1)
        loss = functional.cross_entropy(model(images[one]), batch.target[one])
        for total, gradient in zip(totals, torch.autograd.grad(loss, found, materialize_grads=True), strict=True):
            total += gradient.sign()
    return sum(float(total.abs().sum()) for total in totals)


def make_probe(options: argparse.Namespace) -> ForwardPass:
    space = NasBench201()
    task = Task(kind=IMAGE_CLASSIFICATION, input_shape=(3, options.resolution, options.resolution), outputs=10)
    size = space.Size(channels=options.channels, cells=options.cells)
    arch = space.from_text(options.cell)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(options.batch, *task.input_shape, generator=generator)
    images = 2 * functional.avg_pool2d(noise, 3, 1, 1)  # neighbouring pixels are alike, as in images
    labels = torch.randint(10, (options.batch,), generator=generator)
    device = torch.device(options.device)
    batch = Batch((images.to(device),), labels.to(device))
    return ForwardPass(lambda: space.build(arch, task, size), batch, mean_loss, task)


def ours(forward: ForwardPass, chunk: int) -> float:
    return GradSign(GradSign.Config(chunk=chunk)).score(forward)["gradsign"]


def peak(options: argparse.Namespace, chunk: int | None) -> float:
    """MiB at the peak of scoring in this process, above what it held before; None: the loop."""
    torch.set_num_threads(options.threads)
    small = argparse.Namespace(**{**vars(options), "channels": 1, "cells": 1, "batch": 2})
    loop(make_probe(small).model, make_probe(small).batch)  # what torch loads and keeps at the first pass
    forward = make_probe(options)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if chunk is None:
        loop(forward.model, forward.batch)
    else:
        ours(forward, chunk)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def show_memory(options: argparse.Namespace) -> None:
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for chunk in (None, *CHUNKS):
            name = "loop" if chunk is None else f"gradsign, chunk {chunk}"
            print(f"peak memory of {name}: {pool.apply(peak, (options, chunk)):.0f} MiB", flush=True)
    print()


def timed(function: Callable[..., float], *arguments: Any) -> tuple[float, float]:
    started = time.perf_counter()
    score = function(*arguments)  # a number of Python, so a GPU has finished
    return time.perf_counter() - started, score


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--cells", type=int, default=5, help="per stage")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chunk", type=int, default=GradSign.Config().chunk, help="samples in memory together")
    parser.add_argument("--cell", default=ALL_3X3, help="official string; default: all 3x3")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()

    print(options.cell)
    print(
        f"C={options.channels}, N={options.cells}, {options.resolution}x{options.resolution}, batch {options.batch}, "
        f"chunks of {options.chunk}, {options.threads} threads, torch {torch.__version__}\n"
    )
    if options.device == "cpu":  # first: a process inherits the peak of the one that started it
        show_memory(options)
    torch.set_num_threads(options.threads)
    forward = make_probe(options)
    model = forward.copy()
    rows = []
    for number in range(options.rounds + 1):  # the first warms up
        slow, expected = timed(loop, model, forward.batch)
        fast, score = timed(ours, forward, options.chunk)
        if number:
            rows.append((slow, fast))
            print(f"round {number}: loop {slow:.3f} s, gradsign {fast:.3f} s, {slow / fast:.2f} times", flush=True)
    ratio = statistics.median(slow / fast for slow, fast in rows)
    slow, fast = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"\nmedian: loop {slow:.3f} s, gradsign {fast:.3f} s; median ratio {ratio:.2f}")
    print(f"scores: loop {expected:.0f}, gradsign {score:.0f}, relative difference {abs(score / expected - 1):.1e}")


if __name__ == "__main__":
    main()
