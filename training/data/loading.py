"""How data are bound to a device: plain settings, of which a source takes what it understands."""

from __future__ import annotations

from pydantic import Field

from nas_core.config import Config
from training.data.augment import PLAIN, Augment


class Loading(Config):
    """Of images all of them but the fan-out, of rows the batch size; a graph is one batch as it is, unless there is a
    fan-out, when it takes that and the batch size."""

    batch_size: int = Field(default=64, description="samples of a training batch")
    augment: Augment = Field(default=PLAIN, description="of training images")
    channels_last: bool = Field(default=False, description="layout of images in memory")
    fan_out: tuple[int, ...] | None = Field(default=None, description="neighbours per hop of the nodes of a graph")


DEFAULT = Loading()
