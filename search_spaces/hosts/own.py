"""A network of the user's own as a host: `my_net.py:net`.

What it may be, decided in this order:
- an `nn.Module`: a copy of it, with its weights;
- a class or another callable, called with those of the keywords `task` and `slot` that its signature names. One that
  names `slot` puts the layer where it wants it (`slot.Slot`).

In a network without a slot, pairs of a normalisation and the activation that alone reads it are found in its graph
(`torch.fx`) and replaced by the layer; all else stays as it is.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas_core import refs
from nas_core.errors import NasError, UsageError
from nas_core.task import Task

if TYPE_CHECKING:
    from torch import nn

GROUP = "nas.hosts"
TASK, SLOT = "task", "slot"
SHOWN = 4  # places of each kind in a report


def is_own(name: str) -> bool:
    """Whether a host is named by a reference: `FILE.py:OBJECT`, `PACKAGE.MODULE:OBJECT`."""
    return ":" in name.partition("(")[0]


@dataclass(frozen=True)
class OwnHost:
    """A host by its reference. It learns what its code learns, and is as large as that says."""

    reference: str

    def check(self, task: Task) -> None:
        """Raises like `refs.resolve`."""
        self._resolved()

    def sized(self, scale: str, said: Mapping[str, int]) -> dict[str, int]:
        """Raises UsageError for a width, a depth or stages."""
        if said:
            raise UsageError(
                f"size: host '{self.reference}' has a size of its own; leave out {', '.join(said)}, "
                "or give it arguments"
            )
        return {}

    def network(self, task: Task, size: Mapping[str, int], layer: Callable[[int], nn.Module], batch: bool) -> nn.Module:
        """Raises UsageError for what is no network, or has no place for a layer."""
        return self.placed(task, layer, batch)[0]

    def placed(self, task: Task, layer: Callable[[int], nn.Module], batch: bool) -> tuple[nn.Module, str]:
        """The network with the layer, and where it was put and what was left, in words."""
        from torch import nn

        from search_spaces.hosts.slot import LayerSlot

        made, arguments = self._resolved()
        slot = _Counted(LayerSlot(layer, batch, len(task.input_shape) - 1))
        if isinstance(made, nn.Module):
            if arguments:
                raise UsageError(f"host '{self.reference}' is a module that is made already; it takes no arguments")
            return self._replaced(copy.deepcopy(made), slot)
        if not callable(made):
            raise UsageError(f"host '{self.reference}' is a {type(made).__name__}; name a network, or what makes one")
        names = _parameters(made)
        given = {name: value for name, value in ((TASK, task), (SLOT, slot)) if name in names}
        try:
            found = made(**arguments, **given)
        except NasError:
            raise
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            raise UsageError(f"host '{self.reference}' cannot be made: {type(error).__name__}: {error}") from error
        if not isinstance(found, nn.Module):
            raise UsageError(f"host '{self.reference}' makes a {type(found).__name__}, not a torch.nn.Module")
        if SLOT not in names:
            return self._replaced(found, slot)
        if not slot.layers:
            raise UsageError(
                f"host '{self.reference}' never calls slot(channels), so it has no place for a layer; call it where a "
                "normalisation with its activation goes"
            )
        norms = f" and {slot.norms} of a plain normalisation" if slot.norms else ""
        return found, f"{_count(len(slot.layers), 'place')} of the layer{norms}; {_groups(slot.layers)}"

    def _resolved(self) -> tuple[Any, dict[str, Any]]:
        located, arguments = refs.resolve(self.reference, {}, GROUP, "host")
        return located.object, arguments

    def _replaced(self, network: nn.Module, slot: _Counted) -> tuple[nn.Module, str]:
        from search_spaces.hosts.pairs import replaced

        try:
            made, pairs, left = replaced(network, slot)
        except UsageError as error:
            raise UsageError(f"host '{self.reference}' {error}") from error
        kept = f"left as they are: {_some(left)}" if left else "nothing of either kind is left"
        return made, f"{_count(len(pairs), 'pair')} replaced: {_some(pairs)}; {kept}; {_groups(slot.layers)}"


def reports(hosts: Sequence[str | None], task: Task) -> Iterator[str]:
    """For each host of the user's own where the layer goes, and what is left. Raises like `OwnHost.network`, and
    UsageError for one that does not run on the task's inputs, or gives a layer what it cannot take."""
    for name in hosts:
        if name is not None and is_own(name):
            from search_spaces.hosts.slot import Place

            network, said = OwnHost(name).placed(task, Place, batch=True)
            _run(name, network, task)
            yield f"host '{name}': {said}"


def _run(name: str, network: nn.Module, task: Task) -> None:
    """Once on zeros, where the task has one input."""
    import torch

    if len(task.inputs) > 1:
        return
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(2, *task.input_shape))
    except UsageError as error:
        raise UsageError(f"host '{name}' {error}") from error
    except Exception as error:  # whatever the user's code raises
        said = (str(error).strip().splitlines() or [""])[0]
        shape = [2, *task.input_shape]
        raise UsageError(f"host '{name}' does not run on {shape}: {type(error).__name__}: {said}") from error


class _Counted:
    """A slot that knows what it was asked for."""

    def __init__(self, slot: Callable[[int, bool], nn.Module]) -> None:
        self._slot = slot
        self.layers: list[int] = []  # their channels
        self.norms = 0

    def __call__(self, channels: int, act: bool = True) -> nn.Module:
        if type(channels) is not int or channels < 1:
            raise UsageError(f"slot({channels!r}): the number of channels is an integer of at least 1")
        if act:
            self.layers.append(channels)
        else:
            self.norms += 1
        return self._slot(channels, act)


def _groups(channels: Sequence[int]) -> str:
    """How many groups of channels a layer has that uses them."""
    from search_spaces.hosts.slot import groups_of

    return "groups, where it has any: " + ", ".join(f"{groups_of(c)} of {c} channels" for c in sorted(set(channels)))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _some(texts: Sequence[str]) -> str:
    more = len(texts) - SHOWN
    return ", ".join(texts[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _parameters(made: Any) -> Mapping[str, Any]:
    try:
        return inspect.signature(made).parameters
    except (TypeError, ValueError):  # of classes written in C
        return {}
