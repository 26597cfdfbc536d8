"""Seconds per epoch of the fit loop beside a plain training loop, on the all-3x3 network of NAS-Bench-201.

    OMP_NUM_THREADS=2 python benchmarks/fit_loop.py --data idx:../shared/data/fashion-mnist --limit 12000
    python benchmarks/fit_loop.py --data npz:cifar10.npz --cells 5 --batch-size 256 --device cuda

The plain loop is what a tutorial writes: a `Dataset` that pads, crops, mirrors and normalises one image at a time, a
`DataLoader`, float32 in the default memory layout, and the loss read back after every step. Both loops train the same
network from the same weights with the same recipe, split and batch size, and validate after every epoch. They take
turns, epoch by epoch, so that other load on the machine meets both; the ratio is taken within each pair of epochs.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from nas_core.evaluation import Report
from search_spaces.nasbench201.space import CONV3, NasBench201
from training.data import load
from training.data.loading import Loading
from training.data.source import ImageSource
from training.data.split import Split
from training.devices import find_device
from training.fit import fit
from training.networks import build
from training.precision import resolve
from training.recipe import Recipe, learning_rate, recipe


class PerSample(Dataset[tuple[Tensor, int]]):
    """One part of a source, transformed image by image."""

    def __init__(self, source: ImageSource, part: str, crop: int, flip: bool) -> None:
        index = dict(source.parts.items())[part]
        self.images = torch.from_numpy(source.images[index])
        self.labels = source.labels[index].tolist()
        self.mean, self.deviation = (torch.tensor(values).view(-1, 1, 1) for values in source.statistics)
        self.crop, self.flip = crop, flip

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        image = self.images[position]
        if self.crop:
            _, height, width = image.shape
            top, left = torch.randint(2 * self.crop + 1, (2,)).tolist()
            padded = functional.pad(image, (self.crop,) * 4)
            image = padded[:, top : top + height, left : left + width]
        if self.flip and torch.rand(()) < 0.5:
            image = image.flip(-1)
        return (image.float() - self.mean) / self.deviation, self.labels[position]


def plain_loop(
    model: nn.Module, source: ImageSource, recipe: Recipe, device: torch.device, workers: int
) -> Iterator[float]:
    """The validation accuracy after each epoch."""
    model = model.to(device)
    augment = recipe.augment
    options: dict[str, Any] = {
        "batch_size": recipe.batch_size,
        "num_workers": workers,
        "pin_memory": device.type == "cuda",
        "persistent_workers": workers > 0,
    }
    train = DataLoader(PerSample(source, "train", augment.crop, augment.flip), shuffle=True, **options)
    valid = DataLoader(PerSample(source, "valid", 0, False), **options)
    optimizer = torch.optim.SGD(
        model.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov
    )
    for epoch in range(recipe.epochs):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, epoch)
        model.train()
        running = 0.0
        for images, labels in train:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            running += loss.item()
        model.eval()
        correct = 0
        with torch.no_grad():
            for images, labels in valid:
                correct += (model(images.to(device)).argmax(1).cpu() == labels).sum().item()
        yield correct / source.sizes["valid"]


def fit_loop(model: nn.Module, source: ImageSource, recipe: Recipe, device: torch.device, seed: int) -> Iterator[float]:
    """The validation accuracy after each epoch."""
    data = source.bind(device, Loading(batch_size=recipe.batch_size, augment=recipe.augment, channels_last=True))
    reports: Iterator[Report] = fit(model, data, recipe, device=device, seed=seed)
    for report in reports:
        yield report.metrics["val_accuracy"]


def timed(loop: Iterator[float], device: torch.device) -> tuple[float, float]:
    """Seconds and accuracy of the loop's next epoch."""
    started = time.perf_counter()
    accuracy = next(loop)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started, accuracy


def spread(values: Sequence[float], digits: int = 2) -> str:
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} (from {low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="an image reference: idx:DIR, npz:FILE, cifar10:DIR, ...")
    parser.add_argument("--limit", type=int, help="use this many training and validation images only")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--cells", type=int, default=1, help="per stage")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--repetitions", type=int, default=3, help="trainings of each loop, with other seeds")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bf16"), help="of the fit loop")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU, for both loops")
    parser.add_argument("--workers", type=int, default=0, help="processes of the plain loop's DataLoader")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    device = find_device(options.device)
    source = load(options.data, Split(limit=options.limit))
    if not isinstance(source, ImageSource):
        raise SystemExit(f"{options.data} holds no images")
    changes = {"epochs": options.epochs, "batch_size": options.batch_size, "lr": options.lr}
    augment = {"flip": True, "crop": max(source.task.input_shape[1] // 8, 1)}
    chosen = recipe("quick", source.task, precision=options.precision, augment=augment, **changes)
    space = NasBench201()
    arch = space.from_text(f"|{CONV3}~0|+|{CONV3}~0|{CONV3}~1|+|{CONV3}~0|{CONV3}~1|{CONV3}~2|")
    size = space.Size(channels=options.channels, cells=options.cells)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{options.threads} CPU threads"
    precision = resolve(options.precision, device, source.task.kind)
    print(f"{options.data}: {source.sizes['train']} training and {source.sizes['valid']} validation images")
    print(f"all-3x3 cells, C={options.channels}, N={options.cells}, batch {options.batch_size}, {augment}; {name}")
    print(f"plain: DataLoader with {options.workers} workers, float32; fit: {precision}\n")

    seconds: dict[str, list[float]] = {"plain": [], "fit": []}
    final: dict[str, list[float]] = {"plain": [], "fit": []}
    for repetition in range(options.repetitions):
        model = build(space, arch, source.task, size, repetition)
        torch.manual_seed(repetition)
        loops = {
            "plain": plain_loop(copy.deepcopy(model), source, chosen, device, options.workers),
            "fit": fit_loop(model, source, chosen, device, repetition),
        }
        for epoch in range(options.epochs):
            row = {}
            for loop, epochs in loops.items():
                took, row[loop] = timed(epochs, device)
                seconds[loop].append(took)
            shown = ", ".join(f"{loop} {seconds[loop][-1]:.2f} s {row[loop]:.4f}" for loop in loops)
            print(f"repetition {repetition + 1}, epoch {epoch + 1}: {shown}", flush=True)
        for loop, accuracy in row.items():
            final[loop].append(accuracy)

    images = source.sizes["train"]
    print()
    for loop, values in seconds.items():
        rate = images / statistics.median(values)
        print(f"{loop:5}  seconds per epoch {spread(values)}, {rate:.0f} training images per second")
    ratios = [plain / ours for plain, ours in zip(seconds["plain"], seconds["fit"], strict=True)]
    print(f"ratio  {spread(ratios)} over {len(ratios)} pairs of epochs")
    for loop, values in final.items():
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        reached = f"{statistics.mean(values):.4f} +- {deviation:.4f}"
        print(f"{loop:5}  validation accuracy after {options.epochs} epochs {reached}")


if __name__ == "__main__":
    main()
