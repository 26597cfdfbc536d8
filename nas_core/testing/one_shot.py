"""The contract of a one-shot strategy: `check` trains small supernets with it and yields what is wrong.

The rule it holds: what an epoch does depends on the strategy's state and on (seed, epoch) alone. So two epochs of one
instance are compared with two instances of one epoch each, the second of which is given the state of the first by way
of a file, while every global generator stands elsewhere.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nas_core.architecture import Architecture
from nas_core.batch import Batch, Data
from nas_core.choice import Choice
from nas_core.config import SizeConfig
from nas_core.errors import TrialError, UsageError
from nas_core.one_shot import Compute, OneShot, OneShotConfig, Progress
from nas_core.seeds import derive
from nas_core.space import SearchSpace
from nas_core.strategy import Setting
from nas_core.task import Task
from nas_core.testing.findings import collect

if TYPE_CHECKING:
    from torch import Tensor, nn

Factory = Callable[[Setting], OneShot]
Store = Callable[[Mapping[str, Any]], Mapping[str, Any]]

TOLERANCE = 1e-4  # of a sum of float32 weights


@dataclass(frozen=True)
class Case:
    """A strategy and what it is tried on. `make(space=None)`: a fresh supernet, the same at every call; `store`: a
    state as it comes back from a checkpoint; `probabilities`: the strengths of a group add up to 1."""

    factory: Factory
    setting: Setting
    make: Callable[..., nn.Module]
    data: Data
    store: Store
    probabilities: bool = True


def check(case: Case) -> Iterator[str]:
    """What is wrong with the strategies that the case's factory makes; their configuration is of two epochs."""
    yield from collect("config", _config, case)
    yield from collect("refusal", _refusal, case)
    yield from collect("start", _start, case)
    yield from collect("epochs", _epochs, case)
    yield from collect("loss that is not a number", _nan, case)


class Rigid(SearchSpace):
    """A space that says why it is not relaxable."""

    name = "rigid"
    tasks = frozenset({"image-classification", "node-classification"})
    choices = (Choice("width", (1, 2)),)
    why_not_relaxable = "its widths have no common network"

    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
        raise UsageError("a space that is there to be refused is not built")


class NoNumber:
    """Data with a loss that is not a number."""

    def __init__(self, data: Data) -> None:
        self.data, self.task = data, data.task

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        return self.data.batches(part, epoch, seed)

    def targets(self, part: str) -> Tensor:
        return self.data.targets(part)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return self.data.loss(output, batch) * math.nan

    def metrics(self, output: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return self.data.metrics(output, batch)


class Run:
    """One instance, driven as the loop drives it. `elsewhere` seeds the global generators outside of it."""

    def __init__(self, case: Case, elsewhere: int, data: Data | None = None) -> None:
        self.seed, self.elsewhere = case.setting.seed, elsewhere
        self.strategy = case.factory(case.setting)
        with self._seeded("start"):
            self.strategy.start(case.make, data or case.data, Compute())

    def step(self, epoch: int) -> Progress:
        with self._seeded(epoch):
            return self.strategy.step(epoch)

    def result(self) -> list[Architecture]:
        with self._seeded("result"):
            return list(self.strategy.result())

    @contextlib.contextmanager
    def _seeded(self, purpose: int | str) -> Iterator[None]:
        """Torch's generator as the loop seeds it; those of Python and numpy as chance leaves them."""
        import numpy as np
        import torch

        python, numpy = random.getstate(), np.random.get_state()
        random.seed(self.elsewhere)
        np.random.seed(self.elsewhere)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive(self.seed, purpose, "one-shot"))
                yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def differences(one: Any, other: Any, where: str = "state") -> Iterator[str]:
    """Where two states differ, bit for bit."""
    from torch import Tensor, equal

    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if one.keys() != other.keys():
            yield f"{where} has the keys {sorted(one)}, then {sorted(other)}"
            return
        for key in one:
            yield from differences(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for position, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from differences(left, right, f"{where}[{position}]")
    elif isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.dtype != other.dtype or not equal(one, other):
            yield f"{where} is another tensor"
    elif repr(one) != repr(other):
        yield f"{where} is {one!r}, then {other!r}"


def _config(case: Case) -> Iterator[str]:
    config = type(case.factory(case.setting)).Config
    if not issubclass(config, OneShotConfig):
        yield "Config is not derived from nas_core.one_shot.OneShotConfig"
    elif not config.model_config.get("frozen") or config.model_config.get("extra") != "forbid":
        yield "Config is not frozen, or does not refuse unknown keys"


def _refusal(case: Case) -> Iterator[str]:
    """A space that is not relaxable is refused when the strategy is made or started."""
    try:
        strategy = case.factory(replace(case.setting, space=Rigid()))
        strategy.start(case.make, case.data, Compute())
    except UsageError as error:
        if "not relaxable" not in str(error) or Rigid.why_not_relaxable not in str(error):
            yield f"a space that is not relaxable is refused without the reason: {error}"
        return
    yield "a space that is not relaxable is not refused with UsageError"


def _start(case: Case) -> Iterator[str]:
    one, other = Run(case, 1), Run(case, 2)
    yield from differences(one.strategy.state_dict(), other.strategy.state_dict(), "the state after a second start")
    tensors = [dict(run.strategy.supernet.state_dict()) for run in (one, other)]
    yield from differences(tensors[0], tensors[1], "the supernet after a second start")


def _epochs(case: Case) -> Iterator[str]:
    whole = Run(case, 1)
    first = whole.step(0)
    yield from _progress(case, whole, first)
    given = whole.strategy.state_dict()
    yield from _plain(given, "state")
    stored = case.store(given)
    second = whole.step(1)
    yield from _progress(case, whole, second)
    weights = dict(whole.strategy.supernet.state_dict())
    result = whole.result()
    for arch in result:
        yield from _legal(case, "result()", arch)

    resumed = Run(case, 2)
    resumed.strategy.load_state_dict(stored)
    yield from differences(stored, resumed.strategy.state_dict(), "the state that was given and taken")
    again = resumed.step(1)
    who = "an instance that was given the state after one epoch"
    for name in ("metrics", "strengths", "arch", "done"):
        mine, other = getattr(second, name), getattr(again, name)
        if repr(mine) != repr(other):
            yield f"{who} ends the next one with {name} {other} instead of {mine}"
    yield from differences(weights, dict(resumed.strategy.supernet.state_dict()), f"{who}: the supernet")
    if resumed.result() != result or whole.result() != result:
        yield f"{who} derives {resumed.result()} instead of {result}, which once more is {whole.result()}"
    yield from differences(whole.strategy.state_dict(), resumed.strategy.state_dict(), f"{who}: the state")
    if not any(True for _ in differences(stored, whole.strategy.state_dict())):
        yield "a second epoch leaves the state as it was"


def _progress(case: Case, run: Run, progress: Progress) -> Iterator[str]:
    if "train_loss" not in progress.metrics:
        yield f"the metrics have no train_loss: {sorted(progress.metrics)}"
    for name, value in progress.metrics.items():
        if type(value) is not float or not math.isfinite(value):
            yield f"metric {name} is {value!r}, not a finite float"
    groups: Mapping[str, Any] = run.strategy.supernet.groups
    if progress.strengths and progress.strengths.keys() != groups.keys():
        yield f"there are strengths of {sorted(progress.strengths)}, but the groups are {sorted(groups)}"
        return
    for name, strengths in progress.strengths.items():
        wanted = len(groups[name].options)
        if (
            not isinstance(strengths, tuple)
            or len(strengths) != wanted
            or any(type(score) is not float for score in strengths)
        ):
            yield f"the strengths of {name} are {strengths!r}; wanted a tuple of {wanted} floats"
        elif not all(0 <= score <= 1 + TOLERANCE for score in strengths):
            yield f"the strengths of {name} are {strengths}, not all between 0 and 1"
        elif case.probabilities and abs(sum(strengths) - 1) > TOLERANCE:
            yield f"the strengths of {name} add up to {sum(strengths)}"
    if progress.arch is not None:
        yield from _legal(case, "the architecture of an epoch", progress.arch)


def _legal(case: Case, what: str, arch: Architecture) -> Iterator[str]:
    reason = SearchSpace.illegal(case.setting.space, arch)
    if reason:
        yield f"{what} is illegal: {reason}"


def _plain(value: Any, where: str) -> Iterator[str]:
    """A state is nested dicts with text as keys and lists of text, numbers, truth values, None, and tensors."""
    from torch import Tensor

    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                yield f"{where} has the key {key!r}, which is no text"
            yield from _plain(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            yield from _plain(item, f"{where}[{position}]")
    elif not isinstance(value, Tensor) and not (value is None or type(value) in (str, int, float, bool)):
        yield f"{where} is a {type(value).__name__}, which a checkpoint cannot keep"


def _nan(case: Case) -> Iterator[str]:
    run = Run(case, 1, NoNumber(case.data))
    try:
        run.step(0)
    except TrialError as error:
        if error.reason != "nan-loss":
            yield f"it ends the training for the reason {error.reason}, not nan-loss"
        return
    yield "it does not end the training with TrialError"
