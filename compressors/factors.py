"""Layers as matrices: which of them two smaller layers can stand for, what that saves, and these layers.

A linear map is its weight W [n, m]; a convolution is W [n, m = channels x kernel] on the patches that it reads. In the
place of W = L R, L [n, r] and R [r, m], stand a linear map (a convolution with the same kernel, stride and padding)
onto r features, without a bias, and one (1 x 1) onto the n outputs, with the bias of W: r (n + m) products at every
position instead of n m.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from compressors.compressor import Part, Plan, Subject
from compressors.groups.groups import Fixed
from nas_core.errors import UsageError
from search_spaces.unfused import unfused
from training.tasks import sample_inputs

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d)
TRANSFORMER_LAYERS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)

Ranks = Mapping[str, int]
"""By the name of a layer; one that stays as it is, is not in it."""


@dataclass(frozen=True)
class Matrix:
    """The weight of the layer `name`, which is applied at `positions` places of one sample (of a whole graph)."""

    name: str
    layer: Any
    positions: int

    @property
    def rows(self) -> int:
        return int(self.layer.weight.shape[0])

    @property
    def columns(self) -> int:
        return int(self.layer.weight[0].numel())

    @property
    def limit(self) -> int:
        """The largest rank r whose factors are smaller than the matrix: r (n + m) < n m."""
        return (self.rows * self.columns - 1) // (self.rows + self.columns)

    def weight(self) -> Tensor:
        """[rows, columns], float64."""
        return self.layer.weight.detach().flatten(1).double()

    def saved(self, rank: int) -> dict[str, int]:
        """What factors of this rank save of the network's costs."""
        count = self.rows * self.columns - rank * (self.rows + self.columns)
        return {"params": count, "macs": self.positions * count}


def matrices(
    network: nn.Module, subject: Subject, least: int = 1, classifier: bool = False
) -> tuple[tuple[Matrix, ...], tuple[Fixed, ...]]:
    """The layers of a network that two others can stand for, in the order of its computation, and those that must stay,
    with the reason. `least`: the lowest rank that counts; the last layer, the classifier, stays unless `classifier` is
    asked for.

    Raises UsageError where there is none of the former.
    """
    layers = {name: one for name, one in network.named_modules() if isinstance(one, (*KINDS, nn.modules.conv._ConvNd))}
    seen = positions(network, layers, inputs_of(network, subject))
    names = Counter(id(one) for _, one in network.named_parameters(remove_duplicate=False))
    last = next(reversed(seen), None)
    found, fixed = {}, []
    for name, layer in layers.items():
        matrix = Matrix(name, layer, seen.get(name, 0))
        reason = _why_not(matrix, names, subject.ignored)
        if not reason and name == last and not classifier:
            reason = "it is the classifier"
        if not reason and matrix.limit < least:
            reason = f"{matrix.rows} x {matrix.columns} are too few for factors of rank {least}"
        if reason:
            fixed.append(Fixed(name, matrix.rows, type(layer).__name__, name, reason))
        else:
            found[name] = matrix
    if not found:
        why = "; ".join(f"'{one.name}': {one.reason}" for one in fixed[:3])
        raise UsageError(f"no layer of the network can be of low rank{f' ({why})' if why else ''}")
    return tuple(found[name] for name in seen if name in found), tuple(fixed)


def _why_not(matrix: Matrix, names: Counter[int], ignored: Collection[str]) -> str:
    """Why a layer must stay as it is; empty where nothing speaks for that."""
    layer, name = matrix.layer, matrix.name
    if any(name == one or name.startswith(f"{one}.") for one in ignored):
        return "it is to stay"
    if type(layer) not in KINDS or layer._parameters.get("weight") is None:
        return f"it is a {type(layer).__name__}"
    if layer._forward_hooks or layer._forward_pre_hooks:
        return "it has hooks"
    if getattr(layer, "groups", 1) > 1:
        return f"it has {layer.groups} groups"
    if getattr(layer, "padding_mode", "zeros") != "zeros":
        return f"it pads by {layer.padding_mode}"
    if names[id(layer.weight)] > 1:
        return "its weight is another layer's too"
    return "" if matrix.positions else "it is not called, so that its weight may be read by others"


def inputs_of(network: nn.Module, subject: Subject, batch: int = 1) -> tuple[Tensor, ...]:
    """Inputs of the network's task, where its parameters are."""
    device = next(network.parameters()).device
    return tuple(one.to(device) for one in sample_inputs(subject.task, batch))


def positions(network: nn.Module, layers: Mapping[str, nn.Module], inputs: Sequence[Tensor]) -> dict[str, int]:
    """At how many positions the layers of a network are applied, in the order of their first calls; those that are not
    called are left out."""
    found: dict[str, int] = {}

    def called(name: str, layer: Any, output: Tensor) -> None:
        found[name] = found.get(name, 0) + output.numel() // layer.weight.shape[0]

    with watched(network, layers, lambda name, layer, _, output: called(name, layer, output)):
        network(*inputs)
    return found


@contextmanager
def watched(
    network: nn.Module, layers: Mapping[str, nn.Module], seen: Callable[[str, nn.Module, Tensor, Tensor], None]
) -> Iterator[None]:
    """Passes within, in evaluation mode and without gradients, tell `seen` of every call of the layers: name, layer,
    input, output. The fused path of transformers, which passes the layers by, is off."""
    training = {module: module.training for module in network.modules()}
    network.eval()
    handles = [
        layer.register_forward_hook(lambda layer, inputs, output, name=name: seen(name, layer, inputs[0], output))
        for name, layer in layers.items()
    ]
    try:
        with torch.no_grad(), unfused():
            yield
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode


def tails(values: Tensor) -> Tensor:
    """|values[r:]| / |values| for every rank r from 0, for singular values that fall; zeros where all are 0."""
    squared = values.double().square().flip(0).cumsum(0).flip(0)
    return (squared / squared[0].clamp(min=torch.finfo(torch.float64).tiny)).sqrt()


def rank_within(values: Tensor, tolerance: float) -> int:
    """The smallest rank r with |values[r:]| <= tolerance |values|, for singular values that fall."""
    return int((tails(values) > tolerance).sum())


@dataclass(frozen=True)
class Truncation:
    """What the layers of a network come to at one tolerance for all of them. `values`: the singular values of each
    matrix, falling; `base`: the costs of the network as it is; `caps`: the largest ranks of factors."""

    matrices: tuple[Matrix, ...]
    values: Mapping[str, Tensor]
    base: Mapping[str, float]
    least: int = 1
    round_to: int = 1

    def ranks(self, tolerance: float) -> dict[str, int]:
        """The smallest ranks within a tolerance, of those layers of which factors are smaller."""
        return self.smaller({one.name: rank_within(self.values[one.name], tolerance) for one in self.matrices})

    def smaller(self, ranks: Ranks) -> dict[str, int]:
        """These ranks, rounded, of the layers of which factors are smaller then."""
        found = {one.name: self.rounded(one, ranks[one.name]) for one in self.matrices}
        return {one.name: found[one.name] for one in self.matrices if found[one.name] <= one.limit}

    def rounded(self, matrix: Matrix, rank: int) -> int:
        """At least `least`, and the next multiple of `round_to` where factors are smaller then."""
        rank = max(rank, self.least)
        multiple = -(-rank // self.round_to) * self.round_to
        return multiple if multiple <= matrix.limit else rank

    def costs(self, ranks: Ranks) -> dict[str, float]:
        """Those of the network with factors of these ranks; no network is built."""
        saved: Counter[str] = Counter()
        for one in self.matrices:
            saved.update(one.saved(ranks[one.name]) if one.name in ranks else {})
        return {name: value - saved[name] for name, value in self.base.items()}

    @cached_property
    def reachable(self) -> dict[str, tuple[float, float, float]]:
        """Per cost the least, that with half of the ranks that save something, and that with all layers as they are."""
        lowest = self.costs({one.name: self.rounded(one, self.least) for one in self.matrices})
        middle = self.costs({one.name: self.rounded(one, one.limit // 2) for one in self.matrices})
        return {name: (lowest[name], middle[name], value) for name, value in self.base.items()}

    def within(self, limits: Mapping[str, float]) -> dict[str, int]:
        """The ranks at the lowest tolerance at which no cost is above its limit, found by bisection."""
        steps = torch.cat([torch.zeros(1), *(tails(values).cpu() for values in self.values.values())]).unique().tolist()
        met = bisect_left(steps, True, key=lambda one: self._meets(one, limits))
        return self.ranks(steps[min(met, len(steps) - 1)])

    def _meets(self, tolerance: float, limits: Mapping[str, float]) -> bool:
        costs = self.costs(self.ranks(tolerance))
        return all(costs[name] <= limit for name, limit in limits.items())

    def limits(self, subject: Subject) -> dict[str, float]:
        """What the targets allow. Raises UsageError for one that cannot be reached, is met already, or is of no cost
        that ranks change."""
        found = {}
        for target in subject.targets:
            if target.metric not in self.base:
                raise UsageError(f"target '{target}': low ranks change {' and '.join(self.base)} alone")
            lowest, _, now = self.reachable[target.metric]
            limit = found[target.metric] = target.limit({**self.base, **subject.base})
            if limit < lowest:
                raise UsageError(
                    f"target '{target}' cannot be met: with rank {self.least} in every layer that factors can stand "
                    f"for, {target.metric} is {lowest:,g} ({lowest / now:.3g}x)"
                )
            if now <= limit:
                raise UsageError(f"target '{target}' is met already: {target.metric} is {now:,g}")
        return found

    def plan(self, ranks: Ranks, fixed: Sequence[Fixed], said: str) -> Plan:
        """The layers with their ranks, and what they come to."""
        parts = tuple(
            Part(
                one.name,
                min(one.rows, one.columns),
                self.least,
                {name: float(value) for name, value in one.saved(self.least).items()},
                f"{said} {ranks[one.name]} of {min(one.rows, one.columns)}" if one.name in ranks else "stays as it is",
            )
            for one in self.matrices
        )
        return Plan(parts, tuple(fixed), self.costs(ranks), self.reachable)


def spectrum(matrix: Matrix) -> Tensor:
    """The singular values of a layer's weight, falling."""
    return torch.linalg.svdvals(matrix.weight())


def factors(layer: Any, *weights: Tensor) -> nn.Sequential:
    """What stands for a layer whose weight is a product: `weights` are its factors in the order in which they are
    applied, [r, m] to what the layer reads, others [r, r], and [n, r], which has the bias of the layer."""
    made = [_factor(layer, weights[0], None, reads=True), *(_factor(layer, one, None) for one in weights[1:-1])]
    return nn.Sequential(*made, _factor(layer, weights[-1], layer.bias)).train(layer.training)


def _factor(layer: Any, weight: Tensor, bias: nn.Parameter | None, reads: bool = False) -> nn.Module:
    """A linear map, or a convolution: with the kernel of the layer, or of one position."""
    of: Any = type(layer)
    given: dict[str, Any] = {"bias": bias is not None, "device": "meta"}  # nothing is drawn
    if of is nn.Linear:
        made = of(weight.shape[1], weight.shape[0], **given)
    elif reads:
        given |= {name: getattr(layer, name) for name in ("kernel_size", "stride", "padding", "dilation")}
        made = of(layer.in_channels, weight.shape[0], **given)
    else:
        made = of(weight.shape[1], weight.shape[0], 1, **given)
    kept = weight.to(layer.weight.dtype).reshape(made.weight.shape).contiguous()
    made.weight = nn.Parameter(kept, layer.weight.requires_grad)
    if bias is not None:
        made.bias = bias
    return made


def said(rows: int, columns: int, rank: int) -> dict[str, int]:
    """What a report says of a layer of low rank."""
    weights = {"weights_before": rows * columns, "weights": rank * (rows + columns)}
    return {"rank": rank, "of": min(rows, columns), **weights}


def put(network: nn.Module, name: str, layer: nn.Module) -> None:
    """Put a layer in another one's place. What reads the weights of that one without calling it, the fused path of
    transformers, is left out from then on."""
    above, _, last = name.rpartition(".")
    owner = network.get_submodule(above)
    setattr(owner, last, layer)
    if isinstance(owner, TRANSFORMER_LAYERS):
        owner.activation_relu_or_gelu = 0
        for module in network.modules():
            if isinstance(module, nn.TransformerEncoder):
                module.use_nested_tensor = False


def split(values: Tensor, rows: Tensor, columns: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The factors [rank, m] and [n, rank] of a singular value decomposition, in the order in which they are applied;
    both have the roots of the singular values, so that they are of one size."""
    roots = values[:rank].sqrt()
    return roots[:, None] * columns[:rank], rows[:, :rank] * roots
