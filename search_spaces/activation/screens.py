"""What numpy tells of a tree: its signature, and whether it is worth a training at all. Nothing here is a matrix
product, whose bits would depend on the number of threads."""

from __future__ import annotations

import math
from functools import cache

import numpy

from search_spaces.activation.formula import to_text
from search_spaces.activation.units import CONSTANT, Library, Tree, computed
from search_spaces.layers.signature import EQUAL, Array, of_text, signature

ERF = numpy.vectorize(math.erf, otypes=[numpy.float64])
NUMPY = Library(
    numpy,
    lambda x: numpy.maximum(x, 0.0),
    lambda x: 1 / (1 + numpy.exp(-x)),
    lambda x: numpy.logaddexp(x, 0.0),
    lambda x: 0.5 * (1 + ERF(x / math.sqrt(2))),
)
WIDEST = 8.0  # of what a normalisation gives, in standard deviations
LARGEST = float(numpy.finfo(numpy.float32).max)
TRAINED = (1.0, 0.7, -0.4)  # values of b: the first one is where it starts


@cache
def _probes() -> tuple[Array, Array]:
    """Inputs `[points]`, symmetric but for none of them, and values of b, `[3, 1]`."""
    x = numpy.concatenate([numpy.linspace(-WIDEST, WIDEST, 40), numpy.linspace(-1.9, 2.1, 24)])
    return x, numpy.array(TRAINED)[:, None]


def values(tree: Tree) -> Array:
    """On the probes, `[3, points]`."""
    x, b = _probes()
    with numpy.errstate(all="ignore"):
        found: Array = numpy.broadcast_to(computed(tree, NUMPY, x, b), (len(TRAINED), len(x)))
    return found


def identity(tree: Tree) -> str:
    """Equal for trees that compute the same: of finite ones the values on fixed inputs, with b where it starts and
    elsewhere, to four significant digits, of others the text."""
    y = values(tree)
    return signature(y, (1,), y.shape) if numpy.isfinite(y).all() else of_text(to_text(tree))


def unsound(tree: Tree) -> str | None:
    """Why an activation cannot be trained, as `WORD: what`; None for one that may be worth it."""
    if not _reads_input(tree):
        return "blind: the output does not depend on x"
    y = values(tree)
    if not (numpy.abs(y[0]) < LARGEST).all():
        return f"not finite: on inputs of -{WIDEST:g} to {WIDEST:g}"
    finite = y[(numpy.abs(y) < LARGEST).all(axis=1)]
    close = EQUAL * numpy.abs(finite).max(axis=1, keepdims=True)
    if (numpy.ptp(finite, axis=1, keepdims=True) <= close).all():
        return "constant: one value, whatever the input"
    x = _probes()[0]
    slope = (finite[:, -1:] - finite[:, :1]) / (x[-1] - x[0])
    if (numpy.abs(finite - finite[:, :1] - slope * (x - x[0])) <= close).all():
        return "linear: nothing but a linear function of x"
    return None


def _reads_input(tree: Tree) -> bool:
    return any(each.place == 0 and each.unary != CONSTANT for unit in tree for each in unit.operands)
