"""Generalised divisive normalisation, a layer in the place of normalisation and activation.

Balle, Laparra and Simoncelli, "Density Modeling of Images using a Generalized Normalization Transformation", ICLR 2016,
equation 3: y_i = x_i / (beta_i + sum_j gamma_ij |x_j|^alpha_ij)^epsilon_i, over the channels of one position, in
training what in evaluation. alpha 2 and epsilon 1/2 are usual; GDN1 has 1 and 1 (Johnston et al., "Computationally
Efficient Neural Image Compression", 2019).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from search_spaces.layers.shapes import check

PEDESTAL = 2.0**-36
BETA_MIN = 1e-6
GAMMA = 0.1  # on the diagonal, at the start
BLOCK = 4096  # vectors that are inverted at a time
NEGATIVE = 1e-6  # of the largest value: what is left of zero by rounding


class GDN(nn.Module):
    """`[n, channels, *positions]` to the same shape, computed in the type of its parameters; positions may be none.

    `alpha` is a number or `[channels, channels]`, `epsilon` a number or `[channels]`; neither is trained. beta, which
    starts at 1, and gamma, which starts at `gamma` times the identity, are kept at `BETA_MIN` and 0 or above: what is
    stored and trained is sqrt(value + PEDESTAL). Nothing of it decays. Raises ValueError for another shape.
    """

    def __init__(
        self, channels: int, alpha: float | Tensor = 2.0, epsilon: float | Tensor = 0.5, gamma: float = GAMMA
    ) -> None:
        super().__init__()
        self.alpha: float | Tensor
        self.epsilon: float | Tensor
        for name, value in (("alpha", alpha), ("epsilon", epsilon)):
            if isinstance(value, Tensor):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)
        self.root_beta = nn.Parameter(stored(torch.ones(channels)))
        self.root_gamma = nn.Parameter(stored(gamma * torch.eye(channels)))
        self.register_forward_pre_hook(check)

    def extra_repr(self) -> str:
        return f"{self.channels}, alpha={self.alpha}, epsilon={self.epsilon}"

    @property
    def channels(self) -> int:
        return len(self.root_beta)

    @property
    def beta(self) -> Tensor:
        """`[channels]`, positive."""
        return used(self.root_beta, BETA_MIN)

    @property
    def gamma(self) -> Tensor:
        """`[channels, channels]`, row i for output i, not negative."""
        return used(self.root_gamma, 0.0)

    def no_decay(self) -> Iterable[nn.Parameter]:
        return (self.root_beta, self.root_gamma)

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(self.root_beta.dtype).movedim(1, -1)
        return (wide / self.pooled(wide)).movedim(-1, 1).to(x.dtype)

    def pooled(self, x: Tensor) -> Tensor:
        """What is divided by, `[..., channels]`."""
        with torch.autocast(x.device.type, enabled=False):  # squares of what float16 can hold are more than it can
            if isinstance(self.alpha, Tensor):
                powers = x.abs().unsqueeze(-2) ** self.alpha
                activity = (powers * self.gamma).sum(-1) + self.beta
            else:
                activity = functional.linear(_power(x, self.alpha), self.gamma, self.beta)
        return activity**self.epsilon

    @torch.no_grad()
    def inverse(self, y: Tensor, steps: int = 1000, tolerance: float = 1e-6) -> Tensor:
        """x with `self(x) == y`, without gradients, computed in float64.

        With alpha epsilon = 1, z = |x|^alpha solves (I - A) z = |y|^alpha beta for A = diag(|y|^alpha) gamma. Otherwise
        at most `steps` of x <- y pooled(x), until the largest change is `tolerance` of the largest value.

        Raises ValueError where y is no output of this layer, or the steps do not get there.
        """
        own = _as_float64(self)
        rows = y.double().movedim(1, -1)
        flat = rows.reshape(-1, rows.shape[-1])
        if (
            not isinstance(self.alpha, Tensor)
            and not isinstance(self.epsilon, Tensor)
            and self.alpha * self.epsilon == 1
        ):
            x = torch.cat([_solved(part, own.beta, own.gamma, self.alpha) for part in flat.split(BLOCK)])
        else:
            x = own._iterated(flat, steps, tolerance)
        return x.reshape(rows.shape).movedim(-1, 1).to(y.dtype)

    def _iterated(self, y: Tensor, steps: int, tolerance: float) -> Tensor:
        x = y
        for _ in range(steps):
            earlier, x = x, y * self.pooled(x)
            if not bool(x.isfinite().all()):
                break
            if float((x - earlier).abs().max()) <= tolerance * float(x.abs().max()):
                return x
        raise ValueError(f"no input was found for this output of a divisive normalisation in {steps} steps")


class IGDN(GDN):
    """Times what GDN divides by: one step of the inverse, with parameters of its own."""

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(self.root_beta.dtype).movedim(1, -1)
        return (wide * self.pooled(wide)).movedim(-1, 1).to(x.dtype)


def stored(value: Tensor) -> Tensor:
    """What is trained in the place of a value that is not negative."""
    return (value + PEDESTAL).clamp_min(PEDESTAL).sqrt()


def used(root: Tensor, least: float) -> Tensor:
    """The value of what is trained, at least `least`."""
    bound = (least + PEDESTAL) ** 0.5
    raised: Tensor = LowerBound.apply(root, bound)
    return raised * raised - PEDESTAL


class LowerBound(Function):
    """`max(x, bound)`, whose gradient also passes where x is below and a step of descent raises it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, bound: float) -> Tensor:
        return x.clamp_min(bound)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        x, ctx.bound = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return torch.where((x >= ctx.bound) | (gradient < 0), gradient, 0.0), None


def _power(x: Tensor, alpha: float) -> Tensor:
    if alpha == 2:
        return x * x
    return x.abs() if alpha == 1 else x.abs() ** alpha


def _solved(y: Tensor, beta: Tensor, gamma: Tensor, alpha: float) -> Tensor:
    """Of `[m, channels]`. What has an input has a solution that is not negative, and nothing else has one."""
    power = _power(y, alpha)
    system = torch.eye(len(beta), dtype=y.dtype, device=y.device) - power.unsqueeze(-1) * gamma
    z, singular = torch.linalg.solve_ex(system, power * beta)
    if bool(singular.any()) or not bool((z >= -NEGATIVE * z.abs().max()).all()):
        raise ValueError("these values are no output of the divisive normalisation: they are beyond its range")
    return y.sign() * z.clamp_min(0) ** (1 / alpha)


def _as_float64(layer: GDN) -> GDN:
    own = GDN(layer.channels, layer.alpha, layer.epsilon).to(layer.root_beta.device, torch.float64)
    own.load_state_dict(layer.state_dict())
    return own
