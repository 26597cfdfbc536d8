"""What a model is beyond the network that a space builds: in what it differs from that, as plain data.

A network is rebuilt from its space, architecture and size, then from these changes, then from its weights: no graph, no
tracing, no pickle. Changes are a state and no history: those of a network that was compressed twice say what it is now.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from nas_core.frozen import Config


class Layer(Config):
    """A module in the place of another one: one of a closed table of types (`training.changes.LAYERS`)."""

    type: str
    arguments: dict[str, Any] = Field(default_factory=dict, description="of its constructor, plain data")
    layers: tuple[Layer, ...] = Field(default=(), description="of a Sequential, in order")


class Changes(Config):
    """In what a network differs from the one that its space builds. Names are those of `nn.Module.named_modules`,
    `named_parameters` and `named_buffers`; everything is empty where nothing differs."""

    modules: dict[str, Layer | None] = Field(default_factory=dict, description="modules that others stand for")
    attributes: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="by module: numbers, words and tuples of them that it holds as attributes"
    )
    shapes: dict[str, tuple[int, ...] | None] = Field(
        default_factory=dict, description="of tensors of other shapes; null: the network has none of that name"
    )

    def __bool__(self) -> bool:
        return bool(self.modules or self.attributes or self.shapes)


UNCHANGED = Changes()
