"""The contract of a search space. Everything a strategy needs is here; it never knows which space it is."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value
from nas_core.config import SizeConfig
from nas_core.errors import UsageError, unknown
from nas_core.evaluation import Metric
from nas_core.graph import ArchGraph
from nas_core.picker import FixedPicker
from nas_core.task import Task

if TYPE_CHECKING:
    from numpy.random import Generator
    from torch import nn


class SearchSpace(Protocol):
    """A search space: named choices, and how to build the network of an architecture.

    Subclass it to inherit the defaults; `name`, `choices`, `tasks` have none, and `build` has one where the space is
    relaxable (`nas_core.relax.Relaxable`).
    """

    name: str
    version: int = 1
    earlier: tuple[int, ...] = ()  # versions whose recorded sizes still give the networks that they gave
    choices: tuple[Choice, ...]
    tasks: frozenset[str]
    Size: type[SizeConfig] = SizeConfig
    elsewhere: Mapping[str, str] = MappingProxyType({})  # by kind of task: this space with arguments that learn it
    refused: Mapping[str, str] = MappingProxyType({})  # by kind of task: why it is none of its `tasks`
    counted: tuple[str, ...] = ("params", "macs")  # costs that are reported of its networks; also `active_params`

    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
        """The untrained network: `(batch, *task.input_shape)` to `(batch, task.outputs)` for images,
        `(nodes, features), (2, edges)` to `(nodes, task.outputs)` for graphs.

        By default `network`, with the operations that the architecture assigns. Raises UsageError for an illegal
        architecture, a task that the space does not learn, and another space's size.
        """
        network = getattr(self, "network", None)
        if network is None:
            raise UsageError(f"space '{self.name}' builds no networks: it needs a method `build`, or `network`")
        check_legal(self, arch)
        built: nn.Module = network(FixedPicker(self.assignment(arch)), task, size)
        return built

    def allowed(self, choice: Choice, prefix: Mapping[str, Value]) -> tuple[Value, ...]:
        """The options still legal after the choices made so far; never empty after an allowed prefix."""
        return choice.options

    def illegal(self, arch: Architecture) -> str | None:
        """Why the architecture is none of this space, or None; validates stored and user-given ones."""
        if arch.space != self.name:
            return f"it belongs to space '{arch.space}', not '{self.name}'"
        names = [choice.name for choice in self.choices]
        for name in arch.values:
            if name not in names:
                return f"'{name}' is no choice of space '{self.name}'"
        prefix: dict[str, Value] = {}
        for choice in self.choices:
            present = choice.name in arch.values
            if choice.active(prefix) != present:
                return f"choice '{choice.name}' is {'inactive but given' if present else 'active but missing'}"
            if not present:
                continue
            value = arch.values[choice.name]
            if not any(type(option) is type(value) and option == value for option in choice.options):
                return f"'{value}' is not an option of choice '{choice.name}' {choice.options}"
            if value not in self.allowed(choice, prefix):
                return f"'{value}' is not allowed for choice '{choice.name}' after {prefix}"
            prefix[choice.name] = value
        if list(arch.values) != list(prefix):
            return "its choices are not in the order of the space"
        return None

    def identity(self, arch: Architecture) -> str:
        """Equal for architectures that compute the same functions."""
        return arch.key

    def recipe(self, arch: Architecture) -> Mapping[str, Value]:
        """Fields of the training's recipe that the architecture decides (`lr`, `weight_decay`, `optimizer`, `epochs`,
        `batch_size`, ...; `training.recipe.DECIDED`). Epochs are the horizon of its schedule: a budget above them ends
        there. Two architectures of one network with other recipes are two candidates."""
        return {}

    def assignment(self, arch: Architecture) -> Mapping[str, Value | None]:
        """Which candidate each picked group of the network takes; None: none of them."""
        return arch.values

    def graph(self, arch: Architecture) -> ArchGraph:
        """The architecture as a graph with operation labels; by default a chain of its values."""
        labels = ("input", *(f"{name}={value}" for name, value in arch.values.items()), "output")
        return ArchGraph(labels, tuple((node, node + 1) for node in range(len(labels) - 1)))


def check_legal(space: SearchSpace, arch: Architecture) -> None:
    """Raises UsageError for an architecture that is none of the space, with the reason."""
    reason = space.illegal(arch)
    if reason:
        raise UsageError(f"space '{space.name}' has no network for {dict(arch.values)}: {reason}")


def builds(space: SearchSpace, version: int) -> bool:
    """Whether the space makes the networks that it made at this version."""
    return version == space.version or version in getattr(space, "earlier", ())


@runtime_checkable
class HasUnsound(Protocol):
    """Where some legal architectures cannot compute anything worth training, which the space can tell without building
    them: a search rejects those, and that costs nothing."""

    def unsound(self, arch: Architecture) -> str | None:
        """Why a legal architecture needs no evaluation, as `WORD: what` or `WORD`; None for a sound one. Pure."""
        ...


def unsound(space: SearchSpace, arch: Architecture) -> str | None:
    """Why a space knows a legal architecture as unsound; None: it does not. Asked of every proposal, so without the
    search of `isinstance` through a protocol."""
    told: Callable[[Architecture], str | None] | None = getattr(space, "unsound", None)
    return None if told is None else told(arch)


@runtime_checkable
class HasCosts(Protocol):
    """Costs without building."""

    def costs(self, arch: Architecture, task: Task, size: SizeConfig) -> Mapping[str, float]:
        """`params` (count) and `macs` (multiply-accumulates of one sample, or of the whole graph)."""
        ...


@runtime_checkable
class HasReports(Protocol):
    """Whose modules hand over terms of the loss or statistics (`nas_core.traits.Extra`)."""

    def reports(self, task: Task) -> Sequence[Metric]:
        """The metrics that a training reports for it, `train_NAME` for each name that a module gives: they can be
        objectives and constraints."""
        ...


@runtime_checkable
class HasHiddenUnits(Protocol):
    """Whose layers are as wide as something else demands, such as a number of parameters, so that no choice says it."""

    def hidden_units(self, arch: Architecture, task: Task, size: SizeConfig) -> Mapping[str, int]:
        """How many hidden units there are, by what has them: `expert`, `dense layer`. Nothing is initialised."""
        ...


@runtime_checkable
class HasHosts(Protocol):
    """Of layers: an architecture is one, and its network that of a host, which has nothing else to choose. The field
    `host` of the space's size names it, and `Size.at(host)` is the same size of another one."""

    def hosts(self, task: Task) -> Sequence[str]:
        """The hosts that learn a task; the first one is what a size without a host means."""
        ...


@runtime_checkable
class HasFindings(Protocol):
    """Made of parts that have contracts of their own, such as operators of a user's."""

    def findings(self) -> Iterator[str]:
        """What is wrong with the parts, in a sentence each; the suite of spaces asks (`nas spaces check`)."""
        ...


@runtime_checkable
class HasVariation(Protocol):
    """Where the paper's operators differ from the generic ones of `nas_core.moves`; found by `moves.variation`."""

    def mutate(self, arch: Architecture, rng: Generator) -> Architecture:
        """A legal architecture that differs from `arch`. Raises ValueError when there is none."""
        ...

    def crossover(self, one: Architecture, other: Architecture, rng: Generator) -> tuple[Architecture, Architecture]:
        """Two legal children."""
        ...


@runtime_checkable
class HasNamed(Protocol):
    """Published architectures, by name. What a space with other arguments knows too can be in a mapping `left_out`, by
    name as well, with the reason."""

    named: Mapping[str, Architecture]


def known_by_name(space: SearchSpace, names: Sequence[str]) -> dict[str, Architecture]:
    """The architectures that a space knows by these names, in their order; `named` alone: all that it knows.

    Raises UsageError for unknown names, for one that is given twice, and for a space that knows none.
    """
    if not names:
        return {}
    if not isinstance(space, HasNamed) or not space.named:
        raise UsageError(f"space '{space.name}' knows no architecture by name; leave out '{', '.join(names)}'")
    if tuple(names) == ("named",) and "named" not in space.named:
        return dict(space.named)
    for name in names:
        reason = getattr(space, "left_out", {}).get(name)
        if reason is not None:
            raise UsageError(f"architecture '{name}': {reason}; take one of {', '.join(space.named)}")
        if name not in space.named:
            raise unknown(f"architecture of space '{space.name}'", name, space.named)
        if list(names).count(name) > 1:
            raise UsageError(f"architecture '{name}' is named twice; name it once")
    return {name: space.named[name] for name in names}


@runtime_checkable
class HasNotation(Protocol):
    """An official text form, used by tables and by people."""

    def to_text(self, arch: Architecture) -> str: ...

    def from_text(self, text: str) -> Architecture:
        """The architecture of a text, or of several with this text and one identity any of them.

        Raises ValueError, naming what is wrong with the text.
        """
        ...


@runtime_checkable
class HasLayerSignatures(Protocol):
    """Of layers that may take over each other's weights, as it is known without building them."""

    def layer_signatures(self, arch: Architecture) -> Mapping[str, Hashable]:
        """By the names of layers what their weights mean: equal in two architectures where the layers of their networks
        for one task have equal signatures (`nas_core.traits.HasSignature`)."""
        ...


@dataclass(frozen=True, eq=False)
class Same:
    """A space compared by being the same object: a user's space need not be hashable."""

    space: SearchSpace

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.space is other.space

    def __hash__(self) -> int:
        return id(self.space)
