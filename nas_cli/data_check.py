"""`nas data check`: a data set as a search would see it, and what would be silently wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.data.check import Imbalance
    from training.data.protocol import Source
    from training.data.table_source import TableSource
    from training.data.text import TextSource


def show(reference: str, source: Source, as_json: bool) -> None:
    """Print shapes, statistics, columns of a table, counts per class and part, and what should be looked at."""
    from nas_cli import render
    from training.data.check import findings, imbalance_of
    from training.data.table_source import TableSource
    from training.data.text import TextSource
    from training.inputs.texts import visible
    from training.tasks import kind_of

    task, counts = source.task, source.class_counts
    table = source if isinstance(source, TableSource) else None
    text = source if isinstance(source, TextSource) else None
    named = table.inputs.classes if table else getattr(source, "classes", ())
    classes = list(named) or [str(number) for number in range(task.outputs if counts else 0)]
    uneven, told = imbalance_of(source, classes) if counts else None, findings(source, classes)
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
                **(_described(table) if table else {}),
                **(_text(text) if text else {}),
                "imbalance": uneven.ratio if uneven else None,
                "warnings": [*getattr(source, "warnings", ()), *told],
            }
        )
        return
    shape = " x ".join(map(str, task.input_shape))
    render.pairs(
        {
            "data": reference,
            "task": task.kind,
            "target": table.inputs.target if table else None,
            "width" if table else "window" if text else kind_of(task).inputs_word: shape,
            "characters": " ".join(map(visible, text.inputs.outputs)) if text else None,
            "nodes": render.number(task.nodes),
            "edges": render.number(task.edges),
            "tasks": ", ".join(f"{head.name} ({head.outputs} classes)" for head in task.heads) or None,
            "inputs": ", ".join(each.name for each in task.inputs) if task.heads else None,
            "classes": str(task.outputs) if counts else None,
            **{name.replace("_", " "): _numbers(values) for name, values in _statistics(source).items()},
            "imbalance": _words(uneven) if uneven else None,
            "split hash": source.split_hash,
        }
    )
    render.emit("")
    if table:
        rows = [[column["name"], column["type"], column["missing"], _shown(column)] for column in _columns(table)]
        render.table(["column", "type", "missing", "becomes"], rows, right=["missing"])
        render.emit("")
    if counts:
        rows = [[name, *(counts[part][number] for part in counts)] for number, name in enumerate(classes)]
        rows.append(["all", *(source.sizes[part] for part in counts)])
        render.table(["class", *counts], rows, right=list(counts))
    elif text:
        found = _text(text)["characters"]
        heads = ["part", "windows", *found["train"]]
        render.table(heads, [[part, source.sizes[part], *one.values()] for part, one in found.items()], right=heads[1:])
    elif not table:
        render.table(["part", "samples"], list(source.sizes.items()), right=["samples"])
    else:
        parts = _target(table)
        rows = [[part, source.sizes[part], *found.values()] for part, found in parts.items()]
        heads = ["part", "rows", *parts["train"]]
        render.table(heads, rows, right=heads[1:])
    if told:
        render.emit("", "to look at:", *(f"  {render.clean(text)}" for text in told))


def _statistics(source: Source) -> Mapping[str, list[float]]:
    """Black and white, mean and deviation per channel of images, in the numbers of the data; of features over all."""
    from training.data.many_graphs import ManyGraphSource
    from training.data.node_numbers import NodeNumberSource
    from training.data.pair_source import PairSource
    from training.data.source import GraphSource, ImageSource
    from training.data.stream import StreamSource

    if isinstance(source, ImageSource | StreamSource):
        mean, deviation = source.statistics
        return {"value_range": [*source.value_range], "mean": [*mean], "deviation": [*deviation]}
    if isinstance(source, GraphSource | NodeNumberSource | PairSource | ManyGraphSource):
        return {"mean": [float(source.features.mean())], "deviation": [float(source.features.std())]}
    return {}


def _columns(source: TableSource) -> list[dict[str, Any]]:
    """What each column of a table is, how many training rows have no value there, and how these are filled."""
    from training.inputs.tables import NumberColumn

    found = []
    start = 0
    for column in source.inputs.columns:
        place, missing = start, 0
        start += sum(column.widths)
        if isinstance(column, NumberColumn):
            place += 1
            told = {**column.model_dump(include={"median", "mean", "deviation", "indicator"})}
            has = column.indicator
        else:
            told = {"levels": [*column.levels], "rare": column.rare}
            has = "" in column.levels
            place += column.levels.index("") if has else 0
        if has:
            missing = int(source.features[source.parts.train, place].sum())
        found.append({"name": column.name, "type": column.type, "missing": missing, **told})
    return found


def _described(source: TableSource) -> dict[str, Any]:
    """What a document says of a table."""
    target = {"name": source.inputs.target, **({} if source.inputs.classes else _target(source))}
    return {"target": target, "columns": _columns(source)}


def _shown(column: Mapping[str, Any]) -> str:
    """`(value - 38.5) / 13.6; missing: the median 37, and an indicator`, `5 levels: a, b, c, d, and rare ones`."""
    from training.data.labels import listed

    if column["type"] == "number":
        filled = f"; missing: the median {column['median']:.4g}, and an indicator" if column["indicator"] else ""
        return f"(value - {column['mean']:.4g}) / {column['deviation']:.4g}{filled}"
    names = [level or "missing" for level in column["levels"]]
    count = len(names) + column["rare"]
    return f"{count} levels: {listed(names, 6)}{', and rare ones' if column['rare'] else ''}"


def _text(source: TextSource) -> dict[str, dict[str, dict[str, int]]]:
    """How many characters of a text are predicted in each part, and how many of these the training part does not
    have."""
    window, unknown = source.inputs.window, source.unknown
    found = {part: {"predicted": count * window, "unknown": unknown[part]} for part, count in source.sizes.items()}
    return {"characters": found}


def _target(source: TableSource) -> dict[str, dict[str, float]]:
    """Mean, deviation and bounds of a number that is predicted, per part."""
    parts = {name: source.targets[rows] for name, rows in source.parts.items()}
    return {
        name: {
            "mean": float(values.mean()),
            "deviation": float(values.std()),
            "least": float(values.min()),
            "most": float(values.max()),
        }
        for name, values in parts.items()
    }


def _words(uneven: Imbalance) -> str:
    sides = f" ({uneven.most:,} training samples of {uneven.largest}, {uneven.least:,} of {uneven.smallest})"
    return f"{uneven.ratio:.3g}{sides}" if uneven.ratio > 1 else "none"


def _numbers(values: Any) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
