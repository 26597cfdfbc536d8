"""`nas strategies check` of a one-shot strategy: its contract on a small supernet and embedded data."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_core.config import SizeConfig, validate
from nas_core.errors import UsageError
from nas_core.evaluation import Objective
from nas_core.space import SearchSpace
from nas_core.strategy import Setting
from nas_core.task import Task
from nas_core.testing import convergence
from nas_core.testing.findings import collect
from nas_core.testing.one_shot import Case, check

if TYPE_CHECKING:
    from torch import nn

    from nas_core.one_shot import OneShot
EPOCHS = {"epochs": 2, "batch_size": 32}
SAMPLES = 100  # where they are computed apart
OBJECTIVES = (Objective("accuracy", "max"),)


def findings(strategy: Any, space: SearchSpace, size: SizeConfig, config: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a strategy's class, with these settings, on a supernet of the space at this size, without
    constraints; and whether a whole search on a toy finds the path that is known to be the best.

    Scores need not be probabilities. Raises UsageError for a space that is not relaxable or that the strategy refuses,
    for a task without embedded data, and for settings of the length of a search, which is the suite's.
    """
    from search_spaces.supernet.supernet import relaxable
    from training.data.loading import Loading
    from training.data.split import Split
    from training.tasks import all_kinds

    relaxable(space)
    for name in EPOCHS.keys() & config:
        raise UsageError(f"strategy.{name} is set by the suite, which searches for few epochs; leave it out")
    made = partial(_made, strategy, config)
    made(EPOCHS, Setting(space, 0, OBJECTIVES))
    kinds = (kind for kind in all_kinds() if kind.name in space.tasks)
    embedded = (kind.embedded(Split(limit=SAMPLES if kind.apart else None)) for kind in kinds)
    source = next((found for found in embedded if found is not None), None)
    if source is None:
        raise UsageError(f"space '{space.name}' is for {', '.join(sorted(space.tasks))}, of which no data are embedded")
    with tempfile.TemporaryDirectory() as folder:
        yield from check(
            Case(
                partial(made, EPOCHS),
                Setting(space, 0, OBJECTIVES),
                lambda other=None: _supernet(other or space, source.task, size),
                source.bind("cpu", Loading(batch_size=EPOCHS["batch_size"], channels_last=True)),
                partial(_through_a_file, Path(folder)),
                probabilities=False,
            )
        )
    yield from collect("convergence", _converges, made)


def _converges(made: Callable[[Mapping[str, Any], Setting], OneShot]) -> Iterator[str]:
    whole = {"epochs": convergence.EPOCHS, "batch_size": convergence.BATCH}
    yield from convergence.check(made(whole, Setting(convergence.Windows(), 0, OBJECTIVES)), _supernet, 0)


def _made(kind: Any, config: Mapping[str, Any], loop: Mapping[str, Any], setting: Setting) -> OneShot:
    """A strategy whose loop is of this length; that of a strategy inside, where there is one."""
    inside = "inner_config" in kind.Config.model_fields
    whole = {**config, "inner_config": {**config.get("inner_config", {}), **loop}} if inside else {**config, **loop}
    made: OneShot = kind(setting, validate(kind.Config, whole, "strategy"))
    return made


def _supernet(space: SearchSpace, task: Task, size: SizeConfig) -> nn.Module:
    """A fresh supernet, the same at every call."""
    import torch

    from search_spaces.supernet.supernet import Supernet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Supernet(space, task, size)


def _through_a_file(folder: Path, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """A state as it comes back from a checkpoint."""
    from training import checkpoint

    tensors, plain = checkpoint.pack(state)
    checkpoint.save(folder, checkpoint.Checkpoint(1, tensors, plain))
    found = checkpoint.load(folder)
    assert found is not None
    return checkpoint.unpack(found.tensors, found.state)
