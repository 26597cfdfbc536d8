"""The contracts of proxies and surrogates: `check_proxy` and `check_surrogate` yield what is wrong with one.

No finding means that it holds. That higher scores are better cannot be checked here: it takes trained networks.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy
from pydantic import BaseModel

from nas_core import moves, refs
from nas_core.architecture import Architecture
from nas_core.config import SizeConfig, validate
from nas_core.errors import UsageError
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from nas_core.testing.findings import collect, raised
from predictors import GROUP, PROXIES, SURROGATES
from predictors.need import Need
from predictors.proxy import Proxy, Unscorable
from predictors.scoring import Networks, proxy, score_names
from predictors.surrogate import Problem, Surrogate
from training.data.loading import Loading
from training.tasks import names as kinds

if TYPE_CHECKING:
    from predictors.forward_pass import ForwardPass
    from predictors.surrogate import Floats
    from training.data.protocol import Source

BATCH = 16  # samples that a network is scored with
CLOSE = 1e-4  # relative: what is left of the order of sums where work is shared
SAME = 1e-6  # in standard deviations of the values: what is left of the order of observations
LEARNED = 0.25  # rank correlation with an additive target; by chance 0.1 or less


def check_proxy(
    reference: str, space: SearchSpace, size: SizeConfig, source: Source, samples: int = 5, beside: Sequence[str] = ()
) -> Iterator[str]:
    """What is wrong with a proxy, on `samples` random networks of a space with a batch of the data.

    `beside`: other proxies, of which its score must not depend when all share their work.
    """
    kind = refs.find(refs.split(reference, "proxy")[0], PROXIES, GROUP, "proxy")
    yield from collect("config", _config, kind)
    declared = list(collect("declaration", _declaration, kind))
    yield from declared
    if declared:
        return  # without it nothing can be scored
    if source.task.kind not in kind.tasks:
        yield f"tasks: it is for {', '.join(sorted(kind.tasks))}, the data is {source.task.kind}: nothing was scored"
        return
    networks = Networks(space, size, source, batch=BATCH)
    archs = list(dict.fromkeys(moves.sample(space, generator("proxy", number)) for number in range(samples)))
    yield from collect("score", _scores, reference, networks, source, archs)
    yield from collect("together", _together, reference, networks, archs, beside)
    yield from collect("sample", _differs, reference, networks, archs)


def check_surrogate(reference: str, problem: Problem, count: int = 60, held_out: int = 120) -> Iterator[str]:
    """What is wrong with a surrogate that is fitted to `count` random architectures of the problem's space.

    How well it learns an additive target is seen by `held_out` others.
    """
    target, given = refs.split(reference, "surrogate")
    kind = refs.find(target, SURROGATES, GROUP, "surrogate")
    yield from collect("config", _config, kind)
    config = validate(kind.Config, given, f"surrogate {target}")
    try:
        case = _Case(kind, config, problem, count, held_out)
    except Exception as error:  # whatever it raises, there is nothing to ask further
        yield f"make: {raised(error)}"
        return
    for part, function in (
        ("fit", _fit),
        ("repeat", _repeat),
        ("order", _order),
        ("constants", _constants),
        ("duplicates", _duplicates),
        ("few", _few),
        ("refusals", _refusals),
    ):
        yield from collect(part, function, case)


def additive(space: SearchSpace, arch: Architecture) -> float:
    """A target that adds up: for every choice a number of its option, which choices of one kind share."""
    total = 0.0
    for choice in space.choices:
        if choice.name not in arch.values or len(choice.options) < 2:
            continue
        value = arch.values[choice.name]
        word = choice.kind or choice.name
        if choice.ordered:
            total += _drawn(word) * choice.index(value) / (len(choice.options) - 1)
        else:
            total += _drawn(f"{word} {value}")
    return total


def _drawn(text: str) -> float:
    """In [-1, 1), the same everywhere."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**47 - 1


def _config(kind: Any) -> Iterator[str]:
    config = kind.Config
    if not issubclass(config, BaseModel) or config.model_config.get("extra") != "forbid":
        yield "Config does not refuse unknown keys; derive it from nas_core.config.Config"
    elif not config.model_config.get("frozen"):
        yield "Config is not frozen; derive it from nas_core.config.Config"
    for name, described in config.model_fields.items():
        if not described.description:
            yield f"'{name}' has no description; give it Field(description=...)"


# -- proxies --------------------------------------------------------------------------------------------------


def _declaration(kind: Any) -> Iterator[str]:
    if not isinstance(kind.tasks, frozenset) or not kind.tasks <= set(kinds()):
        yield f"tasks is {kind.tasks!r}, not a frozenset of the kinds {', '.join(kinds())}"
    if not isinstance(kind.needs, Need):
        yield f"needs is {kind.needs!r}, not a predictors.proxy.Need"
    names = kind.components
    if not isinstance(names, tuple) or not names or not all(isinstance(name, str) for name in names):
        yield f"components is {names!r}, not a tuple of names"
    elif len(set(names)) != len(names) or not all(name.isidentifier() for name in names):
        yield f"components {names} repeats a name, or has one with other than letters, digits and _"


def _scores(reference: str, networks: Networks, source: Source, archs: Sequence[Architecture]) -> Iterator[str]:
    """Components as declared, numbers, the same again, and nothing else is changed."""
    _, found = proxy(reference)
    data = source.bind("cpu", Loading(batch_size=BATCH))
    batch = next(iter(data.batches("train", 0, 0)))

    def fresh(arch: Architecture) -> ForwardPass:
        from predictors.forward_pass import ForwardPass

        build = partial(networks.space.build, arch, source.task, networks.size)
        return ForwardPass(build, batch, data.loss, source.task, needs=found.needs)

    _score(found, fresh(archs[0]))  # what is imported by a first score may draw random numbers
    for arch in archs:
        forward = fresh(arch)
        if found.needs:
            _ = forward.passed  # its own work, which others share, is not the proxy's
        before, others = _state(forward), _stirred()
        values = _score(found, forward)
        if others != _randomness():
            yield f"score draws from a global random generator, or seeds it, for {arch}"
        if changed := [name for name, value in _state(forward).items() if before.get(name) != value]:
            yield f"score leaves the network with another {changed[0]} than it found, for {arch}"
        if isinstance(values, str):  # unscorable
            continue
        if set(values) != set(found.components):
            yield f"score gives {sorted(values)}, but components are {sorted(found.components)}"
            return
        for name, value in values.items():
            if math.isnan(float(value)) or float(value) == math.inf:
                yield f"{name} is {float(value)} for {arch}; what cannot be told is minus infinity, or Unscorable"
        for what, other in (
            ("the same forward pass", forward),
            ("another of the same seed", fresh(arch)),
        ):
            again = _score(proxy(reference)[1], other)
            if _plain(again) != _plain(values):
                yield f"scored again, by {what}, it is {again} instead of {values} for {arch}"


def _score(found: Proxy, forward: ForwardPass) -> Mapping[str, float] | str:
    try:
        return found.score(forward)
    except Unscorable as error:
        return str(error)


def _plain(values: Mapping[str, float] | str) -> Any:
    return values if isinstance(values, str) else {name: repr(float(value)) for name, value in values.items()}


def _state(forward: ForwardPass) -> dict[str, str]:
    """Everything of the network, and of the batch, that a proxy could leave changed, as digests."""
    model = forward.model
    tensors = {f"weight {name}": value for name, value in model.named_parameters()}
    tensors |= {f"buffer {name}": value for name, value in model.named_buffers()}
    tensors |= {f"input {place}": value for place, value in enumerate(forward.batch.inputs)}
    found = {name: _digest(value) for name, value in tensors.items()}
    for name, value in tensors.items():
        found[f"requires_grad of {name}"] = str(value.requires_grad)
        found[f"gradient of {name}"] = "" if value.grad is None else _digest(value.grad)
    for name, module in model.named_modules():
        found[f"mode of {name or 'it'}"] = str(module.training)
        hooks = [hook for key, hook in vars(module).items() if key.endswith("_hooks") and hook]
        found[f"hooks of {name or 'it'}"] = str(sum(map(len, hooks)))
    return found


def _digest(tensor: Any) -> str:
    return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def _stirred() -> tuple[str, str, str]:
    """The global generators after a draw from each, so that one who seeds them anew is seen the second time too."""
    import torch

    torch.rand(())
    numpy.random.random()
    random.random()
    return _randomness()


def _randomness() -> tuple[str, str, str]:
    """The global generators of torch, numpy and Python."""
    import torch

    return _digest(torch.get_rng_state()), repr(numpy.random.get_state()), repr(random.getstate())


def _together(
    reference: str, networks: Networks, archs: Sequence[Architecture], beside: Sequence[str]
) -> Iterator[str]:
    """The same score whether the network's work is shared with other proxies, which come before or after it."""
    name, found = proxy(reference)
    others = [other for other in beside if other != reference and proxy(other)[1].tasks >= {networks.task.kind}]
    if not others:
        return
    for arch in archs[:2]:
        (alone,) = networks.score([arch], [reference])
        for order in ([reference, *others], [*others, reference]):
            (shared,) = networks.score([arch], order)
            for score in score_names(name, found.components):
                one, other = alone.values[score], shared.values[score]
                if one != other and not abs(one - other) <= CLOSE * max(abs(one), abs(other)):
                    where = "before" if order[0] == reference else "after"
                    yield f"{score} is {one!r} alone and {other!r} scored {where} all others, for {arch}"


def _differs(reference: str, networks: Networks, archs: Sequence[Architecture]) -> Iterator[str]:
    name, found = proxy(reference)
    scored = list(networks.score(archs, [reference]))
    for score in score_names(name, found.components):
        values = {one.values[score] for one in scored}
        if len(values) < 2:
            reason = next((text for one in scored for text in one.reasons.values()), "")
            yield f"{score} is {values.pop()} for all of {len(archs)} architectures" + (
                f" ({reason})" if reason else ""
            )


# -- surrogates -----------------------------------------------------------------------------------------------


class _Case:
    """A surrogate and what it is fitted to."""

    def __init__(self, kind: Any, config: Any, problem: Problem, count: int, held_out: int) -> None:
        self.kind, self.config, self.problem = kind, config, problem
        rng = generator("surrogate")
        drawn: dict[Architecture, None] = {}
        for _ in range(20 * (count + held_out)):
            if len(drawn) < count + held_out:
                drawn[moves.sample(problem.space, rng)] = None
        archs = list(drawn)
        self.archs, self.others = archs[:count], archs[count:]
        self.values = self.truth(self.archs)
        self.few = min(24, count)  # what need not be learned well
        self.spare = self.make()  # for one fit after the other: that it forgets is checked by `_repeat`
        self._first: tuple[Floats, Floats] | None = None

    def truth(self, archs: Sequence[Architecture]) -> Floats:
        """The additive target, with some noise, in units of its own."""
        noise = [0.02 * _drawn(f"noise {arch.key}") for arch in archs]
        return numpy.array(
            [70 + 5 * (additive(self.problem.space, arch) + extra) for arch, extra in zip(archs, noise, strict=True)]
        )

    def make(self) -> Surrogate:
        made: Surrogate = self.kind(self.problem, self.config)
        return made

    def predicted(self, archs: Sequence[Architecture], values: Floats) -> tuple[Floats, Floats]:
        """Of the held-out architectures."""
        self.spare.fit(archs, values.tolist())
        return self.spare.predict(self.others)

    @property
    def first(self) -> tuple[Floats, Floats]:
        """What the first few observations lead to."""
        if self._first is None:
            self._first = self.predicted(self.archs[: self.few], self.values[: self.few])
        return self._first

    def close(self, one: tuple[Floats, Floats], other: tuple[Floats, Floats]) -> bool:
        """Up to rounding, in units of the spread of the values."""
        scale = SAME * float(self.values.std())
        return all(bool((abs(a - b) <= scale).all()) for a, b in zip(one, other, strict=True))


def _wrong(predicted: Any, count: int) -> str | None:
    """What is wrong with a mean and standard deviation of so many architectures."""
    if not isinstance(predicted, tuple) or len(predicted) != 2:
        return f"predict gives {type(predicted).__name__}, not (mean, standard deviation)"
    for what, values in zip(("mean", "standard deviation"), predicted, strict=True):
        if not isinstance(values, numpy.ndarray) or values.shape != (count,) or values.dtype != numpy.float64:
            return f"the {what} of {count} architectures is no float64 array [{count}]: {numpy.shape(values)}"
        if not numpy.isfinite(values).all():
            return f"a {what} is not finite: {values[~numpy.isfinite(values)][0]}"
    lowest = predicted[1].min() if count else 0.0
    return f"a standard deviation is negative: {lowest}" if lowest < 0 else None


def _fit(case: _Case) -> Iterator[str]:
    """Shapes; random numbers and threads of others; each architecture's prediction is its own; what it learns."""
    import torch

    threads = torch.get_num_threads()
    _ = case.first  # what is imported by a first fit may draw random numbers
    before = _stirred()
    model = case.make()
    archs, values = list(case.archs), case.values.tolist()
    model.fit(archs, values)
    found = model.predict(case.others)
    if before != _randomness():
        yield "fit or predict draws from a global random generator, or seeds it"
    if torch.get_num_threads() != threads:
        yield f"torch has {torch.get_num_threads()} threads afterwards and had {threads}"
    if archs != case.archs or values != case.values.tolist():
        yield "fit changes the observations that it is given"
    if (trouble := _wrong(found, len(case.others))) is not None:
        yield trouble
        return
    few = model.predict(case.others[:3])
    if (trouble := _wrong(few, 3) or _wrong(model.predict([]), 0)) is not None:
        yield trouble
    elif not case.close(few, (found[0][:3], found[1][:3])):
        yield f"three architectures alone have the means {few[0]}, among others {found[0][:3]}"
    if not case.close(model.predict(case.others), found):
        yield "predict gives something else when it is asked again"
    yield from _learned(case, found[0])


def _learned(case: _Case, mean: Floats) -> Iterator[str]:
    """An additive target, held-out: the order better than chance, and the right scale."""
    from scipy.stats import spearmanr

    found = 0.0 if mean.min() == mean.max() else float(spearmanr(mean, case.truth(case.others))[0])
    if not found > LEARNED:
        yield f"the rank correlation with an additive target is {found:.2f} after {len(case.archs)} observations"
    if abs(mean.mean() - case.values.mean()) > 2 * case.values.std():
        yield f"means are about {mean.mean():.4g}, but the values {case.values.mean():.4g}: not their units"


def _repeat(case: _Case) -> Iterator[str]:
    """A fresh instance, and one that was fitted to other values before."""
    archs, values = case.archs[: case.few], case.values[: case.few]
    model = case.make()
    model.fit(archs, values.tolist())
    if not case.close(model.predict(case.others), case.first):
        yield "a fresh instance with the same seed and observations predicts something else"
    model.fit(case.archs[5:15], (-case.values[5:15]).tolist())
    model.fit(archs, values.tolist())
    if not case.close(model.predict(case.others), case.first):
        yield "fitted to something else before, it predicts something else: fit must forget"


def _order(case: _Case) -> Iterator[str]:
    order = generator("order").permutation(case.few)
    turned = case.predicted([case.archs[position] for position in order], case.values[order])
    if not case.close(turned, case.first):
        off = max(float(abs(a - b).max()) for a, b in zip(turned, case.first, strict=True))
        spread = float(case.values.std())
        yield f"another order of the observations changes a prediction by {off:.3g}, where values spread {spread:.3g}"


def _constants(case: _Case) -> Iterator[str]:
    found = case.predicted(case.archs[: case.few], numpy.full(case.few, 3.5))
    if (trouble := _wrong(found, len(case.others))) is not None:
        yield trouble
    elif abs(found[0] - 3.5).max() > 1e-6:
        yield f"fitted to the constant 3.5, a mean is {found[0][abs(found[0] - 3.5).argmax()]}"


def _duplicates(case: _Case) -> Iterator[str]:
    """An architecture may have been evaluated more than once, with other values."""
    values = case.values[:10]
    found = case.predicted([*case.archs[:10], *case.archs[:10]], numpy.concatenate([values, values + 0.1]))
    if (trouble := _wrong(found, len(case.others))) is not None:
        yield trouble


def _few(case: _Case) -> Iterator[str]:
    for count in (2, 3, 8):
        trouble = _wrong(case.predicted(case.archs[:count], case.values[:count]), len(case.others))
        if trouble is not None:
            yield f"fitted to {count} observations: {trouble}"


def _refusals(case: _Case) -> Iterator[str]:
    archs, values = case.archs, case.values.tolist()
    for what, some, wrong in (
        ("no observations", [], []),
        ("a single observation", archs[:1], values[:1]),
        ("a value too few", archs, values[:-1]),
        ("a value that is not a number", archs, [*values[:-1], math.nan]),
        ("an infinite value", archs, [math.inf, *values[1:]]),
    ):
        try:
            case.spare.fit(some, wrong)
        except UsageError as error:
            if not str(error) or str(error).count("\n") > 1:
                yield f"{what} is refused with {str(error)!r}, not in one or two lines"
        else:
            yield f"{what} is accepted; raise UsageError"
