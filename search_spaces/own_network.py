"""A network of the user's own as a search space with one architecture: everything that works on spaces works on it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Collection, Mapping
from typing import Any

from nas_core.architecture import Architecture
from nas_core.choice import Choice
from nas_core.config import SizeConfig
from nas_core.errors import NasError, UsageError
from nas_core.space import SearchSpace
from nas_core.task import Task

TASK = "task"
"""The keyword by which a callable is given the task, where its signature names it."""


class OwnNetwork(SearchSpace):
    """One architecture, without a choice.

    `made` is an `nn.Module`, of which every network is a copy with its weights, or whatever is called to make one, with
    `arguments` and with `task` where its signature names that.
    """

    version = 1
    choices: tuple[Choice, ...] = ()
    Size = SizeConfig

    def __init__(
        self, made: Any, name: str, reference: str, tasks: Collection[str], arguments: Mapping[str, Any]
    ) -> None:
        from torch import nn

        if arguments and isinstance(made, nn.Module):
            raise UsageError(f"'{reference}': {name} is a module that is made already; it takes no arguments")
        self.name, self.tasks = name, frozenset(tasks)
        self._made, self._reference, self._arguments = made, reference, dict(arguments)

    @property
    def architecture(self) -> Architecture:
        """The one that there is."""
        return Architecture(self.name, {})

    @property
    def has_weights(self) -> bool:
        """Whether networks are copies of a module, with its weights."""
        from torch import nn

        return isinstance(self._made, nn.Module)

    def check(self, task: Task) -> None:
        """Make the network once. Raises UsageError, also for whatever making it raises."""
        try:
            self.build(self.architecture, task, self.Size())
        except NasError:
            raise
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            raise UsageError(f"'{self._reference}' cannot be made: {type(error).__name__}: {error}") from error

    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> Any:
        """Raises UsageError where something else than a module is made."""
        from torch import nn

        if isinstance(self._made, nn.Module):
            return copy.deepcopy(self._made)
        given = {TASK: task} if TASK in _parameters(self._made) else {}
        found = self._made(**self._arguments, **given)
        if not isinstance(found, nn.Module):
            raise UsageError(
                f"'{self._reference}' makes a {type(found).__name__}, not a torch.nn.Module, which a network must be; "
                "what makes a search space is a class with choices"
            )
        return found


def is_space(found: Any) -> bool:
    """Whether an object is a search space, or a class of them: it has choices."""
    return SearchSpace in getattr(found, "__mro__", type(found).__mro__) or hasattr(found, "choices")


def _parameters(made: Any) -> Mapping[str, Any]:
    try:
        return inspect.signature(made).parameters
    except (TypeError, ValueError):  # of classes written in C
        return {}
