"""Early stopping by the curvature of the validation loss in the architecture parameters.

R-DARTS: Zela et al., "Understanding and Robustifying Differentiable Architecture Search", ICLR 2020, section 4.3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from pydantic import Field, model_validator
from torch import Tensor

import strategies
from nas_core import refs
from nas_core.architecture import Architecture
from nas_core.batch import Data
from nas_core.config import validate
from nas_core.errors import TrialError, UsageError
from nas_core.one_shot import Compute, OneShotConfig, Progress
from nas_core.relax import Mix
from nas_core.seeds import derive
from nas_core.strategy import Setting
from search_spaces.supernet.supernet import Supernet
from strategies.one_shot.alphas import Alphas
from strategies.one_shot.bilevel import untouched
from strategies.one_shot.weights import SharedWeights
from strategies.wrappers.inner import InnerConfig


class HasAlphas(Protocol):
    """A one-shot strategy, once started, whose architecture parameters make the mix of its supernet."""

    alphas: Alphas
    weights: SharedWeights

    def relaxed(self) -> Mix:
        """The mix at the present architecture parameters, differentiable in them, nothing sampled."""
        ...


class HessianGuard:
    """Trains as the inner strategy does, and stops where the loss becomes sharp in the architecture parameters.

    After every epoch the dominant (largest) eigenvalue of the Hessian of the loss on one batch of the half "alphas" is
    computed, with the weights as they are, normalisation by the batch as in training, running statistics untouched.
    Let `l(i)` be its mean over `window` epochs around `i`. Once `l(i - window) / l(i) < ratio`, the search ends and
    goes back to the architecture parameters of epoch `i - window`; the weights stay those of the last epoch. Without
    that it is the inner strategy. The published code looks for epochs from the 11th on (`first_epoch`).
    """

    class Config(InnerConfig, OneShotConfig):
        """What is guarded, and when to stop; `epochs` and the like are those of the inner strategy."""

        inner: str = Field("darts", description="one-shot strategy with architecture parameters")
        window: int = Field(default=5, ge=1, le=100, description="epochs that are averaged, and that are compared")
        ratio: float = Field(default=0.75, gt=0, lt=1, description="of the curvature before to that of now")
        first_epoch: int = Field(default=10, ge=0, description="the first (from 0) that a search may go back to")

        @model_validator(mode="before")
        @classmethod
        def _loop_of_the_inner(cls, given: Any) -> Any:
            if not isinstance(given, Mapping) or not isinstance(given.get("inner_config", {}), Mapping):
                return given
            kind = cls.find(given.get("inner", "darts"))
            inner = validate(kind.Config, given.get("inner_config", {}), "strategy: inner_config")
            loop = {name: getattr(inner, name) for name in OneShotConfig.model_fields}
            for name, value in loop.items():
                if given.get(name, value) != value:
                    raise UsageError(
                        f"strategy hessian-guard: {name} is {value} in the strategy that it guards, not {given[name]}; "
                        f"set inner_config.{name}"
                    )
            return {**given, **loop}

        @property
        def halves(self) -> bool:
            return self._inner.halves

        @property
        def float32_only(self) -> bool:
            return self._inner.float32_only

        @property
        def _inner(self) -> OneShotConfig:
            return validate(self.find(self.inner).Config, self.inner_config, "strategy: inner_config")

        @classmethod
        def find(cls, reference: str) -> Any:
            """The class of a strategy that can be guarded. Raises UsageError for another one."""
            kind = refs.find(reference, strategies.ONE_SHOT, strategies.GROUP, "one-shot strategy")
            if not _guarded(kind):
                found = (
                    name
                    for name in strategies.ONE_SHOT
                    if _guarded(refs.find(name, strategies.ONE_SHOT, strategies.GROUP, "one-shot strategy"))
                )
                raise UsageError(
                    f"strategy '{reference}' has no architecture parameters whose curvature could be watched; "
                    f"these have: {', '.join(found)}"
                )
            return kind

    supernet: Supernet

    def __init__(self, setting: Setting, config: Config) -> None:
        """Raises UsageError for a setting that the inner strategy cannot handle."""
        self._seed, self._config = setting.seed, config
        self._space = setting.space.name
        self.inner: Any = config.make(setting)
        self.eigenvalues: list[float] = []
        self._recent: list[dict[str, Any]] = []  # per epoch what going back to it needs, the last one last

    def start(self, make: Callable[[], Any], data: Data, compute: Compute) -> None:
        self.inner.start(make, data, compute)
        self.supernet = self.inner.supernet

    def step(self, epoch: int) -> Progress:
        """As the inner strategy, with the metric `alpha_eigenvalue`. Raises TrialError where that is not finite."""
        progress: Progress = self.inner.step(epoch)
        self.eigenvalues.append(self._eigenvalue(epoch))
        self._remember(progress)
        config = self._config
        back_to = stop_epoch(self.eigenvalues, config.window, config.ratio, config.first_epoch)
        if back_to is not None:
            progress = self._go_back(progress, back_to - len(self.eigenvalues))
        return replace(progress, metrics={**progress.metrics, "alpha_eigenvalue": self.eigenvalues[-1]})

    def result(self) -> Sequence[Architecture]:
        found: Sequence[Architecture] = self.inner.result()
        return found

    def state_dict(self) -> dict[str, Any]:
        return {"inner": self.inner.state_dict(), "eigenvalues": list(self.eigenvalues), "recent": list(self._recent)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.inner.load_state_dict(state["inner"])
        self.eigenvalues = [float(value) for value in state["eigenvalues"]]
        self._recent = [dict(epoch) for epoch in state["recent"]]

    def _eigenvalue(self, epoch: int) -> float:
        inner: HasAlphas = self.inner
        weights = inner.weights
        draw = derive(self._seed, "hessian")
        batch = next(iter(weights.data.batches("alphas", epoch, draw)))
        weights.supernet.train()
        with weights.frozen(), untouched(weights.supernet):
            return dominant_eigenvalue(weights.loss(batch, inner.relaxed()), list(inner.alphas), draw)

    def _remember(self, progress: Progress) -> None:
        inner: HasAlphas = self.inner
        now = {
            "alphas": {name: vector.detach().clone() for name, vector in inner.alphas.vectors.items()},
            "scores": {name: list(strengths) for name, strengths in progress.strengths.items()},
            "arch": None if progress.arch is None else dict(progress.arch.values),
        }
        far = self._config.window + self._config.window // 2 + 1
        self._recent = [*self._recent, now][-far:]

    def _go_back(self, progress: Progress, position: int) -> Progress:
        inner: HasAlphas = self.inner
        then = self._recent[position]
        with torch.no_grad():
            for name, vector in inner.alphas.vectors.items():
                vector.copy_(then["alphas"][name])
        return replace(
            progress,
            strengths={name: tuple(strengths) for name, strengths in then["scores"].items()},
            arch=None if then["arch"] is None else Architecture(self._space, then["arch"]),
            done=True,
        )


def _guarded(kind: Any) -> bool:
    return callable(getattr(kind, "relaxed", None)) and issubclass(kind.Config, OneShotConfig)


def stop_epoch(eigenvalues: Sequence[float], window: int, ratio: float, first: int) -> int | None:
    """The epoch that a search with these eigenvalues, one per epoch, goes back to now; None: it goes on.

    The mean around an epoch is known `window // 2` epochs after it; at the start it is over the epochs that exist.
    """

    def smooth(epoch: int) -> float:
        around = eigenvalues[max(0, epoch - (window - 1) // 2) : epoch + window // 2 + 1]
        return sum(around) / len(around)

    now = len(eigenvalues) - 1 - window // 2
    then = now - window
    return then if then >= first and smooth(then) < ratio * smooth(now) else None


def dominant_eigenvalue(loss: Tensor, parameters: Sequence[Tensor], seed: int, tolerance: float = 1e-4) -> float:
    """The largest eigenvalue of the Hessian of `loss` in `parameters`, by Lanczos' method.

    Products with the Hessian are derivatives of the gradient, in the parameters alone. They are orthogonalised in
    float64 against all vectors before, so that as many of them as there are parameters give the exact spectrum. Ends
    where the residual is below `tolerance` times the eigenvalue. Raises TrialError where a product is not finite.
    """
    gradients = torch.autograd.grad(loss, list(parameters), create_graph=True, allow_unused=True)
    gradient = _flat(gradients, parameters)
    if not gradient.requires_grad:
        return 0.0  # the loss is linear
    draws = torch.Generator().manual_seed(seed)
    vector = torch.randn(gradient.numel(), generator=draws, dtype=torch.float64)
    basis: list[Tensor] = []
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        basis.append(vector / vector.norm())
        products = torch.autograd.grad(
            gradient, list(parameters), basis[-1].to(gradient), retain_graph=True, allow_unused=True
        )
        product = _flat(products, parameters).to("cpu", torch.float64)
        if not product.isfinite().all():
            raise TrialError("nan-loss", "the curvature in the architecture parameters is not finite; lower alpha_lr")
        diagonal.append(float(product @ basis[-1]))
        known = torch.stack(basis)
        vector = product - known.T @ (known @ product)
        vector = vector - known.T @ (known @ vector)  # once more: rounding leaves a part behind
        residual = float(vector.norm())
        tridiagonal = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
        for row, value in enumerate(beside):
            tridiagonal[row, row + 1] = tridiagonal[row + 1, row] = value
        values, vectors = torch.linalg.eigh(tridiagonal)
        bound = residual * abs(float(vectors[-1, -1]))
        if len(basis) == len(vector) or bound <= tolerance * abs(float(values[-1])) or residual == 0:
            return float(values[-1])
        beside.append(residual)


def _flat(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> Tensor:
    """All gradients in one vector; zero for what is not there."""
    return torch.cat(
        [
            torch.zeros_like(parameter).flatten() if gradient is None else gradient.flatten()
            for gradient, parameter in zip(gradients, parameters, strict=True)
        ]
    )
