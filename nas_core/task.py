"""What is learned, as plain data that travels with a study."""

from __future__ import annotations

from typing import Final

from nas_core.config import Config

IMAGE_CLASSIFICATION: Final = "image-classification"
NODE_CLASSIFICATION: Final = "node-classification"


class Task(Config):
    """A learning task.

    `input_shape` is the shape of one sample without the batch: (channels, height, width) for images,
    (features,) for the nodes of a graph. `outputs` is the number of classes. `nodes` and `edges` are the
    size of the (full-batch) graph, which the cost of a graph network depends on; edges are directed.
    """

    kind: str
    input_shape: tuple[int, ...]
    outputs: int
    metric: str = "accuracy"
    nodes: int | None = None
    edges: int | None = None
