"""No change: what `nas compress --quantize` does where no method is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from compressors.compressor import Change, Round, Subject
from nas_core.config import Config
from nas_core.errors import UsageError

if TYPE_CHECKING:
    from torch import nn


class Settings(Config):
    """None."""


class Unchanged:
    """Leaves the network as it is, and trains nothing."""

    Config = Settings
    needs: ClassVar[tuple[str, ...]] = ()
    rounds = (Round(0),)

    def __init__(self, subject: Subject, config: Settings) -> None:
        if subject.targets:
            raise UsageError(
                f"target '{subject.targets[0]}': without a --method that removes something none is reached"
            )

    def compress(self, network: nn.Module, round: int) -> Change:
        return Change()
