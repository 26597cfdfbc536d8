"""Screens: checks of a candidate's network that may turn it down before, or while, it is trained.

A screen is a function whose parameters name what it wants to see:

    network   a copy of the network in evaluation mode, on the device; whatever is done to it changes nothing
    batch     the first batch of the training part (`nas_core.batch.Batch`), the same for all candidates
    task      `nas_core.task.Task`
    arch      the architecture
    epoch     how many epochs it has been trained
    report    the metrics that it has come to by then

It answers None, or a reason, `WORD` or `WORD: what was seen`; rejected trials are counted by the word. One that asks
for `epoch` or `report` is called after every epoch, any other one before the first.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas_core import refs
from nas_core.errors import TrialError, UsageError
from nas_core.seeds import derive

if TYPE_CHECKING:
    import torch
    from torch import nn

    from nas_core.batch import Batch

GROUP = "nas.screens"
BUILTIN = {"finite": "training.screens:finite", "blind": "training.screens:blind"}

SEEN = ("network", "batch", "task", "arch", "epoch", "report")
LEARNED = frozenset({"epoch", "report"})
ALIKE = 1e-6  # of the largest output: answers that differ by less are the same


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

    def reason(self, network: nn.Module, device: torch.device, **seen: Any) -> str | None:
        """Why the network of `seen` is turned down; None: it is not. Torch's generators are left as they were.

        Raises TrialError `screen` for an exception of the function, UsageError where it answers something else.
        """
        import torch

        given = {name: seen[name] for name in self.names if name != "network"}
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(derive(0, self.reference))
            if "network" in self.names:
                given["network"] = copy.deepcopy(network).to(device).eval()
            try:
                answer = self.function(**given)
            except (Exception, SystemExit) as error:  # whatever a user's function raises
                raise TrialError("screen", f"{self.reference}: {type(error).__name__}: {error}") from error
        if answer is None or (isinstance(answer, str) and answer.strip()):
            return answer
        raise UsageError(f"screen '{self.reference}' returned {answer!r}; it returns None, or the reason as text")


def load_screens(references: Sequence[str]) -> tuple[Screen, ...]:
    """Raises UsageError for unknown names, for one that is given twice, and for functions that ask for something else;
    NotFoundError for a missing file or object."""
    for reference in references:
        if list(references).count(reference) > 1:
            raise UsageError(f"screen '{reference}' is given twice; leave one out")
    return tuple(map(_loaded, references))


def _loaded(reference: str) -> Screen:
    loaded = refs.load_function(reference, BUILTIN, GROUP, "screen")
    listed = f"a screen names some of {', '.join(SEEN)}"
    names = []
    for name, parameter in inspect.signature(loaded.object).parameters.items():
        if name in SEEN and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            names.append(name)
        elif parameter.default is parameter.empty:
            raise UsageError(f"screen '{reference}' asks for '{name}'; {listed}")
    if not names:
        raise UsageError(f"screen '{reference}' asks for nothing; {listed}")
    return Screen(reference, loaded.object, tuple(names), loaded.file_hash)


def finite(network: nn.Module, batch: Batch) -> str | None:
    """`not-finite` where outputs, or gradients of their mean square, are not finite."""
    import torch

    output = batch.scored(network(*batch.inputs))[0]
    if not bool(torch.isfinite(output).all()):
        return "not-finite: its outputs"
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not parameters or not output.requires_grad:
        return None
    gradients = torch.autograd.grad(output.square().mean(), parameters, allow_unused=True)
    seen = [gradient for gradient in gradients if gradient is not None]
    return None if all(bool(torch.isfinite(gradient).all()) for gradient in seen) else "not-finite: its gradients"


def blind(network: nn.Module, batch: Batch) -> str | None:
    """`blind` where the network answers all samples of the batch alike."""
    import torch

    with torch.no_grad():
        output = batch.scored(network(*batch.inputs))[0]
    apart = (output - output[:1]).abs().max()
    return "blind: it answers all samples alike" if len(output) > 1 and apart <= ALIKE * output.abs().max() else None
