"""The contract of compression methods: `check` yields what is wrong with one, tried on small networks with images. A
method may refuse some of them, but not all.

No finding means that it holds. That what is left is any good cannot be checked here: it takes trained networks.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compressors.comparison import difference
from compressors.compressor import NEEDS, Change, Compressor, HasPlan, Plan, Round, Subject
from compressors.masks.density import density
from compressors.proof import SAME, prove
from compressors.target import COSTS, Target
from nas_core.config import validate
from nas_core.errors import NasError, UsageError, VerificationError
from nas_core.task import Task
from nas_core.testing.findings import collect
from search_spaces.counter import macs, params
from training.changes import changes_of, rebuilt
from training.data import load
from training.data.loading import Loading
from training.data.protocol import Source
from training.data.split import Split
from training.recipe import recipe
from training.tasks import sample_inputs

SHARE = 0.6  # of its cost that a network is to come to
WIDTH = 256  # of the feed-forward pair: enough for every method that divides one


class Residual(nn.Module):
    """Convolutions with a shortcut, a concatenation, and a classifier."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.conv1 = nn.Conv2d(8, 12, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(12)
        self.conv2 = nn.Conv2d(12, 8, 3, padding=1)
        self.side = nn.Conv2d(8, 4, 1)
        self.classifier = nn.Linear(12, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.conv2(torch.relu(self.norm1(self.conv1(x))))
        x = torch.cat([x, torch.relu(self.side(x))], 1)
        return self.classifier(x.mean((2, 3)))


class FeedForward(nn.Module):
    """Rows of the image as tokens, a wide feed-forward pair, and a classifier of their mean."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.pair = nn.Sequential(nn.Linear(width, WIDTH), nn.ReLU(), nn.Linear(WIDTH, width))
        self.classifier = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1, 2)
        return self.classifier((x + self.pair(x)).mean(1))


class Recurrent(nn.Module):
    """Rows of the image as steps."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.GRU(width, 12, num_layers=2, batch_first=True)
        self.classifier = nn.Linear(12, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.layers(x.flatten(1, 2))[0][:, -1])


def networks(source: Source, needs: Collection[str]) -> Mapping[str, nn.Module]:
    """The networks that have what a method needs, by name."""
    channels, _, width = source.task.images()
    outputs = source.task.outputs
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        if "recurrent" in needs:
            return {"recurrent": Recurrent(width, outputs)}
        if "ffn" in needs:
            return {"feed-forward": FeedForward(width, outputs)}
        if "batch-norm" in needs:
            return {"residual": Residual(channels, outputs)}
        return {"residual": Residual(channels, outputs), "feed-forward": FeedForward(width, outputs)}


def check(method: type[Compressor], settings: Mapping[str, Any] | None = None) -> Iterator[str]:
    """What is wrong with a method, with these settings beside its defaults."""
    declared = list(collect("declaration", _declaration, method))
    yield from declared
    if declared:
        return
    source = load("digits", Split(limit=100))
    refused = []
    for name, network in networks(source, method.needs).items():
        try:
            subject, made = _made(method, settings or {}, network.eval(), source)
        except UsageError as error:
            refused.append(f"{name}: it refuses the network: {error}")
            continue
        yield from collect(name, _behaviour, method, settings or {}, network, source, subject, made)
    if len(refused) == len(networks(source, method.needs)):
        yield from refused


def _declaration(method: Any) -> Iterator[str]:
    for name in ("Config", "needs", "compress"):
        if not hasattr(method, name):
            yield f"it has no {name}"
            return
    unknown = sorted(set(method.needs) - set(NEEDS))
    if unknown:
        yield f"needs {', '.join(unknown)}, which is none of {', '.join(NEEDS)}"


def _behaviour(
    method: type[Compressor],
    settings: Mapping[str, Any],
    network: nn.Module,
    source: Source,
    subject: Subject,
    made: Compressor,
) -> Iterator[str]:
    sequence = isinstance(made.rounds, Sequence) and bool(made.rounds)
    if not sequence or not all(isinstance(one, Round) for one in made.rounds):
        yield f"rounds is {made.rounds!r}; it must be a tuple of Round, of at least one"
        return
    before = copy.deepcopy(network.state_dict())
    plan = made.plan(network) if isinstance(made, HasPlan) else None
    if _differ(before, network.state_dict()):
        yield "plan changes the network"
    changed = copy.deepcopy(network)
    change = made.compress(changed, 0)
    if not isinstance(change, Change):
        yield f"compress returns {change!r}, not a Change"
        return
    yield from _told(network, changed, subject)
    yield from _proved(network, changed, change, subject)
    yield from _planned(plan, changed, made, subject)
    again = copy.deepcopy(network)
    _made(method, settings, network, source)[1].compress(again, 0)
    if _differ(changed.state_dict(), again.state_dict()):
        yield "the same seed gives another network the second time"


def _made(
    method: type[Compressor], settings: Mapping[str, Any], network: nn.Module, source: Source
) -> tuple[Subject, Compressor]:
    """A method for a network, with the first target that it takes; without one where it takes none."""
    chosen = recipe("quick", source.task, epochs=1, batch_size=32)
    data = source.bind(torch.device("cpu"), Loading(batch_size=32))
    inputs, base = sample_inputs(source.task, 4), _costs(network, source.task)
    config = validate(method.Config, settings, "settings")
    problem: NasError | None = None
    for targets in (*((Target(name, SHARE, True),) for name in COSTS), ()):
        subject = Subject(
            *(source.task, data, torch.device("cpu"), 7, inputs, chosen, 1, targets, base),
            initial=lambda: copy.deepcopy(network),
        )
        try:
            made = method(subject, config)
            if isinstance(made, HasPlan):
                made.plan(copy.deepcopy(network))
            return subject, made
        except UsageError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _told(network: nn.Module, changed: nn.Module, subject: Subject) -> Iterator[str]:
    """Whether the changes that are told rebuild the network."""
    found = rebuilt(network, changes_of(network, changed))
    found.load_state_dict(changed.state_dict())
    with torch.no_grad():
        apart = difference(changed.eval()(*subject.inputs), found.eval()(*subject.inputs))
    if apart:
        yield f"the network that is rebuilt from its changes answers otherwise (difference {apart:.3g})"


def _proved(network: nn.Module, changed: nn.Module, change: Change, subject: Subject) -> Iterator[str]:
    """Whether what has gone was nothing but what it is said to be."""
    for one in change.checks:
        if not one.difference <= one.tolerance:
            yield f"{one.name} differs by {one.difference:.3g}, and may by {one.tolerance:g}"
    if not change.removed:
        return
    try:
        checks = prove(network, changed, change.removed, [subject.inputs], recalibrated=change.recalibrate)
    except VerificationError as error:
        yield str(error)
        return
    for one in checks:
        if not one.difference <= one.tolerance:
            yield f"{one.name} differ by {one.difference:.3g} (at most {SAME:g})"


def _planned(plan: Plan | None, changed: nn.Module, made: Compressor, subject: Subject) -> Iterator[str]:
    """Whether what was planned is what it came to, where nothing is trained in between."""
    if len(made.rounds) > 1:
        return
    found = _costs(changed, subject.task)
    for name, value in found.items():
        if plan is not None and name in plan.costs and not math.isclose(plan.costs[name], value):
            yield f"{name} was planned to be {plan.costs[name]:,g} and is {value:,g}"
    for target in subject.targets:
        if found[target.metric] > target.limit(subject.base):
            yield f"{target} is not reached: {target.metric} is {found[target.metric]:,g}"


def _costs(network: nn.Module, task: Task) -> dict[str, float]:
    return {
        "params": float(params(network)),
        "macs": float(macs(network, sample_inputs(task))),
        "density": density(network),
    }


def _differ(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() != other.keys() or any(not torch.equal(one[name], other[name]) for name in one)
