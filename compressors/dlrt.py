"""Dynamical low-rank training: the weights are trained as W = U S V^T, and the ranks are found on the way.

"Low-rank lottery tickets: finding efficient low-rank neural networks via matrix differential equations" (Schotthöfer,
Zangrando, Kusch, Ceruti and Tudisco, NeurIPS 2022). U [n, r] and V [m, r] have orthonormal columns, S [r, r]; the
gradient flow on the matrices of rank r is integrated by the rank-adaptive unconventional integrator, whose steps do not
depend on how small singular values are. With rate h, of all layers together:

1. K = U S, L = V S^T; K1 = K - h dK, L1 = L - h dL; nothing else moves.
2. Bases with the old ones in them: U' = qr[K1 | U], V' = qr[L1 | V]; S' = (U'^T U) S (V^T V').
3. S' - h dS'; all other parameters by the recipe's optimiser.
4. S' = P D Q^T; r is the least rank with |D[r:]| <= tolerance |D|; U = U' P[:, :r], V = V' Q[:, :r], S = D[:r].

It is a regime of the first round, which begins with the truncated singular value decomposition of the trained weights,
or with `from_scratch`. When it ends, it leaves three layers in the place of one, V^T, S (diagonal) and U: so the rank
goes to the second round exactly, by the shapes of what is stored. That one puts two layers in their place, checks that
the network computes the same, and trains nothing.

Deviations. K and L steps read one function, U S V^T, so that one pass gives the gradients of both, where the authors'
program makes two. Weight decay is in the gradients of K, L and S, whose norms are that of W. K, L and S take plain
gradient steps whatever the optimiser: what momentum means is lost when the bases change; their rate is the recipe's
rate of the moment, or follows it from another one (`lr`). Ranks have no buffers that bound them: they stay below what
makes two factors larger than the layer, below a share of min(n, m), and with a target below the ranks at which the
truncated network meets it. The authors' program truncates by the rows of V^H where its columns are meant; here U S V^T
is kept.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from compressors.compressor import Change, Check, Plan, Round, Subject
from compressors.factors import (
    KINDS,
    Matrix,
    Truncation,
    factors,
    inputs_of,
    matrices,
    put,
    rank_within,
    said,
    spectrum,
)
from compressors.groups.groups import Fixed
from nas_core.batch import Batch
from nas_core.config import Config
from nas_core.errors import TrialError, UsageError
from nas_core.seeds import derive
from search_spaces.counter import counted
from training.compute import Forward
from training.optimizer import parameter_groups
from training.regimes.regime import Regime

SAME = 1e-5  # relative: how far two layers may be from three
COMPARED = 4  # samples


class Settings(Config):
    """What bounds the ranks."""

    tolerance: float = Field(default=0.1, ge=0, lt=1, description="of the norm of the singular values, cut every step")
    least: int = Field(default=2, ge=1, description="lowest rank")
    most: float = Field(default=0.5, gt=0, le=1, description="highest rank, as a share of the rows or columns")
    lr: float | None = Field(
        default=None, gt=0, le=10, description="highest rate of K, L and S, which follows the schedule [default: lr]"
    )
    settle: float = Field(default=0.0, ge=0, lt=1, description="share of the steps, the last, in which bases stay")
    from_scratch: bool = Field(default=False, description="train anew, not from the trained weights")
    classifier: bool = Field(default=False, description="the last layer too")


class Dlrt:
    """Two rounds: training at low rank, then two layers for each."""

    Config = Settings
    needs = ("linear",)
    rounds: ClassVar[Sequence[Round]] = (Round(), Round(epochs=0))

    def __init__(self, subject: Subject, config: Settings) -> None:
        recipe = subject.recipe
        if recipe is not None and not subject.epochs:
            raise UsageError("dlrt finds ranks while it trains; give it epochs (--epochs 10), or take svd")
        if recipe is not None and recipe.ema is not None:
            raise UsageError("recipe: an average of weights (ema) is not of low rank; leave ema out for dlrt")
        if recipe is not None and recipe.orthonormality is not None:
            raise UsageError("recipe: layers of dlrt are factors with orthonormal bases; leave orthonormality out")
        if config.from_scratch and subject.initial is None:
            raise UsageError("dlrt: how the network was before its training is not known; leave out from_scratch")
        self._subject, self._config = subject, config

    def plan(self, network: nn.Module) -> Plan:
        """The ranks with which it begins, after its first truncation; training changes them."""
        truncation, fixed = self._truncation(network)
        caps = self._caps(truncation)
        ranks = {name: min(rank, caps[name]) for name, rank in truncation.ranks(self._config.tolerance).items()}
        return truncation.plan({**caps, **ranks}, fixed, "before its training of rank")

    def compress(self, network: nn.Module, round: int) -> Change:
        if round:
            return self._joined(network)
        self._caps(self._truncation(network)[0])
        if self._config.from_scratch:
            assert self._subject.initial is not None  # or the method was refused
            network.load_state_dict(self._subject.initial().state_dict())
        return Change()

    def regime(self, network: nn.Module, round: int) -> Regime | None:
        if round:
            return None
        truncation, _ = self._truncation(network)
        clip = None if self._subject.recipe is None else self._subject.recipe.grad_clip
        return Integrator(truncation, self._caps(truncation), self._config, clip)

    def _truncation(self, network: nn.Module) -> tuple[Truncation, tuple[Fixed, ...]]:
        config, subject = self._config, self._subject
        found, fixed = matrices(network, subject, config.least, config.classifier)
        values = {one.name: spectrum(one) for one in found}
        costs = counted(network, inputs_of(network, subject))
        made = Truncation(found, values, costs, config.least, subject.round_to)
        return made, fixed

    def _caps(self, truncation: Truncation) -> dict[str, int]:
        """The highest rank of every layer. Raises UsageError as `Truncation.limits`."""
        caps = {one.name: one.limit for one in truncation.matrices}
        if self._subject.targets:
            caps |= truncation.within(truncation.limits(self._subject))
        share = self._config.most
        most = {
            one.name: max(int(share * min(one.rows, one.columns)), self._config.least) for one in truncation.matrices
        }
        return {name: min(cap, most[name]) for name, cap in caps.items()}

    def _joined(self, network: nn.Module) -> Change:
        """Two layers in the place of the three that the training has left."""
        before, report = copy.deepcopy(network), {}
        for name, (first, middle, last) in list(triples(network)):
            values = middle.weight.detach().flatten(1).diagonal()
            with torch.no_grad():
                kernel = first.weight.dim() - 1
                first.weight *= values.sqrt().reshape(-1, *[1] * kernel)
                last.weight *= values.sqrt().reshape(1, -1, *[1] * (kernel - 1))
            put(network, name, nn.Sequential(first, last))
            report[name] = said(last.weight.shape[0], first.weight[0].numel(), len(values))
        if not report:
            raise UsageError("dlrt: no layer of low rank came out of its training")
        return Change(report=report, checks=(Check("two layers for three", self._apart(before, network), SAME),))

    def _apart(self, before: nn.Module, after: nn.Module) -> float:
        """The difference of two networks' answers, relative to the largest."""
        with torch.no_grad():
            wanted, found = (
                network(*inputs_of(network, self._subject, COMPARED))
                for network in (copy.deepcopy(one).cpu() for one in (before, after))
            )
        return float((wanted - found).abs().max() / wanted.abs().max().clamp(min=torch.finfo(wanted.dtype).tiny))


def triples(network: nn.Module) -> Iterator[tuple[str, tuple[Any, Any, Any]]]:
    """What `Integrator.end` has put in the place of layers: V^T, S and U, by name."""
    for name, module in network.named_modules():
        if type(module) is not nn.Sequential or len(module) != 3 or len(set(map(type, module))) > 1:
            continue
        first, middle, last = module
        if not isinstance(first, KINDS) or first.bias is not None or middle.bias is not None:
            continue
        square = middle.weight.detach().flatten(1)
        if square.shape[0] == square.shape[1] and torch.equal(square, square.diagonal().diag()):
            yield name, (first, middle, last)


class LowRank(nn.Module):
    """A layer with the weight U S V^T: U [n, r] and V [m, r] with orthonormal columns, S [r, r], a parameter.

    Between `open` and `augment` it also has K = U S and L = V S^T as parameters, and its answer has their gradients
    instead of that of S. A state that is loaded brings its rank with it.
    """

    U: Tensor
    V: Tensor

    def __init__(self, layer: Any, u: Tensor, s: Tensor, v: Tensor) -> None:
        super().__init__()
        self.S = nn.Parameter(s)
        self.register_buffer("U", u)
        self.register_buffer("V", v)
        self.register_parameter("K", None)
        self.register_parameter("L", None)
        self.bias = layer.bias
        self._layer = (layer,)  # no submodule: its settings alone are used

    @property
    def rank(self) -> int:
        return len(self.S)

    def forward(self, x: Tensor) -> Tensor:
        if self.K is None:
            return self._raised(self._lowered(x, self.V), self.U @ self.S)
        # The same function twice, of which the second counts for the gradient of L alone.
        by_l = self._raised(self._lowered(x.detach(), self.L), self.U, bias=False)
        return self._raised(self._lowered(x, self.V), self.K) + (by_l - by_l.detach())

    def _lowered(self, x: Tensor, right: Tensor) -> Tensor:
        """x times right [m, r]."""
        (layer,) = self._layer
        if isinstance(layer, nn.Linear):
            return functional.linear(x, right.T)
        filters = right.T.reshape(-1, *layer.weight.shape[1:])
        return _convolution(layer)(x, filters, None, layer.stride, layer.padding, layer.dilation)

    def _raised(self, x: Tensor, left: Tensor, bias: bool = True) -> Tensor:
        """x times left^T, left [n, r]."""
        (layer,), added = self._layer, self.bias if bias else None
        if isinstance(layer, nn.Linear):
            return functional.linear(x, left, added)
        return _convolution(layer)(x, left.reshape(*left.shape, *[1] * (layer.weight.dim() - 2)), added)

    def open(self) -> None:
        self.K = nn.Parameter((self.U @ self.S).detach())
        self.L = nn.Parameter((self.V @ self.S.T).detach())

    @torch.no_grad()
    def augment(self, rate: float, decay: float) -> None:
        """Steps 1 and 2, with the gradients of K and L."""
        u, v = self.U, self.V
        self.U = orthonormal(moved(self.K, rate, decay), u)
        self.V = orthonormal(moved(self.L, rate, decay), v)
        self._set((self.U.T @ u) @ self.S @ (v.T @ self.V))
        self.K = self.L = None

    @torch.no_grad()
    def step(self, rate: float, decay: float) -> None:
        """Step 3 for S, whose gradient nobody sees afterwards."""
        self._set(moved(self.S, rate, decay))

    @torch.no_grad()
    def truncate(self, rank: Callable[[Tensor], int]) -> None:
        """Step 4: S becomes diagonal; `rank` says of its singular values how many stay. Raises TrialError
        `nan-loss`."""
        if not torch.isfinite(self.S).all():
            raise TrialError("nan-loss", "the factors of a low-rank layer are not finite any more; take a lower lr")
        left, values, right = torch.linalg.svd(self.S)
        kept = rank(values)
        self.U, self.V = self.U @ left[:, :kept], self.V @ right[:kept].T
        self._set(values[:kept].diag())

    def _set(self, s: Tensor) -> None:
        self.S.grad = None
        self.S.data = s

    def _load_from_state_dict(self, state: Mapping[str, Tensor], prefix: str, *rest: Any) -> None:
        for name in ("U", "S", "V"):
            if prefix + name in state:
                own = getattr(self, name)
                own.data = own.new_empty(state[prefix + name].shape)
        super()._load_from_state_dict(state, prefix, *rest)


def _convolution(layer: nn.Module) -> Callable[..., Tensor]:
    return functional.conv1d if isinstance(layer, nn.Conv1d) else functional.conv2d


def moved(parameter: Any, rate: float, decay: float) -> Tensor:
    """After a plain gradient step."""
    whole = decay * parameter if parameter.grad is None else parameter.grad + decay * parameter
    return parameter.detach() - rate * whole


def orthonormal(*columns: Tensor) -> Tensor:
    """An orthonormal basis of what all columns span, and of more where they are dependent."""
    return torch.linalg.qr(torch.cat(columns, 1)).Q


@dataclass
class Trained:
    """One layer in training."""

    matrix: Matrix
    low: LowRank
    decay: float


class Integrator(Regime):
    """The steps of the integrator around those of the optimiser. `caps`: the highest rank of each layer."""

    def __init__(
        self, truncation: Truncation, caps: Mapping[str, int], config: Settings, clip: float | None = None
    ) -> None:
        self._truncation, self._caps, self._config, self._clip = truncation, caps, config, clip
        self._trained: list[Trained] = []
        self._settled = False

    @property
    def ranks(self) -> dict[str, int]:
        """Those of the moment, by layer."""
        return {one.matrix.name: one.low.rank for one in self._trained}

    def begin(self, network: nn.Module, forward: Forward, example: Batch, seed: int) -> None:
        self._network = network
        free = [group["params"] for group in parameter_groups(network) if group.get("weight_decay") == 0]
        spared = {id(one) for group in free for one in group}
        for matrix in self._truncation.matrices:
            start = drawn if self._config.from_scratch else truncated
            parts = start(matrix, self._caps[matrix.name], derive(seed, "dlrt", matrix.name))
            low = LowRank(matrix.layer, *(one.to(matrix.layer.weight) for one in parts))
            put(network, matrix.name, low)
            self._trained.append(Trained(matrix, low, 0.0 if id(matrix.layer.weight) in spared else 1.0))

    def optimizing(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        optimizer.register_step_pre_hook(self._core)

    def before_step(self, step: int, steps: int) -> None:
        self._settled = step >= steps * (1 - self._config.settle)

    def before_gradients(self, gradients: Callable[[], object]) -> None:
        if self._settled:
            return
        for one in self._trained:
            one.low.open()
        gradients()
        if self._clip is not None:
            nn.utils.clip_grad_norm_([part for one in self._trained for part in (one.low.K, one.low.L)], self._clip)
        for one in self._trained:
            one.low.augment(self._rate, one.decay * self._decay)

    def _core(self, *_: object) -> None:
        """Ahead of the optimiser, which leaves parameters without gradients alone."""
        for one in self._trained:
            one.low.step(self._rate, one.decay * self._decay)

    def after_step(self) -> None:
        if self._settled:
            return
        for one in self._trained:
            one.low.truncate(lambda values, one=one: self._rank(one.matrix, values))

    def end(self) -> None:
        for one in self._trained:
            low = one.low
            low.truncate(len)
            put(self._network, one.matrix.name, factors(one.matrix.layer, low.V.T, low.S.detach(), low.U))

    def description(self) -> Mapping[str, Any]:
        return {"dlrt": self._config.model_dump(mode="json")}

    def _rank(self, matrix: Matrix, values: Tensor) -> int:
        found = self._truncation.rounded(matrix, rank_within(values, self._config.tolerance))
        return min(found, self._caps[matrix.name], len(values))

    @property
    def _rate(self) -> float:
        """That of the moment."""
        rate: float = self._optimizer.param_groups[0]["lr"]
        return rate if self._config.lr is None else rate * self._config.lr / self._optimizer.defaults["lr"]

    @property
    def _decay(self) -> float:
        decay: float = self._optimizer.defaults["weight_decay"]
        return decay


def truncated(matrix: Matrix, rank: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """U, S and V of the best approximation of a layer's weight."""
    left, values, right = torch.linalg.svd(matrix.weight(), full_matrices=False)
    return left[:, :rank], values[:rank].diag(), right[:rank].T


def drawn(matrix: Matrix, rank: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random U and V, and S with the sizes of normal numbers on its diagonal, as the authors begin."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (
        orthonormal(torch.randn(length, rank, generator=generator, dtype=torch.float64))
        for length in (matrix.rows, matrix.columns)
    )
    return left, torch.randn(rank, generator=generator, dtype=torch.float64).abs().diag(), right
