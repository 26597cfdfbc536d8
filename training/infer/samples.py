"""From an argument of the command line to the inputs of a network: the kind of task says how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from training.inputs import GraphInputs, ImageInputs, Inputs

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
    """The samples of a file: an image file or `npz:FILE` for images, `graph:FILE` for a graph.

    Raises NotFoundError for a missing file, UsageError for one that the network cannot take.
    """
    from training.infer import graphs, images

    match inputs:
        case ImageInputs():
            return images.read(inputs, argument)
        case GraphInputs():
            return graphs.read(inputs, argument)
