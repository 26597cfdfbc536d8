"""Screens: checks of a candidate's network that may turn it down before, or while, it is trained.

A screen is a function, or an object that is called, whose parameters name what it wants to see:

    network   a copy of the network in evaluation mode, on the device; whatever is done to it changes nothing
    batch     the first batch of the training part (`nas_core.batch.Batch`), the same for all candidates
    task      `nas_core.task.Task`
    arch      the architecture
    training  makes the ordinary training of a network (`training.fit.Training`), with the candidate's data and recipe
    epoch     how many epochs it has been trained
    report    the metrics that it has come to by then

It answers None, or a reason, `WORD` or `WORD: what was seen`; rejected trials are counted by the word. One that asks
for `epoch` or `report` is called after every epoch, any other one before the first. One per file, listed here.
"""

from __future__ import annotations

from collections.abc import Sequence

from nas_core import refs
from nas_core.errors import UsageError
from training.screens.screen import Screen, asked_of

GROUP = "nas.screens"
BUILTIN = {
    "finite": "training.screens.finite:finite",
    "blind": "training.screens.blind:blind",
    "quality": "training.screens.quality:Quality",
    "stability": "training.screens.stability:Stability",
}


def load_screens(references: Sequence[str]) -> tuple[Screen, ...]:
    """Raises UsageError for unknown names, for one that is given twice, and for functions that ask for something else;
    NotFoundError for a missing file or object."""
    for reference in references:
        if list(references).count(reference) > 1:
            raise UsageError(f"screen '{reference}' is given twice; leave one out")
    return tuple(map(_loaded, references))


def _loaded(reference: str) -> Screen:
    loaded = refs.load_function(reference, BUILTIN, GROUP, "screen")
    return Screen(reference, loaded.object, asked_of(loaded.object, reference), loaded.file_hash)
