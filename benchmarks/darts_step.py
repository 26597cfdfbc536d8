"""A first-order DARTS step on the NAS-Bench-201 supernet beside a straightforward loop, and a one-hot forward pass of
the supernet beside the network of the architecture.

    OMP_NUM_THREADS=2 python benchmarks/darts_step.py
    OMP_NUM_THREADS=1 python benchmarks/darts_step.py --cells 1 --rounds 3

A step is one of the architecture on one batch (Adam on the alphas), then one of the weights on another (SGD with
momentum, clipped). The straightforward loop is what the papers' figures draw: plain layers, each candidate of each edge
run by itself with its own ReLU, maps multiplied by their mixing weights, `none` as zeros, float32, the default layout,
gradients of everything in both halves. Ours is the supernet as the strategies train it, once in float32 and once with
bf16 autocast. All start from the same weights; gradients are compared before anything is timed. Those who are compared
take turns, so that other load on the machine meets all of them; ratios are taken within each round, and the medians
are reported.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.batch import Batch
from nas_core.one_shot import Compute
from nas_core.relax import Mix
from nas_core.task import IMAGE_CLASSIFICATION, Task
from search_spaces.nasbench201.network import CellNetwork
from search_spaces.nasbench201.space import EDGES, NasBench201
from search_spaces.supernet.supernet import Supernet
from strategies.one_shot.alphas import Alphas, AlphasConfig
from strategies.one_shot.weights import SharedWeights, WeightsConfig
from training.data.scored import Scored
from training.tasks.image_classification import KIND

IMAGE_DATA = Scored(KIND.example)
mean_loss = IMAGE_DATA.loss
metric_sums = IMAGE_DATA.metrics

ARCHITECTURES = {
    "all 3x3": "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|",
    "all 1x1": "|nor_conv_1x1~0|+|nor_conv_1x1~0|nor_conv_1x1~1|+|nor_conv_1x1~0|nor_conv_1x1~1|nor_conv_1x1~2|",
    "the best": "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|",
    "mixed": "|nor_conv_1x1~0|+|avg_pool_3x3~0|none~1|+|nor_conv_3x3~0|skip_connect~1|nor_conv_1x1~2|",
    "all skip": "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|",
}

Gradients = Mapping[str, Sequence[Tensor | None]]


class Zeros(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def candidates(channels: int) -> nn.ModuleList:
    """The operations of an edge, each by itself, in the order of the space."""

    def convolution(kernel: int) -> nn.Module:
        layer = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)
        return nn.Sequential(nn.ReLU(), layer, nn.BatchNorm2d(channels, affine=False))

    pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    return nn.ModuleList([Zeros(), nn.Identity(), convolution(1), convolution(3), pool])


class PlainCell(nn.Module):
    def __init__(self, weights: Mapping[str, Tensor], channels: int) -> None:
        super().__init__()
        self.weights = weights
        self.edges = nn.ModuleList(candidates(channels) for _ in EDGES)

    def forward(self, x: Tensor) -> Tensor:
        nodes = [x]
        for target in (1, 2, 3):
            value: Tensor | int = 0
            for (name, edge), operations in zip(EDGES.items(), self.edges, strict=True):
                if edge[1] == target:
                    node = nodes[edge[0]]
                    weights = self.weights[name]
                    value = value + sum(w * operation(node) for w, operation in zip(weights, operations, strict=True))
            assert isinstance(value, Tensor)
            nodes.append(value)
        return nodes[3]


class Straightforward:
    """The loop as the figures draw it: a network of plain layers, SGD, Adam."""

    def __init__(self, supernet: Supernet, alphas: Alphas, options: argparse.Namespace) -> None:
        self.alphas = copy.deepcopy(alphas)
        self.weights: dict[str, Tensor] = {}
        width, cells = options.channels, options.cells
        self.network = CellNetwork(lambda channels: PlainCell(self.weights, channels), 3, 10, width, cells)
        theirs, ours = supernet.network.state_dict().values(), self.network.state_dict().values()
        for source, target in zip(theirs, ours, strict=True):
            target.copy_(source)
        self.network.to(next(iter(self.alphas)).device)
        config = WeightsConfig()
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), config.lr, config.momentum, weight_decay=config.weight_decay
        )

    def backward(self, batch: Batch) -> None:
        """Gradients of everything."""
        self.alphas.zero_grad()
        self.optimizer.zero_grad()
        self.weights.update(self.alphas.softmax())
        mean_loss(self.network(batch.inputs[0]), batch).backward()

    def step(self, searched: Batch, trained: Batch) -> None:
        self.backward(searched)
        self.alphas.step()
        self.backward(trained)
        nn.utils.clip_grad_norm_(self.network.parameters(), WeightsConfig().grad_clip)
        self.optimizer.step()


class MadeUp:
    """Noise for images; only what `SharedWeights` asks of data."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        return iter(())

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return mean_loss(output, batch)

    def metrics(self, output: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return metric_sums(output, batch)


class Ours:
    """The supernet as the strategies train it."""

    def __init__(self, supernet: Supernet, alphas: Alphas, data: MadeUp, compute: Compute) -> None:
        self.alphas = copy.deepcopy(alphas)
        self.shared = SharedWeights(copy.deepcopy(supernet), data, WeightsConfig(), compute)

    def mix(self) -> Mix:
        return self.shared.supernet.mix(self.alphas.softmax())

    def search(self, batch: Batch) -> None:
        """Gradients of the alphas."""
        self.alphas.zero_grad()
        with self.shared.frozen():
            self.shared.loss(batch, self.mix()).backward()

    def step(self, searched: Batch, trained: Batch) -> None:
        self.search(searched)
        self.alphas.step()
        with torch.no_grad():
            mix = self.mix()
        self.shared.step(trained, mix)


def distance(ours: Sequence[Tensor | None], theirs: Sequence[Tensor | None]) -> float:
    """The largest difference of two lists of gradients, relative to the largest gradient."""
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    if len(pairs) < len(ours):
        raise SystemExit("a gradient is missing")
    return max(float((a - b).abs().max()) for a, b in pairs) / max(float(b.abs().max()) for _, b in pairs)


def compare(supernet: Supernet, alphas: Alphas, data: MadeUp, batch: Batch, options: argparse.Namespace) -> None:
    """Gradients of the alphas with frozen weights, of the alphas, and of the weights, against the straightforward ones.

    One ReLU whose input is within rounding of zero changes gradients by a thousandth, in either loop. So the loops are
    compared where rounding cannot tell them apart (float64), and in float32 with a smooth activation; with ReLU in
    float32 the straightforward loop's own distance from float64 is shown beside ours.
    """
    few = Batch((batch.inputs[0][:16],), batch.target[:16])
    exact = _straightforward(supernet, alphas, few, torch.float64, options)
    _check("float64", _ours(supernet, alphas, data, few, torch.float64), exact, 1e-9)
    with mock.patch.object(functional, "relu", lambda x, inplace=False: functional.softplus(x)):
        smooth = _straightforward(supernet, alphas, batch, torch.float32, options)
        _check("float32, softplus for ReLU", _ours(supernet, alphas, data, batch, torch.float32), smooth, 1e-4)
    _check("float32, from float64", _ours(supernet, alphas, data, few, torch.float32), exact)
    rounded = _straightforward(supernet, alphas, few, torch.float32, options)
    _check("float32, from float64, straightforward", rounded, exact)


def _straightforward(
    supernet: Supernet, alphas: Alphas, batch: Batch, dtype: torch.dtype, options: argparse.Namespace
) -> Gradients:
    plain = Straightforward(supernet, alphas, options)
    _cast(plain.network, plain.alphas, dtype)
    plain.backward(Batch((batch.inputs[0].to(dtype),), batch.target))
    vectors = [vector.grad for vector in plain.alphas]
    weights = [weight.grad for weight in plain.network.parameters()]
    return {"alphas, frozen weights": vectors, "alphas": vectors, "weights": weights}


def _ours(supernet: Supernet, alphas: Alphas, data: MadeUp, batch: Batch, dtype: torch.dtype) -> Gradients:
    ours = Ours(supernet, alphas, data, Compute())
    _cast(ours.shared.supernet, ours.alphas, dtype)
    given = Batch((batch.inputs[0].to(dtype),), batch.target)
    ours.search(given)
    frozen = [vector.grad for vector in ours.alphas]
    ours.alphas.zero_grad()
    ours.shared.loss(given, ours.mix()).backward()
    vectors = [vector.grad for vector in ours.alphas]
    weights = [weight.grad for weight in ours.shared.supernet.parameters()]
    return {"alphas, frozen weights": frozen, "alphas": vectors, "weights": weights}


def _cast(network: nn.Module, alphas: Alphas, dtype: torch.dtype) -> None:
    network.to(dtype)
    for vector in alphas:
        vector.data = vector.data.to(dtype)


def _check(label: str, ours: Gradients, theirs: Gradients, most: float | None = None) -> None:
    distances = {part: distance(ours[part], theirs[part]) for part in ours}
    allowed = "" if most is None else f" (at most {most:.0e})"
    print(f"gradients, {label}: {', '.join(f'{part} {value:.1e}' for part, value in distances.items())}{allowed}")
    if most is not None and max(distances.values()) > most:
        raise SystemExit("the gradients are not equal")


def race(runners: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each runner, turn by turn, after one turn that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for number in range(rounds + 1):
        for name, run in runners.items():
            begun = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def ratio(over: Sequence[float], under: Sequence[float]) -> str:
    """Median of the ratios of each round, with their range."""
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


def timed_steps(
    supernet: Supernet, alphas: Alphas, data: MadeUp, batch: Batch, options: argparse.Namespace
) -> dict[str, list[float]]:
    """Seconds of each step of each loop, on the device of the alphas and of the batch."""
    device = str(batch.target.device)
    runners = {
        "straightforward": Straightforward(supernet, alphas, options),
        "float32": Ours(supernet, alphas, data, Compute(device)),
        "bf16": Ours(supernet, alphas, data, Compute(device, "bf16")),
    }
    other = Batch((batch.inputs[0].flip(0),), batch.target.flip(0))
    return race({name: partial(runner.step, batch, other) for name, runner in runners.items()}, options.rounds)


def steps(supernet: Supernet, alphas: Alphas, data: MadeUp, batch: Batch, options: argparse.Namespace) -> None:
    seconds = timed_steps(supernet, alphas, data, batch, options)
    for name, values in seconds.items():
        print(
            f"step, {name}: {statistics.median(values):.3f} s; straightforward / this: "
            f"{ratio(seconds['straightforward'], values)}"
        )


def paths(supernet: Supernet, batch: Batch, options: argparse.Namespace) -> None:
    """One path of the supernet beside the built network of the architecture."""
    space = supernet.space
    assert isinstance(space, NasBench201)
    shared = copy.deepcopy(supernet).to(memory_format=torch.channels_last)
    inputs = [batch.inputs[0].contiguous(memory_format=torch.channels_last)]
    for label, text in ARCHITECTURES.items():
        arch = space.from_text(text)
        built = space.build(arch, supernet.task, supernet.size).to(memory_format=torch.channels_last)
        one_hot = partial(shared, inputs, shared.mix_of(arch))
        found = []
        for mode in ("eval", "train", "backward"):
            shared.train(mode != "eval")
            built.train(mode != "eval")
            runners = {
                "one-hot": partial(one_pass, shared, one_hot, batch, mode == "backward"),
                "built": partial(one_pass, built, partial(built, *inputs), batch, mode == "backward"),
            }
            seconds = race(runners, options.path_rounds)
            found.append(f"{mode} {ratio(seconds['one-hot'], seconds['built'])}")
        print(f"one-hot / built, {label}: {', '.join(found)}", flush=True)


def one_pass(model: nn.Module, run: Callable[[], Tensor], batch: Batch, backward: bool) -> None:
    with torch.set_grad_enabled(backward):
        output = run()
    if backward:
        model.zero_grad(set_to_none=True)
        functional.cross_entropy(output, batch.target).backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--cells", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7, help="steps of each loop")
    parser.add_argument("--path-rounds", type=int, default=15, help="passes of each network")
    parser.add_argument("--only", choices=("gradients", "steps", "paths"))
    options = parser.parse_args()

    torch.manual_seed(0)
    space = NasBench201()
    task = Task(kind=IMAGE_CLASSIFICATION, input_shape=(3, options.resolution, options.resolution), outputs=10)
    supernet = Supernet(space, task, space.Size(channels=options.channels, cells=options.cells))
    alphas = Alphas(supernet.groups, AlphasConfig(alpha_std=0.5), torch.device("cpu"))
    batch = Batch((torch.randn(options.batch, *task.input_shape),), torch.randint(10, (options.batch,)))
    data = MadeUp(task)
    shape = f"C={options.channels}, N={options.cells}, batch {options.batch}, {options.resolution}x{options.resolution}"
    print(f"NAS-Bench-201 supernet, {shape}, {torch.get_num_threads()} threads")
    if options.only in (None, "gradients"):
        compare(supernet, alphas, data, batch, options)
    if options.only in (None, "steps"):
        steps(supernet, alphas, data, batch, options)
    if options.only in (None, "paths"):
        paths(supernet, batch, options)


if __name__ == "__main__":
    main()
