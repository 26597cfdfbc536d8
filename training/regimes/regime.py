"""What a training does beyond the ordinary step: further terms of the loss, parameters of its own, what happens before
and after a step, state that a checkpoint holds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import TYPE_CHECKING, Any

from nas_core.config import Config

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from nas_core.batch import Batch
    from training.compute import Forward
    from training.teacher import Teacher


class Regime:
    """The ordinary training: every method does nothing. Another one overrides what it needs of them, which are here in
    the order in which the fit loop calls them.

    Random numbers come from (seed, step) alone, so that a resumed training draws the same. `last`: what it is there for
    is in the weights after the last step alone, not in those of the best epoch, nor in an average of them.
    """

    last: bool = False

    def begin(self, network: nn.Module, forward: Forward, example: Batch, seed: int) -> None:
        """Before the first step, also of a resumed training: the network is on its device, in training mode; `example`
        is a batch of what it will be trained on."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameters of its own, as groups of a `torch.optim.Optimizer`, which follow those of the network."""
        return []

    def optimizing(self, optimizer: torch.optim.Optimizer) -> None:
        """Once, before the first step: what updates the network. A resumed training restores its state after this."""

    def before_step(self, step: int, steps: int) -> None:
        """Before optimiser step `step` (from 0) of `steps` in the recipe."""

    def before_gradients(self, gradients: Callable[[], object]) -> None:
        """What needs gradients of the batch before those of the step itself. Each call of `gradients` gives the
        parameters of the network, also those that it was given just now, the gradients of the mean loss over the batch
        as the step would, with the same dropout; losses and statistics of such a pass count nowhere, and buffers stay
        as they were."""

    def watching(self) -> AbstractContextManager[object]:
        """Entered around the forward pass of every piece of a batch."""
        return nullcontext()

    def objective(self, loss: Tensor, piece: Batch, logits: Tensor) -> Tensor:
        """What is minimised of a piece of a batch, a mean over its samples, where `loss` is it without this regime."""
        return loss

    def after_step(self) -> None:
        """After the optimiser's step."""

    def end(self) -> None:
        """After the last step, with the weights that count in the network: the network is a plain one again."""

    def tensors(self) -> Mapping[str, Tensor]:
        """Its state beyond the optimiser's, for a checkpoint."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what `tensors` gave."""

    def description(self) -> Mapping[str, Any]:
        """Plain data beside the recipe that a checkpoint must agree with to be continued."""
        return {}


class Settings(Config):
    """A regime that a recipe may ask for: one field of `training.recipe.Recipe`, which is absent where it is None."""

    @abstractmethod
    def regime(self, teacher: Teacher | None) -> Regime:
        """One for one training. Raises UsageError where it needs a teacher and there is none."""


_NOTHING = nullcontext()


class Regimes(Regime):
    """Several regimes at once, each on top of those before it."""

    def __init__(self, regimes: Sequence[Regime]) -> None:
        self._regimes = regimes

        self.last = any(regime.last for regime in regimes)

    def __bool__(self) -> bool:
        return bool(self._regimes)

    def begin(self, network: nn.Module, forward: Forward, example: Batch, seed: int) -> None:
        for regime in self._regimes:
            regime.begin(network, forward, example, seed)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [group for regime in self._regimes for group in regime.parameter_groups()]

    def optimizing(self, optimizer: torch.optim.Optimizer) -> None:
        for regime in self._regimes:
            regime.optimizing(optimizer)

    def before_step(self, step: int, steps: int) -> None:
        for regime in self._regimes:
            regime.before_step(step, steps)

    def before_gradients(self, gradients: Callable[[], object]) -> None:
        for regime in self._regimes:
            regime.before_gradients(gradients)

    def watching(self) -> AbstractContextManager[object]:
        if not self._regimes:  # most trainings, at every step
            return _NOTHING
        stack = ExitStack()
        for regime in self._regimes:
            stack.enter_context(regime.watching())
        return stack

    def objective(self, loss: Tensor, piece: Batch, logits: Tensor) -> Tensor:
        for regime in self._regimes:
            loss = regime.objective(loss, piece, logits)
        return loss

    def after_step(self) -> None:
        for regime in self._regimes:
            regime.after_step()

    def end(self) -> None:
        for regime in self._regimes:
            regime.end()

    def tensors(self) -> Mapping[str, Tensor]:
        return {
            f"{number}/{name}": tensor
            for number, regime in enumerate(self._regimes)
            for name, tensor in regime.tensors().items()
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        for number, regime in enumerate(self._regimes):
            prefix = f"{number}/"
            own = {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}
            regime.restore(own)

    def description(self) -> Mapping[str, Any]:
        return {name: value for regime in self._regimes for name, value in regime.description().items()}
