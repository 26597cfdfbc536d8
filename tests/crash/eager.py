"""`nas` with a checkpoint after every epoch, and with forks of itself where it would start interpreters."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence

from nas_cli.app import run as nas
from training.evaluators.train import Train


def run(arguments: Sequence[str]) -> int:
    defaults = Train.__init__.__kwdefaults__
    assert defaults is not None
    defaults["checkpoint_seconds"] = 0.0
    forks = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: forks  # type: ignore[assignment]
    return nas(list(arguments))
