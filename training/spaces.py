"""Search spaces by their references; a network of the user's own is a space with one architecture."""

from __future__ import annotations

import search_spaces
from nas_core import refs
from nas_core.errors import UsageError
from nas_core.refs import Loaded
from nas_core.space import SearchSpace
from search_spaces.own_network import OwnNetwork, is_space
from training import tasks

KIND = "space"


def load(reference: str) -> Loaded:
    """The space of a reference. What an object of a user's file is, is decided in this order: a space or a class
    of them; a `torch.nn.Module`, whose weights every network has; a class of modules, or another callable, that makes
    the network.

    Raises UsageError or NotFoundError, and UsageError for what is none of these.
    """
    located, arguments = refs.resolve(reference, search_spaces.BUILTIN, search_spaces.GROUP, KIND)
    found = located.object
    if is_space(found) or located.file_hash is None:
        space = refs.called(located, arguments, KIND)
        missing = [name for name in ("name", "choices", "tasks", "build") if not hasattr(space, name)]
        if missing:
            raise UsageError(f"space '{reference}' has no {', '.join(missing)}; see examples/my_space.py")
        return Loaded(space, reference, located.file_hash)
    if not callable(found):
        raise UsageError(
            f"'{reference}' is a {type(found).__name__}: neither a search space (see examples/my_space.py) nor a "
            "torch.nn.Module, nor what makes one"
        )
    name = refs.split(reference, KIND)[0].rpartition(":")[2]
    return Loaded(OwnNetwork(found, name, reference, tasks.names(), arguments), reference, located.file_hash)


def check_kind(space: SearchSpace, task: str, data: str | None) -> None:
    """Raises UsageError where the space does not learn tasks of this kind, that of the data where there are some."""
    if task not in space.tasks:
        what = "task" if data is None else f"data '{data}'"
        raise UsageError(
            f"space '{space.name}' is for {', '.join(sorted(space.tasks))}, but the {what} is {task}; "
            f"{_instead(space, task)}"
        )


def _instead(space: SearchSpace, task: str) -> str:
    """What learns a kind of task that a space does not: the same space with other arguments, where it says so
    (`refused`, `elsewhere`), or other spaces."""
    if task in space.refused:
        return space.refused[task]
    if task in space.elsewhere:
        return f"take --space '{space.elsewhere[task]}'"
    known = {name: load(name).object for name in search_spaces.BUILTIN}
    found = [name for name, other in known.items() if task in other.tasks]
    found = found or [f"'{other.elsewhere[task]}'" for other in known.values() if task in other.elsewhere]
    return f"take another space ({', '.join(found)})" if found else "no space of this program learns it"
