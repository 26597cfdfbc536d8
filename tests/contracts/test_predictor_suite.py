"""The predictor suites find nothing in good predictors, and each of their checks catches the defect it is there for."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import numpy
import pytest
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

import predictors.testing
from nas_core.architecture import Architecture
from nas_core.config import Config as BaseConfig
from nas_core.errors import UsageError
from nas_core.tokens import one_hot
from predictors.forward_pass import ForwardPass, weights
from predictors.need import Need
from predictors.proxy import EVERY_TASK, IMAGES, Unscorable
from predictors.surrogate import Problem
from predictors.testing import check_proxy, check_surrogate
from search_spaces.nasbench201.space import NasBench201, Size
from search_spaces.nasbench_graph.space import NasBenchGraph
from training.data import load
from training.data.source import Source
from training.data.split import Split

CELLS = NasBench201()
ME = "toy_proxies"


@cache
def digits() -> Source:
    return load("digits", Split())


class Named:
    """Where toys are found: `toy_proxies:Name`, as an installed module would be."""

    def __init__(self, kinds: Mapping[str, type[Any]]) -> None:
        for name, kind in kinds.items():
            setattr(self, name, kind)


# -- proxies --------------------------------------------------------------------------------------------------


class GoodProxy:
    """The norm of the gradients, and of the weights."""

    class Config(BaseConfig):
        power: float = Field(1.0, description="of the norms")

    tasks: ClassVar[frozenset[str]] = EVERY_TASK
    needs: ClassVar[Need] = Need.GRADIENTS
    components: ClassVar[tuple[str, ...]] = ("gradients", "weights")

    def __init__(self, config: Any) -> None:
        self.config = config

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        gradients = sum(float(gradient.square().sum()) for gradient in forward.passed.gradients.values())
        return {
            "gradients": gradients**self.config.power,
            "weights": sum(float(weight.detach().square().sum()) for weight in weights(forward.model).values()),
        }


class Dead(GoodProxy):
    """Minus infinity where it cannot tell is right."""

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        found = dict(super().score(forward))
        if found["gradients"] < 3:
            found["gradients"] = -math.inf
        return found


class LooseProxyConfig(GoodProxy):
    class Config(BaseModel):  # type: ignore[assignment]
        model_config = ConfigDict(frozen=True)
        power: float = Field(1.0, description="of the norms")


class UndescribedProxyConfig(GoodProxy):
    class Config(GoodProxy.Config):
        speed: int = 3


class MutableProxyConfig(GoodProxy):
    class Config(GoodProxy.Config):
        model_config = ConfigDict(frozen=False)


class OneName(GoodProxy):
    components = "gradients"  # type: ignore[assignment]


class DottedName(GoodProxy):
    components = ("gradients.sum", "weights")


class NoNeed(GoodProxy):
    needs = 1  # type: ignore[assignment]


class Forgets(GoodProxy):
    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        return {"gradients": 1.0}


class NotANumber(GoodProxy):
    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        return {**super().score(forward), "weights": math.nan}


class Infinite(GoodProxy):
    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        return {**super().score(forward), "weights": math.inf}


class Constant(GoodProxy):
    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        return {**super().score(forward), "weights": 4.0}


class NothingToMeasure(GoodProxy):
    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        raise Unscorable("no reason at all")


class GlobalNoise(GoodProxy):
    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        return {**super().score(forward), "weights": float(torch.randn(()))}


class PythonNoise(GoodProxy):
    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        random.random()
        return super().score(forward)


class Seeds(GoodProxy):
    """The same numbers every time, but of the generator of all."""

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        torch.manual_seed(0)
        return {**super().score(forward), "weights": float(torch.randn(())) + super().score(forward)["weights"]}


class Fickle(GoodProxy):
    """Counts how often it was asked."""

    asked = 0

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        self.asked += 1
        return {**super().score(forward), "weights": float(self.asked)}


class TrainsOn(GoodProxy):
    """Moves the running statistics."""

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        with torch.no_grad():
            forward.run(forward.model)
        return super().score(forward)


class ChangesWeights(GoodProxy):
    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        found = super().score(forward)
        with torch.no_grad():
            next(iter(weights(forward.model).values())).abs_()
        return found


class Evaluates(GoodProxy):
    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        forward.model.eval()
        return super().score(forward)


class LeavesGradients(GoodProxy):
    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        for weight in weights(forward.model).values():
            weight.grad = torch.ones_like(weight)
        return super().score(forward)


class Freezes(GoodProxy):
    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        found = super().score(forward)
        forward.model.requires_grad_(False)
        return found


class LeavesHooks(GoodProxy):
    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        forward.model.register_forward_hook(lambda *_: None)
        return super().score(forward)


class ChangesInputs(GoodProxy):
    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        found = super().score(forward)
        forward.batch.inputs[0][0] += 1
        return found


class SeesOthers(GoodProxy):
    """Its score depends on what else was asked of the shared pass."""

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        return {
            **super().score(forward),
            "weights": float(len(forward.passed.channels)) + super().score(forward)["weights"],
        }


class Fails(GoodProxy):
    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        raise RuntimeError("no such layer")


class ImagesOnly(GoodProxy):
    tasks = IMAGES


def found_in(kind: type[Any], monkeypatch: pytest.MonkeyPatch, source: Source | None = None) -> str:
    import sys

    monkeypatch.setitem(sys.modules, ME, Named({kind.__name__: kind}))  # type: ignore[arg-type]
    source = source or digits()
    space: Any = CELLS if source.task.kind in CELLS.tasks else NasBenchGraph()
    size = Size(channels=2, cells=1) if space is CELLS else space.Size(hidden=8)
    return "\n".join(check_proxy(f"{ME}:{kind.__name__}", space, size, source, samples=4, beside=["fisher"]))


@pytest.mark.parametrize("kind", [GoodProxy, Dead])
def test_nothing_is_found_in_a_good_proxy(kind: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert found_in(kind, monkeypatch) == ""


def test_nothing_is_found_on_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found_in(GoodProxy, monkeypatch, load("karate", Split())) == ""
    assert "nothing was scored" in found_in(ImagesOnly, monkeypatch, load("karate", Split()))


@pytest.mark.parametrize(
    ("kind", "finding"),
    [
        (LooseProxyConfig, "config: Config does not refuse unknown keys"),
        (MutableProxyConfig, "config: Config is not frozen"),
        (UndescribedProxyConfig, "config: 'speed' has no description"),
        (OneName, "declaration: components is 'gradients'"),
        (DottedName, "declaration: components"),
        (NoNeed, "declaration: needs is 1"),
        (Forgets, "score: score gives ['gradients']"),
        (NotANumber, "score: weights is nan"),
        (Infinite, "score: weights is inf"),
        (Constant, "weights is 4.0 for all of 4"),
        (NothingToMeasure, "no reason at all"),
        (GlobalNoise, "score: score draws from a global random generator"),
        (PythonNoise, "score: score draws from a global random generator"),
        (Seeds, "score: score draws from a global random generator"),
        (Fickle, "score: scored again, by the same forward pass"),
        (TrainsOn, "score: score leaves the network with another buffer"),
        (ChangesWeights, "score: score leaves the network with another weight"),
        (Evaluates, "score: score leaves the network with another mode"),
        (LeavesGradients, "score: score leaves the network with another gradient"),
        (Freezes, "score: score leaves the network with another requires_grad"),
        (LeavesHooks, "score: score leaves the network with another hooks"),
        (ChangesInputs, "score: score leaves the network with another input"),
        (SeesOthers, "SeesOthers.weights is"),
        (Fails, "score: raised RuntimeError: no such layer"),
    ],
)
def test_a_bad_proxy_is_found_out(kind: type[Any], finding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert finding in found_in(kind, monkeypatch)


# -- surrogates -----------------------------------------------------------------------------------------------

Floats = NDArray[numpy.float64]


class GoodSurrogate:
    """Ridge regression on the one-hot encoding; the same uncertainty everywhere."""

    class Config(BaseConfig):
        penalty: float = Field(0.1, description="of the squared weights")

    def __init__(self, problem: Problem, config: Any) -> None:
        self.problem, self.config = problem, config

    def rows(self, archs: Sequence[Architecture]) -> Floats:
        return numpy.array([one_hot(self.problem.space, arch).ravel() for arch in archs], dtype=float)

    def fit(self, archs: Sequence[Architecture], values: Sequence[float]) -> None:
        self.check(archs, values)
        rows, self.mean = self.rows(archs), float(numpy.mean(values))
        off = numpy.asarray(values, dtype=float) - self.mean
        self.weights = numpy.linalg.solve(rows.T @ rows + self.config.penalty * numpy.eye(rows.shape[1]), rows.T @ off)
        self.deviation = float(numpy.std(off - rows @ self.weights))

    def check(self, archs: Sequence[Architecture], values: Sequence[float]) -> None:
        if len(archs) < 2 or len(archs) != len(values) or not numpy.isfinite(values).all():
            raise UsageError("two architectures at least, a finite value each")

    def predict(self, archs: Sequence[Architecture]) -> tuple[Floats, Floats]:
        mean = self.rows(archs) @ self.weights + self.mean if len(archs) else numpy.zeros(0)
        return mean, numpy.full(len(archs), self.deviation)


class LooseConfig(GoodSurrogate):
    class Config(BaseModel):  # type: ignore[assignment]
        model_config = ConfigDict(frozen=True)
        penalty: float = Field(0.1, description="of the squared weights")


class MeanOnly(GoodSurrogate):
    def predict(self, archs: Sequence[Architecture]) -> Any:
        return super().predict(archs)[0]


class Column(GoodSurrogate):
    def predict(self, archs: Sequence[Architecture]) -> tuple[Floats, Floats]:
        mean, deviation = super().predict(archs)
        return mean[:, None], deviation


class Negative(GoodSurrogate):
    def predict(self, archs: Sequence[Architecture]) -> tuple[Floats, Floats]:
        mean, deviation = super().predict(archs)
        return mean, deviation - 100


class Unbounded(GoodSurrogate):
    def predict(self, archs: Sequence[Architecture]) -> tuple[Floats, Floats]:
        mean, deviation = super().predict(archs)
        return mean, deviation / 0.0 if len(mean) else deviation


class Random(GoodSurrogate):
    """Draws from numpy's global generator."""

    def fit(self, archs: Sequence[Architecture], values: Sequence[float]) -> None:
        super().fit(archs, values)
        self.weights = self.weights + 1e-3 * numpy.random.standard_normal(self.weights.shape)


class SeedsAll(GoodSurrogate):
    """Seeds the generator of all, and so always draws the same."""

    def fit(self, archs: Sequence[Architecture], values: Sequence[float]) -> None:
        super().fit(archs, values)
        random.seed(5)


class OwnState(GoodSurrogate):
    """A generator per class, which moves on from instance to instance."""

    rng = numpy.random.default_rng(0)

    def fit(self, archs: Sequence[Architecture], values: Sequence[float]) -> None:
        super().fit(archs, values)
        self.weights = self.weights + 1e-3 * self.rng.standard_normal(self.weights.shape)


class Remembers(GoodSurrogate):
    """Learns on from what it knew."""

    def fit(self, archs: Sequence[Architecture], values: Sequence[float]) -> None:
        before = getattr(self, "weights", None)
        super().fit(archs, values)
        if before is not None:
            self.weights = 0.9 * self.weights + 0.1 * before


class LastCounts(GoodSurrogate):
    """The last observation counts for more than the first."""

    def fit(self, archs: Sequence[Architecture], values: Sequence[float]) -> None:
        super().fit(archs, values)
        self.mean += 0.01 * (values[-1] - values[0])


class Standardised(GoodSurrogate):
    """Predicts in units of its own."""

    def predict(self, archs: Sequence[Architecture]) -> tuple[Floats, Floats]:
        mean, deviation = super().predict(archs)
        return mean - self.mean, deviation


class Pooled(GoodSurrogate):
    """A mean depends on who else is asked about."""

    def predict(self, archs: Sequence[Architecture]) -> tuple[Floats, Floats]:
        mean, deviation = super().predict(archs)
        return mean + (0.1 * mean.std() if len(mean) else 0.0), deviation


class Ignorant(GoodSurrogate):
    def predict(self, archs: Sequence[Architecture]) -> tuple[Floats, Floats]:
        mean, deviation = super().predict(archs)
        return numpy.full_like(mean, self.mean), deviation


class Reversed(GoodSurrogate):
    """Lower is better."""

    def predict(self, archs: Sequence[Architecture]) -> tuple[Floats, Floats]:
        mean, deviation = super().predict(archs)
        return 2 * self.mean - mean, deviation


class Greedy(GoodSurrogate):
    """Takes whatever it is given."""

    def check(self, archs: Sequence[Architecture], values: Sequence[float]) -> None:
        if len(archs) != len(values) or len(archs) == 0:
            raise UsageError("a value for each architecture")


class Long(GoodSurrogate):
    def check(self, archs: Sequence[Architecture], values: Sequence[float]) -> None:
        if len(archs) < 2 or len(archs) != len(values) or not numpy.isfinite(values).all():
            raise UsageError("one\ntwo\nthree")


class Wasteful(GoodSurrogate):
    """Needs ten observations."""

    def check(self, archs: Sequence[Architecture], values: Sequence[float]) -> None:
        super().check(archs, values)
        if len(archs) < 10:
            raise UsageError("ten observations at least")


class Unique(GoodSurrogate):
    def check(self, archs: Sequence[Architecture], values: Sequence[float]) -> None:
        super().check(archs, values)
        if len(set(archs)) < len(archs):
            raise UsageError("each architecture once")


class Threads(GoodSurrogate):
    def fit(self, archs: Sequence[Architecture], values: Sequence[float]) -> None:
        super().fit(archs, values)
        torch.set_num_threads(3)


class Divides(GoodSurrogate):
    """Standardises, and so fails for constants."""

    def fit(self, archs: Sequence[Architecture], values: Sequence[float]) -> None:
        super().fit(archs, values)
        self.mean += 0.0 / numpy.float64(numpy.std(values))


class Sorts(GoodSurrogate):
    def fit(self, archs: Sequence[Architecture], values: Sequence[float]) -> None:
        super().fit(archs, values)
        values.sort()  # type: ignore[attr-defined]


class Unmakeable(GoodSurrogate):
    def __init__(self, problem: Problem, config: Any) -> None:
        raise ValueError("no space is good enough")


def surrogate_findings(kind: type[Any], monkeypatch: pytest.MonkeyPatch) -> str:
    import sys

    monkeypatch.setitem(sys.modules, ME, Named({kind.__name__: kind}))  # type: ignore[arg-type]
    return "\n".join(check_surrogate(f"{ME}:{kind.__name__}", Problem(CELLS, 2)))


def test_nothing_is_found_in_a_good_surrogate(monkeypatch: pytest.MonkeyPatch) -> None:
    assert surrogate_findings(GoodSurrogate, monkeypatch) == ""


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("kind", "finding"),
    [
        (LooseConfig, "config: Config does not refuse unknown keys"),
        (MeanOnly, "fit: predict gives ndarray"),
        (Column, "fit: the mean of 120 architectures is no float64 array"),
        (Negative, "fit: a standard deviation is negative"),
        (Unbounded, "fit: a standard deviation is not finite"),
        (Random, "fit: fit or predict draws from a global random generator"),
        (SeedsAll, "fit: fit or predict draws from a global random generator"),
        (OwnState, "repeat: a fresh instance"),
        (Remembers, "fit must forget"),
        (LastCounts, "order: another order"),
        (Standardised, "not their units"),
        (Standardised, "constants: fitted to the constant 3.5"),
        (Pooled, "fit: three architectures alone"),
        (Ignorant, "fit: the rank correlation with an additive target is 0.00"),
        (Reversed, "fit: the rank correlation with an additive target is -"),
        (Greedy, "refusals: a single observation is accepted"),
        (Long, "refusals: no observations is refused with"),
        (Wasteful, "few: raised UsageError: ten observations at least"),
        (Unique, "duplicates: raised UsageError"),
        (Threads, "fit: torch has 3 threads"),
        (Divides, "constants: a mean is not finite"),
        (Sorts, "fit: fit changes the observations"),
        (Unmakeable, "make: raised ValueError: no space is good enough"),
    ],
)
def test_a_bad_surrogate_is_found_out(kind: type[Any], finding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    try:
        assert finding in surrogate_findings(kind, monkeypatch)
    finally:
        torch.set_num_threads(threads)


def test_the_additive_target_differs() -> None:
    assert predictors.testing.additive(CELLS, CELLS.from_text("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")) != (
        predictors.testing.additive(CELLS, CELLS.from_text("|none~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|"))
    )
