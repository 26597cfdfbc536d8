"""Layers that screens must turn down, each by the screen that is there for it, and layers that must pass them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import pytest
from sklearn import datasets

from nas_core.architecture import Architecture
from nas_core.errors import Rejected
from nas_core.evaluation import Context
from nas_core.seeds import derive
from nas_core.space import known_by_name
from nas_core.strategy import Proposal
from search_spaces.evonorm.space import EvoNorm
from search_spaces.hosts import HOSTS
from training.data import load
from training.data.split import Split
from training.evaluators.screened import Screened
from training.evaluators.train import Train
from training.fit import Training
from training.recipe import recipe
from training.screens import load_screens
from training.screens.quality import Quality
from training.screens.stability import Stability

SPACE = EvoNorm()

# Nobody wants these: formula, and what they must be turned down by when all are asked in this order.
PLANTED: Mapping[str, tuple[str, str]] = {
    "identity": ("x + 0", "stability"),
    "relu": ("max(x, 0)", "stability"),
    "exp-exp": ("exp(exp(x))", "quality"),
    "square": ("square(x)", "quality"),
    "constant": ("x*0", "quality"),
    "x/0": ("x / 0", "quality"),
}
SCREENS = ("finite", "blind", "quality(steps=60)", "stability(steps=20)")
UNSOUND = {"identity": "linear", "relu": "explodes", "exp-exp": "explodes", "square": "explodes", "constant": "blind",
           "x/0": "not finite"}  # fmt: skip


@cache
def evaluator(stages: int = 3) -> Train:
    """Digits, and stages of one block, the first with 8 channels."""
    source = load("digits", Split())
    learned = recipe("quick", source.task, epochs=3, batch_size=32, precision="float32", lr=0.02)
    return Train(
        SPACE,
        source,
        SPACE.Size.parse(f"host=resnet,width=8,depth=1,stages={stages}"),
        learned,
        device="cpu",
        threads=1,
    )


def in_host(host: str, made: Path) -> Train:
    """Digits as images and as rows of a table, the karate club, and for patches Fashion-MNIST; all hosts have groups of
    several channels. `made` is a folder for what is made, of patches the one with Fashion-MNIST."""
    if host == "mlp":
        digits = datasets.load_digits()
        rows = numpy.column_stack([digits.data, digits.target])
        header = ",".join([*(f"pixel{number}" for number in range(64)), "digit"])
        numpy.savetxt(made / "digits.csv", rows, fmt="%d", delimiter=",", header=header, comments="")
    small = {"width": 12, "depth": 1, "stages": 2}
    data, size, epochs = {
        "vit": (f"idx:{made}", {"depth": 1}, 2),
        "mlp": (f"csv:{made / 'digits.csv'}?target=digit&task=classification", {}, 3),
        "gcn": ("karate", {}, 100),
    }.get(host, ("digits", small, 3))
    source, batch = load(data, Split(limit=4000)), 64 if host == "vit" else 32
    learned = recipe("quick", source.task, epochs=epochs, batch_size=batch, precision="float32", lr=0.05)
    return Train(SPACE, source, SPACE.Size.preset("search", host=host, **size), learned, device="cpu", threads=1)


def turned_down(arch: Architecture, screens: tuple[str, ...], folder: Path, train: Train | None = None) -> str | None:
    """The word of the screen that turns the layer down before its training."""
    reports = Screened(train or evaluator(), load_screens(screens)).evaluate(Proposal(arch), None, Context(1, folder))
    try:
        next(reports)
    except Rejected as error:
        return error.reason if error.seconds > 0 else "no seconds"
    finally:
        reports.close()  # type: ignore[attr-defined]
    return None


@pytest.mark.parametrize("name", PLANTED)
def test_planted_layers_are_turned_down_by_the_step_that_is_there_for_them(name: str, tmp_path: Path) -> None:
    """The identity and ReLU learn for a while, so that only the ascent finds them; the others never learn."""
    formula, step = PLANTED[name]
    arch = SPACE.from_text(formula)
    reason = SPACE.unsound(arch)
    assert reason is not None
    assert reason.split(":")[0] == UNSOUND[name]
    assert turned_down(arch, ("quality(steps=40)", "stability"), tmp_path) == step


@pytest.mark.parametrize("name", ["bn-relu", "gn-relu", "frn", "evonorm-s0"])
def test_known_layers_pass(name: str, tmp_path: Path) -> None:
    assert turned_down(SPACE.named[name], SCREENS, tmp_path, in_host("vgg", tmp_path)) is None


@pytest.mark.slow
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", SPACE.named)
def test_all_known_layers_pass_on_all_hosts(name: str, host: str, request: pytest.FixtureRequest) -> None:
    """Attention, which no layer stands behind, explodes by itself in an ascent of the usual rate."""
    folder: Path = request.getfixturevalue("tmp_path")
    made = request.getfixturevalue("shared_data") / "fashion-mnist" if host == "vit" else folder
    slow = ("finite", "blind", "quality(steps=100)", "stability(steps=20, rate=0.01)")
    screens = slow if host == "vit" else SCREENS
    assert turned_down(SPACE.named[name], screens, folder, in_host(host, made)) is None


def test_frn_of_rows_is_a_sign(tmp_path: Path) -> None:
    """It sees one value per channel, x / |x|, which has no gradient: the last layer learns from random features."""
    train = in_host("mlp", tmp_path)
    low, high = ("quality(steps=60, bar=2)",), ("quality(steps=60, bar=6)",)
    assert turned_down(SPACE.named["frn"], low, tmp_path, train) is None
    assert turned_down(SPACE.named["frn"], high, tmp_path, train) == "quality"
    assert turned_down(SPACE.named["bn-relu"], high, tmp_path, train) is None


def norms(formula: str, **settings: Any) -> list[float]:
    train = evaluator(stages=1)
    arch = SPACE.named[formula] if formula in SPACE.named else SPACE.from_text(formula)
    batch = next(iter(train.data.batches("train", 0, 0)))
    training = Training(train.made(arch, derive(0)), train.data, train.recipe, train.device, 0, None)
    return list(Stability(**settings).norms(training, batch))


def test_the_ascent_raises_the_norm() -> None:
    """For what grows as exp does beyond the bar in two steps, although the space knows nothing against it; for known
    layers step by step, and a little."""
    exponential = "exp(x / rms_chw(x))"
    assert SPACE.unsound(SPACE.from_text(exponential)) is None
    one, two, three = norms(exponential, steps=2)
    assert one < 10
    assert one < two / 100 < three / 1e4
    assert three > 1e8
    known = norms("gn-relu", steps=12)
    assert len(known) == 13
    assert sorted(known) == known
    assert known[-1] < 10


def test_the_ascent_is_that_of_the_norm() -> None:
    """One step of it, by finite differences: along the direction that it takes the norm rises as fast as its gradient
    is long."""
    train, rate = evaluator(stages=1), 1e-3
    batch = next(iter(train.data.batches("train", 0, 0)))
    network = train.made(SPACE.named["gn-silu"], 1).double()
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    batch = replace(batch, inputs=tuple(value.double() for value in batch.inputs))
    training = Training(network, train.data, train.recipe, train.device, 0, None)
    first, second = list(Stability(steps=1, rate=rate).norms(training, batch))
    moved = {name: weight.detach() - before[name] for name, weight in network.named_parameters()}
    length = sum(float(step.square().sum()) for step in moved.values()) ** 0.5 / rate
    assert second - first == pytest.approx(rate * length**2, rel=0.02)


def test_planted_layers_are_no_baselines() -> None:
    known = {SPACE.identity(arch) for arch in known_by_name(SPACE, ["named"]).values()}
    assert known.isdisjoint(SPACE.identity(SPACE.from_text(formula)) for formula, _ in PLANTED.values())


def test_what_the_quality_screen_trains_is_the_beginning_of_the_training() -> None:
    """As many steps as an epoch has are the first epoch, batches and rate included."""
    train, found = evaluator(), {}

    def training(network: Any) -> Training:
        found["it"] = Training(network, train.data, train.recipe, train.device, 0, None)
        return found["it"]

    first = Training(train.made(SPACE.named["gn-relu"], 1), train.data, train.recipe, train.device, 0, None)
    wanted = first.epoch(0)["val_accuracy"]
    steps = first.steps_per_epoch
    for bar, passes in ((wanted * 10 - 1e-6, True), (wanted * 10 + 1e-6, False)):
        reason = Quality(steps=steps, bar=bar)(train.made(SPACE.named["gn-relu"], 1), training, train.task)
        assert (reason is None) == passes
        assert found["it"].evaluate("valid")["val_accuracy"] == wanted
