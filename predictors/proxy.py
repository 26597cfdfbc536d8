"""The contract of a zero-cost proxy: a score from an untrained network and one batch, higher is better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from nas_core.config import Config as BaseConfig
from predictors.need import Need
from training.tasks import all_kinds

if TYPE_CHECKING:
    from predictors.forward_pass import ForwardPass

EVERY_TASK = frozenset(kind.name for kind in all_kinds())
IMAGES = frozenset(kind.name for kind in all_kinds() if kind.images)


class Unscorable(Exception):
    """Raised by `Proxy.score`: the network gives this proxy nothing to measure, such as no activation at all.

    The architecture then has the worst score, minus infinity, and the reason is shown.
    """


class Proxy(Protocol):
    """A zero-cost proxy, made as `Proxy(config)`.

    `components` are the names of what `score` returns; a proxy that is one number has its own name alone.
    """

    Config: ClassVar[type[BaseConfig]]
    tasks: ClassVar[frozenset[str]]
    needs: ClassVar[Need]
    components: ClassVar[tuple[str, ...]]

    def __init__(self, config: Any) -> None: ...

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        """The components, oriented so that higher is better; NaN counts as the worst, minus infinity.

        Depends on the forward alone: same network, batch and seed, same score. Leaves `forward.model` as it is.
        Raises Unscorable.
        """
        ...
