"""From an argument of the command line to the inputs of a network: the kind of task says how."""

from __future__ import annotations

from training.inputs import Inputs
from training.inputs.samples import Samples
from training.tasks import find


def read(inputs: Inputs, argument: str) -> Samples:
    """The samples of a file, as its kind of task reads: an image file or `npz:FILE`, or `graph:FILE`.

    Raises NotFoundError for a missing file, UsageError for one that the network cannot take.
    """
    return find(inputs.kind).read(inputs, argument)
