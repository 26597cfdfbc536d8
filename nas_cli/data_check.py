"""`nas data check`: a data set as a search would see it, and what would be silently wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.data.source import Source


def show(reference: str, source: Source, as_json: bool) -> None:
    """Print shapes, statistics, counts per class and part, and what should be looked at."""
    from nas_cli import render
    from training.data.check import findings, imbalance

    task, counts = source.task, source.class_counts
    classes = list(getattr(source, "classes", ())) or [str(number) for number in range(task.outputs)]
    uneven, told = imbalance(counts, classes), findings(source, classes)
    if as_json:
        render.document(
            {
                "data": reference,
                "task": task.model_dump(mode="json"),
                "parts": dict(source.sizes),
                "classes": classes,
                "class_counts": dict(counts),
                "split_hash": source.split_hash,
                **_statistics(source),
                "imbalance": uneven.ratio,
                "warnings": [*getattr(source, "warnings", ()), *told],
            }
        )
        return
    sides = f" ({uneven.most:,} training samples of {uneven.largest}, {uneven.least:,} of {uneven.smallest})"
    render.pairs(
        {
            "data": reference,
            "task": task.kind,
            "features" if task.nodes else "images": " x ".join(map(str, task.input_shape)),
            "nodes": render.number(task.nodes),
            "edges": render.number(task.edges),
            "classes": str(task.outputs),
            **{name.replace("_", " "): _numbers(values) for name, values in _statistics(source).items()},
            "imbalance": f"{uneven.ratio:.3g}{sides}" if uneven.ratio > 1 else "none",
            "split hash": source.split_hash,
        }
    )
    render.emit("")
    rows = [[name, *(f"{counts[part][number]:,}" for part in counts)] for number, name in enumerate(classes)]
    total = ["all", *(f"{source.sizes[part]:,}" for part in counts)]
    render.table(["class", *counts], [*rows, total], right=list(counts))
    if told:
        render.emit("", "to look at:", *(f"  {render.clean(text)}" for text in told))


def _statistics(source: Source) -> Mapping[str, list[float]]:
    """Black and white, mean and deviation per channel of images, in the numbers of the data; of features over all."""
    from training.data.source import GraphSource, ImageSource
    from training.data.stream import StreamSource

    if isinstance(source, ImageSource | StreamSource):
        mean, deviation = source.statistics
        return {"value_range": [*source.value_range], "mean": [*mean], "deviation": [*deviation]}
    if isinstance(source, GraphSource):
        return {"mean": [float(source.features.mean())], "deviation": [float(source.features.std())]}
    return {}


def _numbers(values: Any) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
