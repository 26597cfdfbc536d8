"""Whether a one-shot strategy finds what is there to be found: a whole search, of seconds, whose best path is known.

The toy: of each group's three windows of the input one tells the class and two are noise. So the path through the
telling windows is the best one whatever the weights, every strategy that goes down its losses finds it, and one that
goes up either of them does not. The toy can be divided: in the first round one group is searched, in later ones the
others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

from nas_core.architecture import Architecture
from nas_core.batch import Batch
from nas_core.choice import Choice
from nas_core.config import SizeConfig
from nas_core.one_shot import Compute, OneShot
from nas_core.partial import Partial
from nas_core.relax import Picker, derive_by_choice
from nas_core.seeds import derive, generator
from nas_core.space import SearchSpace
from nas_core.task import IMAGE_CLASSIFICATION, NODE_CLASSIFICATION, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

EPOCHS, BATCH = 20, 32
TELLING: Mapping[str, str] = {"colour": "right", "shape": "left", "texture": "middle"}
"""The best path."""

WINDOWS, WIDTH, CLASSES = ("left", "middle", "right"), 4, 4
WEIGHTED = "shape"  # the group whose candidates have weights of their own
SAMPLES: Mapping[str, int] = {"train": 512, "weights": 256, "alphas": 256, "valid": 256}


class Windows(SearchSpace):
    """Three groups, each with a choice of three windows of its part of the input."""

    name = "windows"
    tasks = frozenset({IMAGE_CLASSIFICATION, NODE_CLASSIFICATION})
    choices = tuple(Choice(name, WINDOWS) for name in TELLING)
    rounds = 4

    def initial(self) -> SearchSpace:
        return self._round(Architecture(self.name, dict.fromkeys(TELLING, WINDOWS[0])), frozenset({WEIGHTED}), "first")

    def divide(self, arch: Architecture) -> SearchSpace:
        return self._round(arch, frozenset(TELLING) - {WEIGHTED}, "next")

    def _round(self, arch: Architecture, searched: frozenset[str], name: str) -> SearchSpace:
        given = {group: value for group, value in arch.values.items() if group not in searched}
        return Partial(self, f"{self.name}-{name}", given, dict.fromkeys(given, WINDOWS))

    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
        raise NotImplementedError("the toy is there to be searched")

    def network(self, picker: Picker, task: Task, size: SizeConfig) -> nn.Module:
        return _network(picker)

    def derive(self, strengths: Mapping[str, Sequence[float]]) -> Architecture:
        return derive_by_choice(self, strengths)


class Samples:
    """Codes of the class, and noise around them, in the telling windows; noise of the same size in the others."""

    task = Task(kind=IMAGE_CLASSIFICATION, input_shape=(len(TELLING) * len(WINDOWS) * WIDTH,), outputs=CLASSES)

    def __init__(self) -> None:
        import torch

        rng = generator("windows")
        codes = rng.choice((-1.0, 1.0), (CLASSES, len(TELLING), WIDTH))
        self.parts: dict[str, tuple[Tensor, Tensor]] = {}
        for part, count in SAMPLES.items():
            classes = rng.integers(CLASSES, size=count)
            x = rng.normal(0, 2**0.5, (count, len(TELLING), len(WINDOWS), WIDTH))
            for group, window in enumerate(TELLING.values()):
                noise = rng.normal(0, 1, (count, WIDTH))
                x[:, group, WINDOWS.index(window)] = codes[classes, group] + noise
            self.parts[part] = (torch.tensor(x.reshape(count, -1), dtype=torch.float32), torch.tensor(classes))

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        import torch

        x, y = self.parts[part]
        order = torch.from_numpy(generator(seed, epoch, part).permutation(len(x)))
        return (Batch((x[chosen],), y[chosen]) for chosen in order.split(BATCH))

    def targets(self, part: str) -> Tensor:
        return self.parts[part][1]

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        from torch.nn.functional import cross_entropy

        return cross_entropy(output, batch.target)

    def metrics(self, output: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        import torch

        right = output.argmax(1).eq(batch.target).sum()
        return {"accuracy": right, "loss": self.loss(output, batch) * len(output), "count": torch.tensor(len(output))}


def check(strategy: OneShot, relax: Callable[[SearchSpace, Task, SizeConfig], nn.Module], seed: int) -> Iterator[str]:
    """What is wrong with the end of a search: by a new strategy on `Windows()`, of EPOCHS epochs, in batches of BATCH.
    `relax`: a fresh supernet of a space, the same at every call; `seed`: of the strategy's setting."""
    import torch

    space, data = Windows(), Samples()
    losses: list[float] = []
    strengths: Mapping[str, tuple[float, ...]] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "start", "one-shot"))
        strategy.start(lambda other=None: relax(other or space, data.task, space.Size()), data, Compute())
        for epoch in range(EPOCHS):
            torch.manual_seed(derive(seed, epoch, "one-shot"))
            progress = strategy.step(epoch)
            losses.append(progress.metrics["train_loss"])
            strengths = progress.strengths
            if progress.done:
                break
        result = list(strategy.result())
    if not losses[-1] < losses[0]:
        yield f"the training loss goes from {losses[0]:.3f} to {losses[-1]:.3f}: the weights learn nothing"
    reached = [values[WINDOWS.index(TELLING[name])] for name, values in strengths.items()]
    chance = 1 / len(WINDOWS)
    if reached and not sum(reached) / len(reached) > chance:
        told = ", ".join(f"{value:.3f}" for value in reached)
        yield f"the windows that tell the class have the strengths {told}, no more than the {chance:.3f} of chance"
    found = result[0] if result else _most_accurate(strategy, data)
    if dict(found.values) != dict(TELLING):
        what = "what is derived is" if result else "the most accurate path of the supernet is"
        yield f"{what} {_text(found.values)}, where the best path is {_text(TELLING)}"


def _most_accurate(strategy: OneShot, data: Samples) -> Architecture:
    """Of all paths of the supernet, on the validation part."""
    import torch

    space, batches = Windows(), list(data.batches("valid", 0, 0))
    right = {}
    strategy.supernet.eval()
    for values in product(WINDOWS, repeat=len(TELLING)):
        arch = Architecture(space.name, dict(zip(TELLING, values, strict=True)))
        mix = strategy.supernet.mix_of(arch)
        with torch.no_grad():
            outputs = [strategy.supernet(batch.inputs, mix) for batch in batches]
        pairs = zip(outputs, batches, strict=True)
        right[arch] = sum(int(data.metrics(output, batch)["accuracy"]) for output, batch in pairs)
    return max(right, key=lambda arch: right[arch])


def _text(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _network(picker: Picker) -> nn.Module:
    """The groups beside each other, and a linear classifier of what they let through."""
    import torch
    from torch import nn

    class Window(nn.Module):
        def __init__(self, place: int) -> None:
            super().__init__()
            self.place = place

        def forward(self, x: Tensor) -> Tensor:
            return x[:, self.place * WIDTH : (self.place + 1) * WIDTH]

    def candidate(name: str, place: int) -> nn.Module:
        return nn.Sequential(Window(place), nn.Linear(WIDTH, WIDTH)) if name == WEIGHTED else Window(place)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.groups = nn.ModuleList()
            for name in TELLING:
                module = picker.module(
                    name, {window: partial(candidate, name, WINDOWS.index(window)) for window in WINDOWS}
                )
                assert module is not None
                self.groups.append(module)
            self.classifier = nn.Linear(len(TELLING) * WIDTH, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            parts = x.chunk(len(TELLING), 1)
            return self.classifier(torch.cat([group(part) for group, part in zip(self.groups, parts, strict=True)], 1))

    return Network()
