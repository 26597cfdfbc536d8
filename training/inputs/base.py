"""What every deployed network says of its inputs and outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nas_core.config import Config

if TYPE_CHECKING:
    from numpy.typing import NDArray

Tensors = tuple["NDArray[Any]", ...]


class Inputs(Config):
    """What is to be known of a kind of task's inputs beyond their shapes. `kind` names it (`training.tasks`)."""

    kind: str

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the classes that the outputs stand for, in order; none where they are numbers."""
        return ()

    @property
    def exclusive(self) -> bool:
        """Whether of the named outputs one is right, so that their probabilities sum to 1; else each is or is not."""
        return True

    def in_own_unit(self, answers: NDArray[Any]) -> NDArray[Any]:
        """What the network answers, where it answers with numbers, in the unit of the data; by default as it is."""
        return answers

    def normalised(self, tensors: Tensors) -> Tensors:
        """Inputs as the network itself sees them, of those that `nas infer` reads; by default the same."""
        return tensors

    def restored(self, tensors: Tensors) -> Tensors:
        """Inputs that become these by normalisation; by default the same."""
        return tensors
