"""Fashion-MNIST: a trained network as an ONNX program in int8 and fp16, beside the float one (`nas compress
--quantize`).

    python benchmarks/compression_int8.py --data ../shared/data/fashion-mnist --folder int8 --out compression_int8.csv

One cell of `nasbench201` at 4, 8 and 16 channels, trained by the recipe `standard` on 12,000 images, of which every
tenth is for validation, and tested on all 10,000. Ranges are observed on 512 training images. Latency is the median of
200 passes of one image by onnxruntime with one thread, float and quantised in turn. A row that is there is not made
again.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from rows import Rows

from search_spaces.nasbench201 import NasBench201
from training.checkpoint import write_tensors
from training.data import load
from training.data.loading import Loading
from training.data.protocol import Source
from training.data.split import Split
from training.export.compared import quantize
from training.fit import fit
from training.networks import build, load_trained
from training.quantized import FLOAT, FP16, INT8
from training.recipe import recipe

CELL = "|nor_conv_3x3~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
CHANNELS = (16, 8, 4)
FIELDS = (
    *("kind", "channels", "seed", "params", "float_bytes", "bytes", "ratio", "share", "float_test_accuracy"),
    *("test_accuracy", "agreement", "float_latency_ms", "latency_ms"),
)


def trained(source: Source, channels: int, seed: int, epochs: int, weights: Path) -> torch.nn.Module:
    """The network with its weights, which are made where there are none."""
    space = NasBench201()
    size, arch = space.Size(channels=channels, cells=1), space.from_text(CELL)
    if not weights.exists():
        model = build(space, arch, source.task, size, seed)
        plan = recipe("standard", source.task, epochs=epochs)
        data = source.bind("cpu", Loading(batch_size=plan.batch_size, augment=plan.augment, channels_last=True))
        for report in fit(model, data, plan, device=torch.device("cpu"), seed=seed):
            print(f"{channels} channels: {dict(report.metrics)}", flush=True)
        write_tensors(weights, model.state_dict())
    return load_trained(space, arch, source.task, size, weights)


def row(network: torch.nn.Module, source: Source, kind: str) -> dict[str, Any]:
    """What a quantised program of a network came to."""
    with tempfile.TemporaryDirectory() as folder:
        found = dict(quantize(network, source, kind, Path(folder)).metrics)
    names = ("test_accuracy", "latency_ms", "bytes")
    return {
        "params": sum(parameter.numel() for parameter in network.parameters()),
        "ratio": round(found[f"{kind}_bytes"] / found[f"{FLOAT}_bytes"], 4),
        **{f"{FLOAT}_{name}": found[f"{FLOAT}_{name}"] for name in names},
        **{name: found[f"{kind}_{name}"] for name in (*names, "agreement", "share")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the four files of Fashion-MNIST")
    parser.add_argument("--folder", type=Path, default=Path("int8"), help="where the weights are")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--limit", type=int, default=12_000)
    parser.add_argument("--out", type=Path, default=Path("compression_int8.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = load(f"idx:{arguments.data}", Split(limit=arguments.limit))
    rows = Rows(arguments.out, FIELDS, named=3)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for seed in range(arguments.seeds):
        for channels in CHANNELS:
            for kind in (INT8, FP16):
                if rows.get(kind, channels, seed):
                    continue
                weights = arguments.folder / f"{channels}-{seed}.safetensors"
                network = trained(source, channels, seed, arguments.epochs, weights)
                found = {"kind": kind, "channels": channels, "seed": seed, **row(network, source, kind)}
                print(rows.write(found), flush=True)
    for one in rows:
        lost = 100 * (float(one["float_test_accuracy"]) - float(one["test_accuracy"]))
        print(
            f"{one['kind']}, {one['channels']} channels, seed {one['seed']}: {float(one['ratio']):.2f} of the bytes, "
            f"{lost:+.2f} points lost, agreement {float(one['agreement']):.4f}, "
            f"{float(one['float_latency_ms']):.2f} to {float(one['latency_ms']):.2f} ms"
        )


if __name__ == "__main__":
    main()
