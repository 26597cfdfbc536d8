"""A function that turns candidates down."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas_core.errors import TrialError, UsageError
from nas_core.seeds import derive
from nas_core.task import Task

if TYPE_CHECKING:
    import torch
    from torch import nn

SEEN = ("network", "batch", "task", "arch", "training", "epoch", "report")
LEARNED = frozenset({"epoch", "report"})


@dataclass(frozen=True, slots=True)
class Screen:
    """A function that turns candidates down; `names` are those of SEEN that it asks for."""

    reference: str
    function: Callable[..., Any]
    names: tuple[str, ...]
    file_hash: str | None = None

    @property
    def learned(self) -> bool:
        """Whether it looks at trained networks."""
        return not LEARNED.isdisjoint(self.names)

    def check(self, task: Task) -> None:
        """Raises UsageError for a task that the screen cannot look at; it says so by a method `check(task)`."""
        check = getattr(self.function, "check", None)
        if check is not None:
            check(task)

    def reason(self, network: nn.Module, device: torch.device, **seen: Any) -> str | None:
        """Why the network of `seen` is turned down; None: it is not. Torch's generators are left as they were.

        Raises TrialError `screen` for an exception of the function, whose own TrialErrors pass through; UsageError
        where it answers something else.
        """
        import torch

        given = {name: seen[name] for name in self.names if name != "network"}
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(derive(0, self.reference))
            if "network" in self.names:
                given["network"] = copy.deepcopy(network).to(device).eval()
            try:
                answer = self.function(**given)
            except (TrialError, UsageError):
                raise
            except (Exception, SystemExit) as error:  # whatever a user's function raises
                raise TrialError("screen", f"{self.reference}: {type(error).__name__}: {error}") from error
        if answer is None or (isinstance(answer, str) and answer.strip()):
            return answer
        raise UsageError(f"screen '{self.reference}' returned {answer!r}; it returns None, or the reason as text")


def asked_of(function: Callable[..., Any], reference: str) -> tuple[str, ...]:
    """The names of SEEN that a function asks for. Raises UsageError for one that asks for something else."""
    listed = f"a screen names some of {', '.join(SEEN)}"
    names = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name in SEEN and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            names.append(name)
        elif parameter.default is parameter.empty:
            raise UsageError(f"screen '{reference}' asks for '{name}'; {listed}")
    if not names:
        raise UsageError(f"screen '{reference}' asks for nothing; {listed}")
    return tuple(names)
