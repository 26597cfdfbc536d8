"""The contract of a compression method. What it needs is here; it neither trains, nor stores, nor proves."""

from __future__ import annotations

from collections.abc import Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from compressors.groups.groups import Fixed, Removal
from compressors.target import Target
from nas_core.config import Config
from nas_core.errors import UsageError
from nas_core.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor, nn

    from nas_core.batch import Data
    from training.recipe import Recipe
    from training.regimes.regime import Regime

NEEDS: Mapping[str, str] = {
    "data": "samples of the training part",
    "groups": "units that can be removed together",
    "linear": "linear maps or convolutions",
    "ffn": "pairs of linear maps with an activation between them",
    "recurrent": "LSTM, GRU or RNN layers",
    "batch-norm": "batch normalisations with scales",
}
"""What methods may need of a network or its data."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a method may look at beside the network.

    `data` are those that it is trained on (on `device`, the parts "train" and "valid"), `inputs` an example of what the
    network is called with (on the device), `seed` where anything random comes from, together with the round and the
    step. `recipe` and `epochs` say how the network is trained after a round. `targets`: what it must come to, relative
    to `base`, the costs (`params`, `macs`, `density`) of the network before the first round. `ignored`: modules that
    stay as they are, with all that is within them. `round_to`: what is kept of a width is a multiple of it where that
    can be. `initial` makes the network as it was before its training. `cache` keeps plain data and arrays between
    processes: what was scored is not scored again; its keys hold for this network, these data and this seed alone.
    """

    task: Task
    data: Data
    device: torch.device
    seed: int
    inputs: tuple[Tensor, ...] = ()
    recipe: Recipe | None = None
    epochs: int = 0
    targets: tuple[Target, ...] = ()
    base: Mapping[str, float] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    round_to: int = 1
    initial: Callable[[], nn.Module] | None = None
    cache: MutableMapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def sample(self) -> tuple[Tensor, ...]:
        """What the network is called with for one sample (a whole graph), of which costs are."""
        from training.tasks import kind_of

        return kind_of(self.task).first(self.inputs, 1)


def check_leaves_widths(subject: Subject) -> None:
    """Of a method that leaves widths as they are: raises UsageError where kept ones are asked to be multiples."""
    if subject.round_to != 1:
        raise UsageError(f"round-to {subject.round_to}: this method leaves widths as they are; leave it out")


@dataclass(frozen=True, slots=True)
class Round:
    """One change of the network and the training after it: `epochs` of it, None: as many as were asked for."""

    epochs: int | None = None


ONE_SHOT = (Round(),)
"""One change, and the training that was asked for."""


@dataclass(frozen=True, slots=True)
class Part:
    """What could be changed in a network: `units` of the module `name`, of which at least `least` stay. `saves`: costs
    that are saved where only those stay, all else as it is. `note`: what to know of it, such as why it is not exact."""

    name: str
    units: int
    least: int
    saves: Mapping[str, float]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a method would do, without any training. `costs`: what it leads to. `reachable`: per cost the least that the
    method can come to, the middle (half of all), and the greatest (nothing changed). `notes`: what to know of all of
    it."""

    parts: tuple[Part, ...]
    fixed: tuple[Fixed, ...]
    costs: Mapping[str, float]
    reachable: Mapping[str, tuple[float, float, float]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """Two things that must be equal: by how much they differ, relative to the larger, and how much is allowed."""

    name: str
    difference: float
    tolerance: float


@dataclass(frozen=True, slots=True)
class Change:
    """What one round has done. `removed` units have gone: that they were nothing but what they are said to be is proved
    by the job, in a process of its own. `recalibrate`: the statistics of batch normalisations no longer fit. `report`:
    by part (the name of a module or tensor), plain data for people; `notes`: what they must know of all of it."""

    removed: Removal = field(default_factory=dict)
    recalibrate: bool = False
    checks: tuple[Check, ...] = ()
    report: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Compressor(Protocol):
    """A compression method. `Config` documents its settings, `needs` says what a network and its data must have for it
    (of `NEEDS`), `rounds` how often the network is changed and trained after. Made anew by every process: a method
    keeps nothing from one round to the next but what it has left in the network.
    """

    Config: ClassVar[type[Config]]
    needs: ClassVar[Collection[str]]
    rounds: Sequence[Round]

    def __init__(self, subject: Subject, config: Any) -> None:
        """Raises UsageError for settings or targets that do not fit the subject."""
        ...

    def compress(self, network: nn.Module, round: int) -> Change:
        """Make the network smaller, in place; it is on the device, in evaluation mode, with the weights of the training
        before. `round` counts from 0.

        It may set attributes that modules hold as numbers, words or tuples of them (`conv.out_channels = 12`), give
        parameters and buffers other shapes, and put layers of `training.changes.LAYERS` in the place of modules: from
        that the network is rebuilt. Raises UsageError where there is nothing to do.
        """
        ...


@runtime_checkable
class HasPlan(Protocol):
    """A method that can say what it would do."""

    def plan(self, network: nn.Module) -> Plan:
        """What would be done to the network of the first round, which stays as it is; nothing is trained.

        Raises UsageError: nothing to do, a target that cannot be reached (says the least) or is met already, missing
        data.
        """
        ...


@runtime_checkable
class HasRegime(Protocol):
    """A method that acts while the network trains."""

    def regime(self, network: nn.Module, round: int) -> Regime | None:
        """What the training after a round does beyond the ordinary step; None: nothing. `network` is the one that will
        be trained. What the next round needs it leaves in the network (`Regime.end`)."""
        ...
