"""Known layers in the convolutional hosts on Fashion-MNIST at 16 x 16, and with batches of four images.

    python benchmarks/evonorm_layers.py --data ../shared/data/fashion-mnist [--only layers|small] [--steps 500]

`layers`: every layer of `search_spaces.layers.known` in four hosts, 3 seeds, 500 steps of 64 (4 epochs of 8,000
images), or so many.
`small`: five of them in the ResNet host, 5 seeds, 2,000 steps of 4 (one epoch), at a learning rate smaller by 64 / 4.
Images are padded to 32 x 32 and averaged over 2 x 2. A tenth of 8,889 images is for validation; all 10,000 of the test
part are tested. SGD as in the recipe `quick`, float32, one thread. Every training is a row of the file, in seconds of
the processor; a row that is there is not made again. The last lines are the table: means, and standard errors over
seeds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy
import torch
from rows import Rows

from nas_core.errors import TrialError
from nas_core.seeds import derive
from search_spaces.hosts.network import HostSize, host_network
from search_spaces.layers.known import LAYERS
from training.data.idx import read
from training.data.loading import Loading
from training.data.source import ImageSource, image_source
from training.data.split import Split
from training.fit import fit
from training.recipe import recipe

HERE = Path(__file__).resolve().parent
FIELDS = ("host", "layer", "batch", "steps", "seed", "params", "val_accuracy", "test_accuracy", "seconds")
HOSTS = ("resnet", "mobilenet", "efficientnet", "vgg")
SMALL = ("bn-relu", "gn-relu", "evonorm-b0", "evonorm-s0", "frn")
IMAGES = 8_000
RATE = 0.05  # of batches of 64


def pooled(images: Any, pixels: int = 16) -> Any:
    """`[n, 28, 28]` bytes as `[n, 1, pixels, pixels]`; `pixels` divides 32."""
    padded = numpy.pad(images, ((0, 0), (2, 2), (2, 2)))
    cells = padded.reshape(-1, 1, pixels, 32 // pixels, pixels, 32 // pixels)
    return cells.mean((3, 5)).round().astype(numpy.uint8)


def fashion(folder: Path) -> ImageSource:
    files = {
        kind: [next(folder.glob(f"{part}-{kind}*")) for part in ("train", "t10k")] for kind in ("images", "labels")
    }
    images = numpy.concatenate([pooled(read(path, 3)) for path in files["images"]])
    labels = numpy.concatenate([read(path, 1) for path in files["labels"]])
    split = Split(valid=0.1, limit=round(IMAGES / 0.9))
    return image_source("fashion", images, labels, split, test=numpy.arange(60_000, 70_000), value_range=(0.0, 255.0))


def measured(source: ImageSource, host: str, layer: str, batch: int, steps: int, seed: int) -> dict[str, Any]:
    """What the row of one training says; without accuracies where it has failed."""
    task, known = source.task, LAYERS[layer]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "weights"))
        model = host_network(HostSize(host=host), task, known.made, known.batch)
    epochs = max(1, round(steps * batch / len(source.parts.train)))
    plan = recipe("quick", task, epochs=epochs, batch_size=batch, lr=RATE * batch / 64, precision="float32")
    data = source.bind("cpu", Loading(batch_size=batch, augment=plan.augment, channels_last=True))
    row: dict[str, Any] = {"host": host, "layer": layer, "batch": batch, "steps": steps, "seed": seed}
    row |= {"params": sum(parameter.numel() for parameter in model.parameters())}
    begun = time.process_time()
    try:
        *_, last = fit(model, data, plan, device=torch.device("cpu"), seed=seed, test=True)
        row |= {name: round(last.metrics[name], 4) for name in ("val_accuracy", "test_accuracy")}
    except TrialError as error:
        print(f"{host}, {layer}, seed {seed}: {error}", flush=True)
        row |= {"val_accuracy": None, "test_accuracy": None}
    return {**row, "seconds": round(time.process_time() - begun, 1)}


def table(rows: Rows, batch: int, steps: int, hosts: tuple[str, ...]) -> None:
    """Test accuracy in percent, a line per layer."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        if (int(row["batch"]), int(row["steps"])) == (batch, steps):
            found[row["layer"], row["host"]].append(100 * float(row["test_accuracy"] or "nan"))
    print(f"\n| layer, batches of {batch} | {' | '.join(hosts)} | mean |\n|{'---|' * (len(hosts) + 2)}")
    for layer in LAYERS:
        columns = [found[layer, host] for host in hosts]
        if all(len(column) > 1 for column in columns):
            cells = [f"{statistics.fmean(c):.2f} ± {statistics.stdev(c) / len(c) ** 0.5:.2f}" for c in columns]
            print(f"| {layer} | {' | '.join(cells)} | {statistics.fmean(map(statistics.fmean, columns)):.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the four files of Fashion-MNIST")
    parser.add_argument("--only", choices=("layers", "small"))
    parser.add_argument("--layers", nargs="*", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--hosts", nargs="*", default=list(HOSTS), choices=HOSTS)
    parser.add_argument("--steps", type=int, default=500, help="of 64, 125 to an epoch")
    parser.add_argument("--seeds", type=int, help="default: 3, of small batches 5")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "evonorm_layers.csv")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows, source = Rows(given.out, FIELDS, named=5), fashion(given.data)
    wanted: list[tuple[Any, ...]] = []
    if given.only != "small":
        seeds = range(given.seeds or 3)
        wanted += [
            (host, layer, 64, given.steps, seed) for seed in seeds for host in given.hosts for layer in given.layers
        ]
    if given.only != "layers":
        small = [layer for layer in SMALL if layer in given.layers]
        wanted += [("resnet", layer, 4, 2000, seed) for seed in range(given.seeds or 5) for layer in small]
    for row in wanted:
        if rows.get(*row) is None:
            print(rows.write(measured(source, *row)), flush=True)
    table(rows, 64, given.steps, HOSTS)
    table(rows, 4, 2000, HOSTS[:1])


if __name__ == "__main__":
    main()
