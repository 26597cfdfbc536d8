"""What numpy tells of a layer: its signature, and whether it is worth a training at all."""

from __future__ import annotations

from functools import cache

import numpy

from nas_core.seeds import generator
from search_spaces.evonorm.graph import Graph, X
from search_spaces.evonorm.rewriting import canonical
from search_spaces.evonorm.vectors import Array, computed
from search_spaces.layers.signature import EQUAL, of_text, signature

SHAPE = (4, 2, 4, 9)  # samples, groups, channels of a group, positions
CHANNELS = SHAPE[1] * SHAPE[2]
LAYERS = 10
SCALES = (1.0, 3.0, 1 / 3)  # of the weights in a chain
EXPLODED, COLLAPSED = 1e3, 1e-3  # root mean squares at the end of a chain
OVERFLOW = 1e100
ONE = 1e-3  # of the mean square: what samples, or positions, must differ by


@cache
def _probes() -> tuple[Array, Array, Array]:
    """Inputs `[3, *SHAPE]`, the last one midway between the others, and random v0 and v1, `[1, g, k, 1]`."""
    rng = generator("evonorm", "probes")
    one, other = 1.5 * rng.standard_normal((2, *SHAPE)) + 0.3
    v0, v1 = rng.standard_normal((2, 1, *SHAPE[1:3], 1))
    return numpy.stack((one, other, (one + other) / 2)), v0, v1


@cache
def _signature_probes() -> tuple[Array, Array, Array]:
    """Inputs `[2, *SHAPE]`, and v0 and v1, `[2, 1, g, k, 1]`: ordinary ones, and ones so small that eps is seen, as it
    is where v0 starts."""
    x, v0, v1 = _probes()
    small = numpy.array((1.0, 0.01)).reshape(2, 1, 1, 1, 1)
    return x[:2] * small, v0 * small, v1 * numpy.array((1.0, -0.7)).reshape(2, 1, 1, 1, 1)


@cache
def _chain() -> tuple[Array, Array, Array, Array]:
    """Inputs `[3, *SHAPE]`, weights `[layers, 3, outputs, inputs]`, and v0 and v1 as they start, `[1, g, k, 1]`."""
    rng = generator("evonorm", "chain")
    x = rng.standard_normal(SHAPE)
    weights = rng.standard_normal((LAYERS, 1, CHANNELS, CHANNELS)) * (2 / CHANNELS) ** 0.5
    scaled = weights * numpy.array(SCALES)[:, None, None]
    shape = (1, *SHAPE[1:3], 1)
    return numpy.stack((x, x, x)), scaled, numpy.zeros(shape), numpy.ones(shape)


def identity(graph: Graph) -> str:
    """Equal for layers that compute the same: of finite ones the values on fixed probes with random parameters, to
    four significant digits, of others the simplified formula."""
    y = computed(graph, *_signature_probes())
    if not numpy.isfinite(y).all():
        return of_text(canonical(graph))
    return signature(y, (-4, -3, -2, -1), (2, *SHAPE))


def unsound(graph: Graph) -> str | None:
    """Why a layer cannot be trained, as `WORD: what`; None for one that may be worth it."""
    if X not in graph.used:
        return "blind: the output does not depend on x"
    x, v0, v1 = _probes()
    y = computed(graph, x, v0, v1)
    largest = numpy.abs(y).max()
    if not numpy.isfinite(largest):
        return "not finite: on ordinary inputs"
    close = EQUAL * largest
    if numpy.abs(y[0] - y[1]).max() <= close:
        return "blind: the output does not depend on x"
    if (numpy.ptp(y[0], axis=(0, 3)) <= EQUAL * numpy.abs(y[0]).max(axis=(0, 3))).all():
        return "constant: one value per channel, whatever the sample and the position"
    if numpy.abs(y[0] + y[1] - 2 * y[2]).max() <= close:
        return "linear: nothing but a linear function of x"
    return _chained(graph)


def _chained(graph: Graph) -> str | None:
    """What happens to inputs in ten random linear layers, each followed by this one; the weights are those of an
    untrained network, three times as large, and a third of that."""
    x, weights, v0, v1 = _chain()
    for weight in weights:
        flat = x.reshape(len(SCALES), SHAPE[0], CHANNELS, SHAPE[3])
        mixed = numpy.einsum("soi,snip->snop", weight, flat).reshape(len(SCALES), *SHAPE)
        x = numpy.broadcast_to(computed(graph, mixed, v0, v1), mixed.shape)
        if not numpy.abs(x).max() < OVERFLOW:  # also where it is not a number
            return "explodes: the scale, in a few layers"
    power = numpy.square(x).mean((1, 2, 3, 4))
    if power.max() > EXPLODED**2:
        return "explodes: the scale, in ten layers"
    if power.min() < COLLAPSED**2:
        return "collapses: the scale, in ten layers"
    if (x.var(axis=1).mean((1, 2, 3)) < ONE * power).any():
        return "one: samples become the same in ten layers"
    if (x.var(axis=4).mean((1, 2, 3)) < ONE * power).any():
        return "flat: positions become the same in ten layers"
    return None
