"""The contract of a one-shot strategy: it trains a supernet epoch by epoch, then says what it has derived."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import Field

from nas_core.architecture import Architecture
from nas_core.batch import Data
from nas_core.config import Config as BaseConfig
from nas_core.deprecated import renamed
from nas_core.strategy import Setting

if TYPE_CHECKING:
    from torch import nn


class OneShotConfig(BaseConfig):
    """What the loop must know of every one-shot strategy's configuration.

    A truth value `auxiliary` among its fields says whether the supernet has the second classifier that a size asks for.
    """

    epochs: int = Field(default=50, ge=1, le=100_000, description="of the supernet's training")
    batch_size: int = Field(
        default=64, ge=2, le=65_536, description="of images, of graphs; one graph is one batch, without recipe.fan_out"
    )
    crop: int = Field(default=0, ge=0, description="pixels of padding that training images are cropped from at random")
    flip: bool = Field(default=False, description="mirror training images at random")

    @property
    def halves(self) -> bool:
        """Whether the architecture learns on the part "alphas", apart from the weights, which have "weights"."""
        return True

    @property
    def float32_only(self) -> bool:
        """Whether the strategy cannot work with bf16; "auto" is float32 then."""
        return False


@dataclass(frozen=True, slots=True)
class Compute:
    """What a supernet is trained with: a torch device and a number format (autocast)."""

    device: str = "cpu"
    precision: Literal["float32", "bf16"] = "float32"


@renamed(scores="strengths")
@dataclass(frozen=True, slots=True)
class Progress:
    """What an epoch came to.

    `strengths`: per group a weight per candidate, between 0 and 1, from which an architecture is derived; empty where
    the strategy has none (uniform sampling). `arch`: what would be derived now. `done`: no further epoch is needed.
    """

    metrics: Mapping[str, float]
    strengths: Mapping[str, tuple[float, ...]]
    arch: Architecture | None
    done: bool = False


@runtime_checkable
class OneShot(Protocol):
    """A one-shot strategy, made as `Strategy(setting, config)`. Raises UsageError, when made or started, for a setting
    that it cannot handle: a space that is not relaxable, a constraint that it does not know.

    The rule: what `step(epoch)` does depends on the state and on (seed, epoch) alone. Torch's generator is seeded with
    them before every call, and may be drawn from. A strategy that is started and given `state_dict()` goes on bit for
    bit as the one that gave it.
    """

    Config: ClassVar[type[OneShotConfig]]
    # `one_path: ClassVar[bool] = True`, where there is one, says that a pass runs one candidate per group: less memory.
    # `largest(make)`, where there is one, is the space of the largest supernet that it makes, if not the study's.
    supernet: nn.Module  # from `start` on; its weights are what is kept of the search

    def __init__(self, setting: Setting, config: Any) -> None: ...

    def start(self, make: Callable[..., nn.Module], data: Data, compute: Compute) -> None:
        """Take up a fresh supernet (`search_spaces.supernet.supernet.Supernet`, the same at every call) on the CPU, and
        the data on `compute.device`. Parts to train on: "train", or its halves "weights" and "alphas".

        `make(space=None)`: given another space, whose `derive` answers architectures of the study's, it makes the
        supernet of that one. A strategy that works in rounds, each on a space of its own, calls it when a round begins,
        and in `load_state_dict` for the round that the state is of."""
        ...

    def step(self, epoch: int) -> Progress:
        """Train epoch number `epoch` (from 0). Raises TrialError where a loss is not finite."""
        ...

    def result(self) -> Sequence[Architecture]:
        """The derived architectures, best first, once done; empty: the supernet is the result.
        Raises InfeasibleError where none satisfies the constraints."""
        ...

    def state_dict(self) -> Mapping[str, Any]:
        """Nested dicts (keys are text) and lists of text, numbers, truth values, None, and tensors."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...
