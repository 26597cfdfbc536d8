"""What a module of a network may bring beside its output, as protocols: who has the methods has the trait.

Read by the fit loop and the training of supernets (`Progressive`, `HasAuxiliary`, `Extra`, `HasNoDecay`), by costs
(`HasAuxiliary`, `HasMacs`, `HasIdle`), by exports (`NotExportable`) and by whoever copies weights from one network to
another (`HasSignature`). Proxies and exported programs see the answer alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn

AUXILIARY = "auxiliary"


@runtime_checkable
class Progressive(Protocol):
    """A module that changes over a training, as drop path does."""

    def set_progress(self, progress: float) -> None:
        """Before every step: 0 at the first one of the recipe, 1 at the last."""
        ...


@runtime_checkable
class HasAuxiliary(Protocol):
    """A network with a second head, its submodule `auxiliary` (or None), that only training reads.

    In training mode `forward` returns `(logits, auxiliary logits)`, and what is minimised is the loss of the logits
    plus `auxiliary_weight` times that of the auxiliary ones. In evaluation mode it returns the logits alone, as it
    always does without the head. The head is no part of what is deployed: it counts nothing.
    """

    auxiliary: nn.Module | None
    auxiliary_weight: float


@runtime_checkable
class Extra(Protocol):
    """A module with more to minimise than the network's answer, such as the balance loss of a router."""

    def take(self) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """What the forward pass in training mode came to, by name: terms that are added to the loss, and statistics.

        All are scalars, means over the samples that were seen, since a batch that memory demands in pieces comes piece
        by piece, each weighted by its samples. A training reports the mean over the modules as `train_NAME`, of a
        statistic also that of the module where it is largest, `train_NAME_max`. To take is to remove: the module holds
        nothing afterwards, so that no copy of the network meets a graph of gradients. Nothing is held after a pass in
        evaluation mode.
        """
        ...


@runtime_checkable
class HasLoads(Protocol):
    """A layer of experts: a training reports how an epoch divides its work among them."""

    loads: Tensor
    """How much of the last pass each expert did, `[experts]`."""


@runtime_checkable
class HasNoDecay(Protocol):
    """A module some of whose parameters are not pulled to zero."""

    def no_decay(self) -> Iterable[nn.Parameter]:
        """Its own parameters, or those of its submodules, that no weight decay is for."""
        ...


@runtime_checkable
class HasMacs(Protocol):
    """A module that multiplies where a counter of convolutions and matrix products cannot see it."""

    def uncounted_macs(self, *inputs: Tensor) -> int:
        """The multiply-accumulates of `forward(*inputs)` that are in neither. The inputs may be on the meta device."""
        ...


@runtime_checkable
class HasIdle(Protocol):
    """A module some of whose parameters a sample does not pass, such as experts that are not chosen."""

    def idle_params(self) -> int:
        """How many; where it differs from token to token, the mean."""
        ...


@runtime_checkable
class HasSignature(Protocol):
    """A module that says which weights mean the same as its own; without it names and shapes alone decide."""

    def signature(self) -> Hashable | None:
        """Weights may go from one module to another where both signatures are equal; None: never. Of a file of weights
        the signatures are not known; there None alone counts."""
        ...


@runtime_checkable
class NotExportable(Protocol):
    """A module that no program can be traced of, and why: `because it samples its neighbours`."""

    why_not_exportable: str


def deployed_parameters(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that a deployed network has, shared ones once: all but those of an auxiliary head."""
    heads = (f"{AUXILIARY}.",) if isinstance(network, HasAuxiliary) else ()
    return ((name, one) for name, one in network.named_parameters() if not name.startswith(heads))
