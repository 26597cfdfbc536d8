"""What a run says of its quantised program: metrics `int8_val_accuracy` beside `float_val_accuracy`, and so on."""

from __future__ import annotations

from collections.abc import Mapping

KINDS = INT8, FP16 = "int8", "fp16"
"""How programs are quantised; what stands before the suffix of their files: `digits.int8.onnx`."""

FLOAT = "float"
"""What begins the names of the float program's metrics."""


def beside(metrics: Mapping[str, float], kind: str) -> dict[str, tuple[float, float]]:
    """What the float program and the quantised one came to, of the metrics of a run."""
    rest = (name.removeprefix(f"{kind}_") for name in metrics if name.startswith(f"{kind}_"))
    return {
        name: (metrics[f"{FLOAT}_{name}"], metrics[f"{kind}_{name}"]) for name in rest if f"{FLOAT}_{name}" in metrics
    }
