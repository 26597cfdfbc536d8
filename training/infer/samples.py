"""From an argument of the command line to the inputs of a network: the kind of task says how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from training.inputs import Inputs
from training.tasks import find

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Samples:
    """Inputs as a deployed network gets them, before any normalisation, and what their rows are called.

    `tensors` is (images [n, c, h, w] from 0 to 1,) or (features [nodes, f], edges [2, e]).
    """

    names: tuple[str, ...]
    tensors: tuple[NDArray[Any], ...]
    apart: bool = True  # whether rows can be run apart from one another
    note: str = ""  # what a user should know of how they were read


def read(inputs: Inputs, argument: str) -> Samples:
    """The samples of a file, as its kind of task reads: an image file or `npz:FILE`, or `graph:FILE`.

    Raises NotFoundError for a missing file, UsageError for one that the network cannot take.
    """
    return find(inputs.kind).read(inputs, argument)
