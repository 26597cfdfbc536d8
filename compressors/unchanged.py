"""No change: what `nas compress --quantize` does where no method is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from compressors.compressor import Change, Round, Subject, check_leaves_widths
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
        check_leaves_widths(subject)
        if subject.ignored:
            raise UsageError(f"ignore '{subject.ignored[0]}': nothing is changed without a --method; leave it out")
        if subject.targets:
            raise UsageError(
                f"target '{subject.targets[0]}': without a --method that removes something none is reached"
            )

    def compress(self, network: nn.Module, round: int) -> Change:
        return Change()
