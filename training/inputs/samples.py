"""What a deployed network is given: samples of a file, and files whose answers are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class Samples:
    """Inputs as a deployed network gets them, before any normalisation, and what their rows are called.

    `tensors` is (images [n, c, h, w] from 0 to 1,), (features [nodes, f], edges [2, e]), or (tokens [n, t],). Where a
    network answers at every position, `asked` are for each name the row and the position whose answer it is, and
    `targets` [n, t] what should be answered, -1 where that is not known.
    """

    names: tuple[str, ...]
    tensors: tuple[NDArray[Any], ...]
    apart: bool = True  # whether rows can be run apart from one another
    note: str = ""  # what a user should know of how they were read
    possible: NDArray[np.bool_] | None = None  # [n, outputs]: which outputs answer what a row asks; None: all
    asked: tuple[tuple[int, int], ...] = ()
    targets: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Proof:
    """`argument` is what `nas infer` is given, with `{}` for the folder in which `name` lies; `seen` are the inputs of
    the network as training has them."""

    name: str
    content: bytes
    argument: str
    seen: tuple[Tensor, ...]
