"""Rational functions as activations, with trained coefficients.

Molina, Schramowski and Kersting, "Pade Activation Units", ICLR 2020, section 2: R(x) = P(x) / Q(x), with a numerator
P(x) = sum_j a_j x^j and a denominator that has no zero. Delfosse et al., "Adaptive Rational Activations to Boost Deep
Reinforcement Learning", 2021, share one function among all layers (recurrent), and note that R(x) + x is one of
the same degrees where that of the numerator is the larger one. Versions of the denominator:

    A  1 + sum_k |b_k x^k|
    B  1 + |sum_k b_k x^k|
    C  0.1 + |sum_k b_k x^k|, with b_0
    D  as B, while training with every coefficient times a random number of 0.9 to 1.1
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Literal

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[numpy.float64]
Version = Literal["A", "B", "C", "D"]
VERSIONS: tuple[Version, ...] = ("A", "B", "C", "D")
NOISE = 0.1  # of version D
LEAST = 0.1  # of the denominator of version C
RANGE, POINTS = 3.0, 601  # where a function is fitted
LEAK = 0.01
STEPS = 300
DIGITS = 5  # of the coefficients: what comes after them depends on the machine

FUNCTIONS: Mapping[str, Callable[[Array], Array]] = {
    "identity": lambda x: x,
    "relu": lambda x: numpy.maximum(x, 0),
    "leaky-relu": lambda x: numpy.where(x > 0, x, LEAK * x),
    "silu": lambda x: x / (1 + numpy.exp(-x)),
    "gelu": lambda x: x * numpy.array([math.erf(each / math.sqrt(2)) + 1 for each in x]) / 2,
    "tanh": lambda x: numpy.tanh(x),
}
"""What a rational function may start as."""


class Rational(nn.Module):
    """A rational function of numbers, in the shape and the type of the input; computed in the type of its coefficients.

    `degrees` of numerator and denominator, at least 1; `start` is a name of `FUNCTIONS`. No coefficient decays: zero is
    no better than another one.
    """

    def __init__(self, degrees: tuple[int, int] = (5, 4), version: Version = "A", start: str = "leaky-relu") -> None:
        super().__init__()
        self.version = version
        self.noise = NOISE if version == "D" else 0.0
        numerator, denominator = fitted(degrees, version, start)
        self.numerator = nn.Parameter(torch.tensor(numerator, dtype=torch.get_default_dtype()))
        self.denominator = nn.Parameter(torch.tensor(denominator, dtype=torch.get_default_dtype()))

    def extra_repr(self) -> str:
        return f"{self.version}, numerator={len(self.numerator)}, denominator={len(self.denominator)}"

    def no_decay(self) -> Iterable[nn.Parameter]:
        return (self.numerator, self.denominator)

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(self.numerator.dtype)
        above, below = self.numerator, self.denominator
        if self.noise and self.training:
            above, below = _disturbed(above, self.noise), _disturbed(below, self.noise)
        if self.version == "A":
            y = safe_ratio(above, below, wide)
        elif self.version == "C":
            y = polynomial(above, wide) / (LEAST + polynomial(below, wide).abs())
        else:
            y = polynomial(above, wide) / (1 + (wide * polynomial(below, wide)).abs())
        return y.to(x.dtype)


def polynomial(coefficients: Tensor, x: Tensor) -> Tensor:
    """`sum_j coefficients[j] x^j`, by Horner's rule."""
    *lower, y = coefficients.unbind()
    for each in reversed(lower):
        y = y * x + each
    return y


def safe_ratio(above: Tensor, below: Tensor, x: Tensor) -> Tensor:
    """Version A: `sum_j above[j] x^j / (1 + sum_k |below[k] x^(k + 1)|)`. Coefficients may be tensors that spread to
    `x`, in the order of the powers along the first dimension."""
    size = x.abs()
    return polynomial(above, x) / (1 + size * polynomial(below.abs(), size))


def _disturbed(coefficients: Tensor, noise: float) -> Tensor:
    return coefficients * (1 + noise * (2 * torch.rand_like(coefficients) - 1))


def with_residual(numerator: Sequence[float], denominator: Sequence[float]) -> list[float]:
    """The numerator of `x + P(x) / Q(x)` over the same Q, both as coefficients from x^0 on: `P(x) + x Q(x)`.

    Raises ValueError where that has a higher degree than P, so that the sum is no function of the same degrees.
    """
    if len(denominator) >= len(numerator):
        raise ValueError(
            f"x + P/Q of degrees {len(numerator) - 1}/{len(denominator) - 1} has a numerator of degree "
            f"{len(denominator)}: the degree of P must be above that of Q"
        )
    shifted = [0.0, *denominator, *[0.0] * (len(numerator) - len(denominator) - 1)]
    return [one + other for one, other in zip(numerator, shifted, strict=True)]


@cache
def fitted(degrees: tuple[int, int], version: Version, start: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Coefficients of numerator and denominator (from x^1 on, of version C from x^0) with the least squares on
    [-3, 3] from a function, by the steps of Levenberg and Marquardt, to five digits.

    Raises ValueError for degrees below 1, and for an unknown version or function.
    """
    if min(degrees) < 1 or version not in VERSIONS or start not in FUNCTIONS:
        raise ValueError(f"no rational function of degrees {degrees}, version {version!r}, that starts as {start!r}")
    x = numpy.linspace(-RANGE, RANGE, POINTS)
    target = FUNCTIONS[start](x)
    above = degrees[0] + 1
    found = _starting_point(x, target, degrees, version)
    value, slopes = _values(found, x, above, version)
    damping, error = 1e-3, float(numpy.square(value - target).sum())
    for _ in range(STEPS):
        normal = slopes.T @ slopes
        step = numpy.linalg.solve(
            normal + damping * numpy.diag(numpy.diag(normal) + 1e-12), slopes.T @ (target - value)
        )
        value_there, slopes_there = _values(found + step, x, above, version)
        error_there = float(numpy.square(value_there - target).sum())
        if error_there < error:
            found, value, slopes, error = found + step, value_there, slopes_there, error_there
            damping = max(damping / 3, 1e-12)
        else:
            damping = min(damping * 4, 1e12)
    rounded = tuple(float(f"{each:.{DIGITS}g}") for each in found)
    return rounded[:above], rounded[above:]


def _starting_point(x: Array, target: Array, degrees: tuple[int, int], version: Version) -> Array:
    """The numerator of least squares over a denominator that grows as the numerator does."""
    first = 0 if version == "C" else 1
    below = numpy.zeros(degrees[1] + 1)
    below[0] = 1 - LEAST if version == "C" else 0.0
    even = degrees[1] - degrees[1] % 2
    if even:
        below[even] = 0.1
    else:
        below[1] = 0.1
    q = (LEAST if version == "C" else 1.0) + numpy.abs(numpy.polynomial.polynomial.polyval(x, below))
    powers = x[:, None] ** numpy.arange(degrees[0] + 1)
    above = numpy.linalg.lstsq(powers / q[:, None], target, rcond=None)[0]
    return numpy.concatenate([above, below[first:]])


def _values(coefficients: Array, x: Array, above: int, version: Version) -> tuple[Array, Array]:
    """Values `[points]` and their derivatives by the coefficients `[points, coefficients]`."""
    first = 0 if version == "C" else 1
    powers = x[:, None] ** numpy.arange(max(above, len(coefficients) - above + first))
    p = powers[:, :above] @ coefficients[:above]
    terms = powers[:, first : first + len(coefficients) - above]
    below = coefficients[above:]
    if version == "A":
        slopes = numpy.abs(terms) * numpy.where(below < 0, -1.0, 1.0)
        q = 1 + numpy.abs(terms) @ numpy.abs(below)
    else:
        inner = terms @ below
        slopes = terms * numpy.where(inner < 0, -1.0, 1.0)[:, None]
        q = (LEAST if version == "C" else 1.0) + numpy.abs(inner)
    q = q[:, None]
    return p / q[:, 0], numpy.concatenate([powers[:, :above] / q, -p[:, None] * slopes / q**2], axis=1)
