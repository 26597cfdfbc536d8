"""The nearest point whose expected costs are within bounds. Pure functions of numpy arrays.

Logits `theta` are a matrix [groups, candidates] in float64; `present` says which entries there are (groups differ in
size). `p` is the softmax of every row. The expected cost of a metric is `fixed + sum(p * costs)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Matrix = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

EXACT = 1e-6
"""A relative violation that is none: logits are stored in float32."""

CAP = 8.0
"""Largest distance of a logit from the mean of its row: beyond it the softmax has no slope to follow."""


@dataclass(frozen=True)
class Band:
    """`lower <= fixed + sum(p * costs) <= upper`; costs [groups, candidates], 0 where there is no candidate."""

    fixed: float
    costs: Matrix
    lower: float = -np.inf
    upper: float = np.inf

    def expected(self, p: Matrix) -> float:
        return self.fixed + float((p * self.costs).sum())

    def gradient(self, p: Matrix) -> Matrix:
        """Of the expected cost in the logits: `p * (costs - mean cost of the row)`."""
        return p * (self.costs - (p * self.costs).sum(1, keepdims=True))

    @property
    def scale(self) -> float:
        """What violations are relative to: the upper bound, or else the lower one."""
        return abs(self.upper if np.isfinite(self.upper) else self.lower) or 1.0

    def violations(self, p: Matrix) -> tuple[float, float]:
        """Of the upper and of the lower bound, relative; negative where it holds."""
        value = self.expected(p)
        return (value - self.upper) / self.scale, (self.lower - value) / self.scale


@dataclass(frozen=True, slots=True)
class Solver:
    """Of the penalised problem: `steps` of Adam per weight of the penalty, which starts at `penalty` and is doubled at
    most `doublings` times, until the relative violation is at most `tolerance`."""

    penalty: float = 1.0
    doublings: int = 10
    tolerance: float = 0.01
    steps: int = 100
    lr: float = 0.01


@dataclass(frozen=True, slots=True)
class Projected:
    """`theta` with the means of its rows unchanged; its distance from what was given; the violation that is left."""

    theta: Matrix
    distance: float
    violation: float


def softmax(theta: Matrix, present: Mask) -> Matrix:
    """Row by row; 0 where there is no candidate."""
    shifted = np.where(present, theta, -np.inf)
    powers: Matrix = np.exp(shifted - shifted.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def violation(theta: Matrix, present: Mask, bands: Sequence[Band]) -> float:
    """The largest relative violation; 0 where all bounds hold."""
    p = softmax(theta, present)
    return max((value for band in bands for value in (*band.violations(p), 0.0)), default=0.0)


def project(theta: Matrix, present: Mask, bands: Sequence[Band], solver: Solver) -> Projected:
    """The point near `theta` within the bands; `theta` itself, bit for bit, where it is within them.

    Minimises `1/2 |theta' - theta|^2 + penalty * violations` (relative, hinges) with Adam and doubles the penalty
    until the violation is within the tolerance. Where the softmax is too flat for that, a bisection towards the
    candidates that are cheapest (or dearest) finds the bound. As gradient steps end near a bound, not on it, `refine`
    goes on from there to the nearest point.

    Rows are centred: a shift of a row changes no softmax, so it must not count as a distance.
    """
    if violation(theta, present, bands) <= EXACT:
        return Projected(theta, 0.0, 0.0)
    means = _means(theta, present)
    start = np.where(present, np.clip(theta - means, -CAP, CAP), 0.0)
    start -= np.where(present, _means(start, present), 0.0)
    current = start
    penalty = solver.penalty
    for _ in range(solver.doublings + 1):
        current = descend(current, start, present, bands, penalty, solver)
        if violation(current, present, bands) <= solver.tolerance:
            break
        penalty *= 2
    if violation(current, present, bands) > solver.tolerance:
        current = retreat(current, present, bands)
    current = refine(current, start, present, bands)
    moved = float(np.linalg.norm(current - np.where(present, theta - means, 0.0)))
    return Projected(np.where(present, current + means, theta), moved, violation(current, present, bands))


def descend(
    theta: Matrix, start: Matrix, present: Mask, bands: Sequence[Band], penalty: float, solver: Solver
) -> Matrix:
    """Adam on `1/2 |theta - start|^2 + penalty * violations`, from `theta`, with a fresh state. Rows keep mean 0."""
    first, second = np.zeros_like(theta), np.zeros_like(theta)
    for step in range(1, solver.steps + 1):
        p = softmax(theta, present)
        gradient = theta - start
        for band in bands:
            above, below = band.violations(p)
            gradient = gradient + penalty / band.scale * ((above > 0) - 1.0 * (below > 0)) * band.gradient(p)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        move = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        theta = theta - solver.lr * np.where(present, move - _means(move, present), 0.0)
    return theta


def refine(theta: Matrix, start: Matrix, present: Mask, bands: Sequence[Band]) -> Matrix:
    """The nearest point to `start` within the bands, found from `theta`, which is near to it, by sequential quadratic
    programming (SLSQP); `theta` itself where that does not bring it within the bands, or would leave the cap."""
    from scipy.optimize import minimize

    def whole(x: Matrix) -> Matrix:
        full = np.zeros_like(theta)
        full[present] = x
        return full

    origin = start[present]
    bounds = [
        {
            "type": "ineq",
            "fun": lambda x, band=band, side=side: -band.violations(softmax(whole(x), present))[side],
            "jac": lambda x, band=band, sign=sign: (
                sign * band.gradient(softmax(whole(x), present))[present] / band.scale
            ),
        }
        for band in bands
        for side, (limit, sign) in enumerate(((band.upper, -1.0), (band.lower, 1.0)))
        if np.isfinite(limit)
    ]
    found = minimize(
        lambda x: 0.5 * float(((x - origin) ** 2).sum()),
        theta[present],
        jac=lambda x: x - origin,
        constraints=bounds,
        method="SLSQP",
        options={"maxiter": 200, "ftol": 1e-12},
    )
    better = whole(found.x)
    held = np.abs(better).max() <= 4 * CAP and violation(better, present, bands) <= EXACT
    return better if held else theta


def retreat(theta: Matrix, present: Mask, bands: Sequence[Band]) -> Matrix:
    """The point on the bound that is violated most, between `theta` and the candidates that are best for it; `theta`
    itself where not even those hold it."""
    p = softmax(theta, present)
    worst = max(bands, key=lambda band: max(band.violations(p)))
    above, below = worst.violations(p)
    side = 0 if above > below else 1
    spread = np.where(present, worst.costs - _means(worst.costs, present), 0.0)
    end = (-1, 1)[side] * 4 * CAP * spread / (np.abs(spread).max() or 1.0)

    def held(part: float) -> bool:
        return worst.violations(softmax(theta + part * (end - theta), present))[side] <= 0

    if not held(1.0):
        return theta
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if held(middle) else (middle, high)
    return theta + high * (end - theta)


def _means(values: Matrix, present: Mask) -> Matrix:
    """Of every row, over the candidates that there are [groups, 1]."""
    means: Matrix = np.where(present, values, 0.0).sum(1, keepdims=True) / present.sum(1, keepdims=True)
    return means
