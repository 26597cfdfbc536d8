"""What only a device can tell, as one table; meant for one NVIDIA GPU and at most 8 minutes.

    python benchmarks/on_device.py --data ../shared/data [--device cuda]
    python benchmarks/on_device.py --small --device cpu

`--data` is a folder with `cifar10_jpeg_train.npz` and `cifar10_jpeg_test.npz`; without it images are made up. Every
part is one row, or a few; a part that fails is a row too, and the others go on. `--small` shrinks every part such that
a CPU does them all in a minute: then only that they work is of interest. `--only` names the parts that are wanted.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

GREEDY = """
from torch import nn

from nas_core.choice import Choice
from nas_core.space import SearchSpace


class Memory(nn.Module):
    def __init__(self, values):
        super().__init__()
        self.values = values

    def forward(self, x):
        return x + x.new_zeros(self.values).sum()


class Greedy(SearchSpace):
    name = "greedy"
    tasks = ("image-classification",)
    choices = (Choice("values", (8, 16, 10**14)),)

    def build(self, arch, task, size):
        channels, height, width = task.images()
        linear = nn.Linear(channels * height * width, task.outputs)
        return nn.Sequential(nn.Flatten(), linear, Memory(arch.values["values"]))
"""
"""A space of networks that differ in how many numbers a pass keeps; the most fit into no memory."""

Row = tuple[str, str]


@dataclass(frozen=True)
class Setup:
    """Where the parts run, and how large they are."""

    device: str
    small: bool
    folder: Path
    data: str

    def either(self, full: int, small: int) -> int:
        return small if self.small else full

    def nas(self, *words: str) -> Any:
        """The JSON document that a command prints."""
        said = subprocess.run(
            [sys.executable, "-m", "nas_cli", *words, "--json"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(HERE.parent)},
        )
        if said.returncode:
            raise RuntimeError(said.stderr.strip().splitlines()[-1])
        return json.loads(said.stdout)

    def search(self, study: str, *words: str) -> list[dict[str, Any]]:
        """The trials of a search."""
        given = ("--study", study, "--data", self.data, "--device", self.device, *words)
        self.nas("search", *given)
        trials: list[dict[str, Any]] = self.nas("trials", study)
        return trials


def deterministic(setup: Setup) -> Iterator[Row]:
    """The same search twice."""
    size = ("-s", f"size.channels={setup.either(16, 2)}", "-s", "size.cells=1", "--epochs", "1")
    words = ("--space", "nasbench201", "--strategy", "random", "--trials", str(setup.either(6, 2)), *size)
    begun = time.perf_counter()
    first, second = (setup.search(f"same-{turn}", "--deterministic", "--seed", "0", *words) for turn in (1, 2))
    measured = [
        [(one["architecture"], one["metrics"]["val_loss"], one["metrics"]["val_accuracy"]) for one in trials]
        for trials in (first, second)
    ]
    yield f"twice {len(first)} trials, bit for bit", "equal" if measured[0] == measured[1] else "DIFFERENT"
    yield "seconds per search, with its start", f"{(time.perf_counter() - begun) / 2:.1f}"


def out_of_memory(setup: Setup) -> Iterator[Row]:
    """A candidate that no memory can hold, among others."""
    (setup.folder / "greedy.py").write_text(GREEDY)
    trials = setup.search("greedy", "--space", "greedy.py:Greedy", "--trials", "3", "--epochs", "1")
    for one in trials:
        yield f"{one['architecture']['values']:g} values", f"{one['state']} {(one['reason'] or '')[:60]}".strip()


def fit_loop(setup: Setup) -> Iterator[Row]:
    """Training images per second beside a plain loop."""
    from fit_loop import fit_loop as ours
    from fit_loop import plain_loop, timed

    from search_spaces.nasbench201.space import CONV3, NasBench201
    from training.data import load
    from training.data.source import ImageSource
    from training.data.split import Split
    from training.networks import build
    from training.recipe import recipe

    os.chdir(setup.folder)
    source = load(setup.data, Split(limit=setup.either(20_000, 256)))
    assert isinstance(source, ImageSource)
    device, space = torch.device(setup.device), NasBench201()
    chosen = recipe(
        "quick", source.task, epochs=3, batch_size=setup.either(256, 64), lr=0.05, augment={"flip": True, "crop": 4}
    )
    size = space.Size(channels=setup.either(16, 2), cells=setup.either(5, 1))
    arch = space.from_text(f"|{CONV3}~0|+|{CONV3}~0|{CONV3}~1|+|{CONV3}~0|{CONV3}~1|{CONV3}~2|")
    loops = {
        "plain": plain_loop(build(space, arch, source.task, size, 0), source, chosen, device, 0),
        "ours": ours(build(space, arch, source.task, size, 0), source, chosen, device, 0),
    }
    seconds = {name: [timed(loop, device)[0] for _ in range(chosen.epochs)] for name, loop in loops.items()}
    for name, values in seconds.items():
        yield f"{name}, images per second", f"{source.sizes['train'] / min(values):.0f}"
    yield "ratio", f"{min(seconds['plain']) / min(seconds['ours']):.2f}"


def candidates_per_hour(setup: Setup) -> Iterator[Row]:
    """So many candidates at a time on the one device (C=16, N=1, batch 64)."""
    several, count = (1, 2, 4, 8) if not setup.small else (1, 2), setup.either(24, 4)
    found: dict[int, float] = {}
    for each in several:
        words = ("--workers", str(each), *(("--per-gpu", str(each)) if setup.device.startswith("cuda") else ()))
        size = ("-s", f"size.channels={setup.either(16, 2)}", "-s", "size.cells=1", "--epochs", str(setup.either(3, 1)))
        limit = ("-s", f"split.limit={setup.either(4_000, 64)}", "-s", "recipe.batch_size=64")
        trials = setup.search(
            f"per-{each}",
            *("--space", "nasbench201", "--strategy", "random", "--trials", str(count), "--lag", str(each)),
            *(*words, *size, *limit),
        )
        ended = sorted(one["ended"] for one in trials)
        rate = (len(ended) - each) / (ended[-1] - ended[each - 1]) if ended[-1] > ended[each - 1] else float("nan")
        found[each] = 3600 * rate  # after the first ones, which wait for the processes
        yield f"{each} at a time", f"{found[each]:.0f} per hour, {found[each] / found[1]:.2f} times"


def darts_step(setup: Setup) -> Iterator[Row]:
    """A first-order step of the NAS-Bench-201 supernet beside a straightforward one (C=16, N=5, batch 64)."""
    from darts_step import MadeUp, timed_steps

    from nas_core.batch import Batch
    from nas_core.task import IMAGE_CLASSIFICATION, Task
    from search_spaces.nasbench201.space import NasBench201
    from search_spaces.supernet.supernet import Supernet
    from strategies.one_shot.alphas import Alphas, AlphasConfig

    torch.manual_seed(0)
    space, device = NasBench201(), torch.device(setup.device)
    options = argparse.Namespace(
        channels=setup.either(16, 4), cells=setup.either(5, 1), rounds=setup.either(7, 1), batch=setup.either(64, 8)
    )
    task = Task(kind=IMAGE_CLASSIFICATION, input_shape=(3, setup.either(32, 8), setup.either(32, 8)), outputs=10)
    supernet = Supernet(space, task, space.Size(channels=options.channels, cells=options.cells))
    alphas = Alphas(supernet.groups, AlphasConfig(alpha_std=0.5), device)
    images, labels = torch.randn(options.batch, *task.input_shape), torch.randint(10, (options.batch,))
    seconds = timed_steps(supernet, alphas, MadeUp(task), Batch((images.to(device),), labels.to(device)), options)
    for name, values in seconds.items():
        ratios = [plain / ours for plain, ours in zip(seconds["straightforward"], values, strict=True)]
        yield name, f"{1000 * statistics.median(values):.1f} ms, {statistics.median(ratios):.2f} times"


def grouped_experts(setup: Setup) -> Iterator[Row]:
    """One product of all experts, whose rows lie one after the other, beside one product per expert."""
    if not hasattr(torch.nn.functional, "grouped_mm"):
        yield "torch.nn.functional.grouped_mm", f"not in torch {torch.__version__}"
        return
    device, experts = torch.device(setup.device), 16
    rows, width = setup.either(16_384, 256), setup.either(1_024, 32)
    tokens = torch.randn(rows, width, device=device, dtype=torch.bfloat16)
    weights = torch.randn(experts, width, width, device=device, dtype=torch.bfloat16)
    ends = torch.arange(1, experts + 1, device=device, dtype=torch.int32) * (rows // experts)

    def each() -> Tensor:
        parts = tokens.split(rows // experts)
        return torch.cat([part @ weight for part, weight in zip(parts, weights, strict=True)])

    def grouped() -> Tensor:
        return torch.nn.functional.grouped_mm(tokens, weights, offs=ends)

    far = float((each() - grouped()).abs().max() / each().abs().max())
    yield "largest difference, of the largest value", f"{far:.1e}"
    yield from _beside("one by one", each, "grouped", grouped, setup.either(50, 2))


def gradsign(setup: Setup) -> Iterator[Row]:
    """GradSign beside a loop over samples (C=16, N=5, batch 64)."""
    import gradsign as benchmark

    options = argparse.Namespace(
        channels=setup.either(16, 2), cells=setup.either(5, 1), resolution=setup.either(32, 8),
        batch=setup.either(64, 8), cell=benchmark.ALL_3X3, device=setup.device, chunk=setup.either(64, 4),
    )  # fmt: skip
    forward = benchmark.make_probe(options)
    model = forward.copy()
    yield from _beside(
        "loop", lambda: benchmark.loop(model, forward.batch),
        "gradsign", lambda: benchmark.ours(forward, options.chunk),
        setup.either(3, 1),
    )  # fmt: skip


def latency(setup: Setup) -> Iterator[Row]:
    """One image through a network, as it is called, and as a graph of CUDA, which leaves out the calls."""
    from nas_core.task import IMAGE_CLASSIFICATION, Task
    from search_spaces.nasbench201.space import CONV3, NasBench201

    space, device = NasBench201(), torch.device(setup.device)
    task = Task(kind=IMAGE_CLASSIFICATION, input_shape=(3, 32, 32), outputs=10)
    arch = space.from_text(f"|{CONV3}~0|+|{CONV3}~0|{CONV3}~1|+|{CONV3}~0|{CONV3}~1|{CONV3}~2|")
    size = space.Size(channels=setup.either(16, 2), cells=setup.either(5, 1))
    model = space.build(arch, task, size).to(device).eval()
    image = torch.randn(1, *task.input_shape, device=device)

    def called() -> Tensor:
        with torch.inference_mode():
            answer: Tensor = model(image)
        return answer

    if device.type != "cuda":
        yield "called", f"{1000 * _seconds(called, setup.either(50, 3)):.3f} ms; graphs need CUDA"
        return
    yield from _beside("called", called, "as a graph", _captured(model, image), setup.either(200, 3))


def _captured(model: nn.Module, image: Tensor) -> Callable[[], None]:
    """The replay of one pass, after the passes on a stream of their own that capturing asks for."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), torch.no_grad():
        for _ in range(3):
            model(image)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), torch.no_grad():
        model(image)
    return graph.replay


def _beside(
    slow: str, slower: Callable[[], object], fast: str, faster: Callable[[], object], turns: int
) -> Iterator[Row]:
    """Both in turns, and the median ratio of the pairs."""
    slower(), faster()
    pairs = [(_seconds(slower, 1), _seconds(faster, 1)) for _ in range(turns)]
    for name, values in zip((slow, fast), zip(*pairs, strict=True), strict=True):
        yield name, f"{1000 * statistics.median(values):.3f} ms"
    yield "ratio", f"{statistics.median(one / other for one, other in pairs):.2f}"


def _seconds(run: Callable[[], object], turns: int) -> float:
    found = []
    for _ in range(turns):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        begun = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


PARTS: dict[str, Callable[[Setup], Iterator[Row]]] = {
    "deterministic": deterministic,
    "out of memory": out_of_memory,
    "fit loop": fit_loop,
    "candidates per hour": candidates_per_hour,
    "DARTS step": darts_step,
    "grouped experts": grouped_experts,
    "GradSign": gradsign,
    "latency": latency,
}


def images(data: Path | None, folder: Path, count: int) -> str:
    """The reference of the images of CIFAR-10, decoded, or of made-up ones."""
    arrays = {}
    for part, prefix in (("train", ""), ("test", "test_")):
        if data is None:
            rng = numpy.random.default_rng(len(part))
            arrays[f"{prefix}images"] = rng.integers(0, 256, (count, 32, 32, 3), dtype=numpy.uint8)
            arrays[f"{prefix}labels"] = numpy.arange(count) % 10
            continue
        from PIL import Image

        stored = numpy.load(data / f"cifar10_jpeg_{part}.npz", allow_pickle=False)
        header, body, ends = stored["header"].tobytes(), stored["data"], stored["offsets"]
        files = (header + body[start:end].tobytes() for start, end in pairwise(ends))
        arrays[f"{prefix}images"] = numpy.stack([numpy.asarray(Image.open(io.BytesIO(file))) for file in files])
        arrays[f"{prefix}labels"] = stored["labels"].astype(numpy.int64)
    numpy.savez(folder / "images.npz", **arrays)
    return "npz:images.npz"


def rows(setup: Setup, names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Part, what was measured, and what came out; the error of a part that fails."""
    for name in names:
        begun = time.perf_counter()
        try:
            for what, found in PARTS[name](setup):
                yield name, what, found
        except Exception as error:
            yield name, "FAILED", f"{type(error).__name__}: {error}".splitlines()[0]
        yield name, "seconds in all", f"{time.perf_counter() - begun:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="as small as a CPU can do them all in a minute")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART")
    given = parser.parse_args()
    name = torch.cuda.get_device_name() if given.device.startswith("cuda") else "the CPU, small"
    print(f"{name}, torch {torch.__version__}\n\n| part | what | found |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        data = images(
            None if given.data is None else given.data.resolve(), Path(folder), 512 if given.small else 20_000
        )
        for part, what, found in rows(Setup(given.device, given.small, Path(folder), data), given.only):
            print(f"| {part} | {what} | {found} |", flush=True)


if __name__ == "__main__":
    main()
