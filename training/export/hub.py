"""What the folder of a model hub (Hugging Face) holds beside the files of a network: a head of the card that says what
the hub files it under, and which files are large."""

from __future__ import annotations

from typing import Any

from training.export.card import Card
from training.tasks import find

STEM = "model"
CARD = "README.md"
ATTRIBUTES = ".gitattributes"
LARGE = ("onnx", "pt2", "safetensors")


def attributes() -> str:
    """Which files git keeps as large ones."""
    return "".join(f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LARGE)


def head(card: Card) -> str:
    """The YAML between two lines of dashes that begins a card: task, tags, and the figures of the validation and test
    parts as a `model-index`. It names no licence: that is for who publishes the network to say."""
    import yaml

    task = card.task
    assert task is not None
    pipeline = find(task.kind).pipeline
    formats = {file.name.rpartition(".")[2] for file in card.files}
    fields: dict[str, Any] = {"library_name": "pytorch"}
    if pipeline is not None:
        fields["pipeline_tag"] = pipeline
    tags = ["pytorch", "neural-architecture-search", task.kind]
    fields["tags"] = [*tags, *(name for name in ("onnx", "safetensors") if name in formats)]
    measured = [metric for metric in card.metrics if metric.split != "train"]
    fields["metrics"] = list(dict.fromkeys(metric.name.partition("_")[2] for metric in measured))
    fields["model-index"] = [
        {
            "name": card.title,
            "results": [
                {
                    "task": {"type": pipeline or task.kind, "name": task.kind},
                    "dataset": {"type": card.data, "name": card.data, "split": split},
                    "metrics": [
                        {"type": metric.name.partition("_")[2], "name": metric.name, "value": metric.value}
                        for metric in measured
                        if metric.split == split
                    ],
                }
                for split in dict.fromkeys(metric.split for metric in measured)
            ],
        }
    ]
    written: str = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    return f"---\n{written}---\n\n"
