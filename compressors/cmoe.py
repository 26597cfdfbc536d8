"""CMoE: a trained feed-forward layer becomes a mixture of experts without training (arXiv 2502.04416, section 3).

All its weights are kept; of every token fewer are used. Per feed-forward layer, one after the other, each on what the
layers that are carved already give for a few batches of the training data:

1. Hidden scores `h = act(x w_gate) * (x w_up)` of inputs and rows of norm 1; per token the `k_act` largest `|h|` are
   marked (ATopK). A unit's rate is the share of tokens that mark it.
2. The units with the highest rates are the shared experts, which every token passes.
3. The others are clustered by their columns of marks: centroids start as those of the units with the highest rates;
   a linear assignment with equal sizes minimises the sum of L1 distances; centroids become the means of their clusters.
4. An expert's representative is its unit that is nearest to its centroid; the router computes the hidden scores of the
   representatives alone.

What is carved is `search_spaces.layers.carved.CarvedFeedForward`. While it is trained, `balance` of an expert that was
chosen more often than the mean of a step falls by `bias_speed`, of one that was chosen less often rises by it.

Deviations from the paper and its repository: layers without gate (its factor is dropped, in the router as well) and
with biases (`b / |w|` beside a row of norm 1, divided by `|x|` beside an input of norm 1); a hidden value of exactly 0
is never marked (ReLU gives many); the whole network is trained by the recipe of the compression, at its one learning
rate, not low-rank updates with a rate for `scale` of its own; the router's rows stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from compressors.compressor import ONE_SHOT, Change, Check, Part, Plan, Subject, check_leaves_widths
from compressors.feed_forward import FeedForward, feed_forwards
from compressors.groups.groups import Fixed
from nas_core.config import Config
from nas_core.errors import UsageError
from nas_core.seeds import derive
from search_spaces.counter import macs
from search_spaces.layers.carved import ACTIVATIONS, DOWN, GATE, UP, CarvedFeedForward
from search_spaces.unfused import unfused
from training.regimes.regime import Regime

if TYPE_CHECKING:
    import numpy

    from nas_core.batch import Batch
    from training.compute import Forward

ROUNDING = 1e-9  # what is lost where costs of several samples are divided by their number
LARGEST_DIFFERENCE = 1e-4  # of the whole network's answer, relative, where every expert is active


class Settings(Config):
    """What carving may be told."""

    experts: int = Field(default=16, ge=2, description="parts of equal size that hidden units are divided into")
    shared: int = Field(default=2, ge=0, description="of them, that every token passes")
    active: int | None = Field(
        default=None,
        ge=1,
        description="of the others, that a token passes; by default as many as the target allows, without one such "
        "that half of all experts are computed",
    )
    k_act: int = Field(default=10, ge=1, description="largest hidden values of a token that are marked")
    batches: int = Field(default=8, ge=1, description="of the training data, on which units are scored")
    tokens: int = Field(default=8192, ge=1, description="of them that are looked at, at most, drawn at random")
    iterations: int = Field(default=1, ge=1, description="of the clustering")
    bias_speed: float = Field(default=0.001, ge=0, description="how fast the routing is balanced in training")
    min_width: int = Field(default=256, ge=2, description="of hidden units; layers with fewer stay as they are")


@dataclass(frozen=True, slots=True)
class Carving:
    """How the hidden units of a layer are divided: numbers of those of the shared experts, of each routed one
    `[routed, width]`, and of the routed ones' representatives; `rates` are those of all units."""

    shared: Tensor
    routed: Tensor
    representatives: Tensor
    rates: Tensor


class CMoE:
    """Carves every feed-forward layer of a network."""

    Config = Settings
    needs = ("ffn", "data")
    rounds = ONE_SHOT

    def __init__(self, subject: Subject, config: Settings) -> None:
        check_leaves_widths(subject)
        self._subject, self._config = subject, config
        if config.shared >= config.experts:
            raise UsageError(f"shared {config.shared}: of {config.experts} experts at least one is not shared")
        if config.active is not None and config.active > config.experts - config.shared:
            raise UsageError(
                f"active {config.active}: of {config.experts} experts {config.experts - config.shared} are not shared"
            )
        for target in subject.targets:
            if target.metric != "macs":
                raise UsageError(f"target '{target}': carving keeps all weights, so only macs can be a target")

    def plan(self, network: nn.Module) -> Plan:
        inputs = self._inputs()
        found, fixed = self._found(network, inputs)
        counted, active = macs(network, inputs), self._active(network, found, inputs)
        unit = self._unit(counted)
        routed = self._config.experts - self._config.shared
        parts = tuple(
            Part(one.name, self._config.experts, self._config.shared + 1, {"macs": unit * self._saved(network, one, 1)})
            for one in found
        )

        def cost(number: int) -> float:
            return unit * self._cost(network, found, counted, number)

        reachable = (cost(1), cost(max(1, routed // 2)), unit * counted)
        return Plan(parts, fixed, {"macs": cost(active)}, {"macs": reachable})

    def compress(self, network: nn.Module, round: int) -> Change:
        config, inputs = self._config, self._inputs()
        found, _ = self._found(network, inputs)
        active = self._active(network, found, inputs)
        carved: dict[str, CarvedFeedForward] = {}
        report = {}
        with torch.no_grad(), unfused():
            before = network(*inputs)
            for number, one in enumerate(found):
                tokens = self._tokens(network, one.gate.module, number)
                maps = one.layers(network)
                carving = self.carving(hidden_scores(tokens, maps, one.activation), number)
                layer = carved_layer(maps, carving, one.activation, active, one.dropout)
                one.replace(network, layer.to(device=tokens.device, dtype=tokens.dtype).eval())
                carved[one.name] = layer
                report[one.name] = {
                    "experts": config.experts,
                    "shared": config.shared,
                    "active": active,
                    "width": layer.width,
                    "tokens": len(tokens),
                    **captured(layer, tokens),
                }
            check = _all_active(network, carved, inputs, before, active)
        return Change(checks=(check,), report=report)

    def carving(self, scores: Tensor, layer: int) -> Carving:
        """How the units of a layer are divided, whose hidden scores are `[tokens, width]`; layers count from 0."""
        return carve(scores, self._config)

    def regime(self, network: nn.Module, round: int) -> Regime | None:
        return BalancedLoad(self._config.bias_speed)

    def _inputs(self) -> tuple[Tensor, ...]:
        return self._subject.inputs or next(iter(self._subject.data.batches("train", 0, self._subject.seed))).inputs

    def _found(self, network: nn.Module, inputs: Sequence[Tensor]) -> tuple[tuple[FeedForward, ...], tuple[Fixed, ...]]:
        """Layers that are carved, and those that are not. Raises UsageError where there is none."""
        config = self._config
        found, fixed = feed_forwards(network, inputs, self._subject.ignored)
        carved = []
        for one in found:
            reason = ""
            if one.width < config.min_width:
                reason = f"it is narrower than min_width {config.min_width}"
            elif one.width % config.experts:
                reason = f"its width {one.width} is no multiple of {config.experts} experts"
            if reason:
                fixed = (*fixed, Fixed(one.name, one.width, "linear", one.gate.module, reason))
            else:
                carved.append(one)
        if not carved:
            reasons = "; ".join(f"'{one.name}' of {one.units} units: {one.reason}" for one in fixed[:3])
            more = f"; and {len(fixed) - 3} more" if len(fixed) > 3 else ""
            raise UsageError(
                "the network has no feed-forward layer (linear map, activation, linear map) that can be carved"
                f"{f' ({reasons}{more})' if fixed else ''}"
            )
        return tuple(carved), fixed

    def _unit(self, counted: float) -> float:
        """What one MAC that is counted for the example inputs is in the unit of the targets."""
        return self._subject.base.get("macs", counted) / counted

    def _active(self, network: nn.Module, found: Sequence[FeedForward], inputs: Sequence[Tensor]) -> int:
        """Routed experts per token. Raises UsageError for a target that cannot be reached, or is reached already."""
        config, routed = self._config, self._config.experts - self._config.shared
        counted = macs(network, inputs)
        unit = self._unit(counted)
        active = min(routed, max(1, config.experts // 2 - config.shared)) if config.active is None else config.active
        for target in self._subject.targets:
            limit = target.limit({"macs": unit * counted, **self._subject.base}) * (1 + ROUNDING)
            if unit * counted <= limit:
                raise UsageError(f"target '{target}' is met already: the network has {unit * counted:.0f} macs")
            costs = {number: unit * self._cost(network, found, counted, number) for number in range(1, routed + 1)}
            allowed = [number for number, cost in costs.items() if cost <= limit]
            if not allowed:
                raise UsageError(
                    f"target '{target}' cannot be reached: with one active expert there are {costs[1]:.0f} macs "
                    f"({costs[1] / (unit * counted):.3f}x)"
                )
            if config.active is None:
                active = max(allowed)
            elif active not in allowed:
                raise UsageError(
                    f"active {active} comes to {costs[active]:.0f} macs, above the target '{target}'; take at most "
                    f"{max(allowed)}, or leave it out"
                )
        return active

    def _cost(self, network: nn.Module, found: Sequence[FeedForward], counted: float, active: int) -> float:
        """MACs where each of the layers has so many active experts, of a network that now has `counted`."""
        return counted - sum(self._saved(network, one, active) for one in found)

    def _saved(self, network: nn.Module, one: FeedForward, active: int) -> float:
        """MACs that a layer saves."""
        config = self._config
        maps = one.layers(network)
        reads = sum(maps[name].in_features for name in (GATE, UP) if name in maps)
        dense = one.width * (reads + maps[DOWN].out_features)
        routed = config.experts - config.shared
        skipped = (routed - active) * (dense // config.experts)
        return one.positions * (skipped - routed * reads)

    def _tokens(self, network: nn.Module, module: str, layer: int) -> Tensor:
        """What a module reads for the first batches of the training part, `[tokens, features]`."""
        from itertools import islice

        caught: list[Tensor] = []
        hook = network.get_submodule(module).register_forward_pre_hook(
            lambda _, inputs: caught.append(inputs[0].flatten(0, -2))
        )
        try:
            for batch in islice(self._subject.data.batches("train", 0, self._subject.seed), self._config.batches):
                network(*batch.inputs)
        finally:
            hook.remove()
        tokens = torch.cat(caught)
        if len(tokens) <= self._config.tokens:
            return tokens
        drawn = torch.Generator().manual_seed(derive(self._subject.seed, layer, "tokens"))
        kept = torch.randperm(len(tokens), generator=drawn)[: self._config.tokens]
        return tokens[kept.sort().values.to(tokens.device)]


class BalancedLoad(Regime):
    """Steers experts towards equal use by their `balance`, without a gradient (Wang et al., arXiv 2408.15664, as the
    paper takes it over)."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._layers: list[CarvedFeedForward] = []

    def begin(self, network: nn.Module, forward: Forward, example: Batch, seed: int) -> None:
        self._layers = [module for module in network.modules() if isinstance(module, CarvedFeedForward)]

    def before_step(self, step: int, steps: int) -> None:
        for layer in self._layers:
            layer.load.zero_()

    def after_step(self) -> None:
        for layer in self._layers:
            load = layer.load.to(layer.balance.dtype)
            layer.balance += self._speed * (load.mean() - load).sign()


def hidden_scores(tokens: Tensor, maps: Mapping[str, nn.Linear], activation: str) -> Tensor:
    """Of tokens `[n, features]` the hidden values `[n, width]` of inputs and rows of norm 1."""
    length = tokens.norm(dim=1, keepdim=True).clamp_min(torch.finfo(tokens.dtype).tiny)

    def mapped(name: str) -> Tensor:
        weight, bias = normalised(maps[name])
        return functional.linear(tokens / length, weight) + (0 if bias is None else bias / length)

    scores = ACTIVATIONS[activation](mapped(GATE))
    return scores * mapped(UP) if UP in maps else scores


def normalised(linear: nn.Linear) -> tuple[Tensor, Tensor | None]:
    """The rows of a linear map divided by their lengths, and its biases by the same."""
    weight = linear.weight.detach()
    length = weight.norm(dim=1).clamp_min(torch.finfo(weight.dtype).tiny)
    return weight / length[:, None], None if linear.bias is None else linear.bias.detach() / length


def carve(scores: Tensor, config: Settings) -> Carving:
    """The division of the units whose hidden scores are given, `[tokens, width]`."""
    marks = marked(scores, config.k_act)
    width = scores.shape[1] // config.experts
    ranked = marks.mean(0).argsort(descending=True, stable=True)
    shared, others = ranked[: config.shared * width], ranked[config.shared * width :].sort().values
    labels = clustered(marks[:, others], config.experts - config.shared, config.iterations)
    return divided(marks, shared.sort().values, others, labels)


def divided(marks: Tensor, shared: Tensor, others: Tensor, labels: Tensor) -> Carving:
    """The carving in which the units `others` have these labels, with its representatives."""
    columns, experts = marks[:, others], range(int(labels.max()) + 1)
    routed = torch.stack([others[labels == expert] for expert in experts])
    apart = distances(columns, means(columns, labels))
    nearest = [int(apart[(labels == expert).cpu(), expert].argmin()) for expert in experts]
    representatives = torch.stack([units[one] for units, one in zip(routed, nearest, strict=True)])
    return Carving(shared, routed, representatives, marks.mean(0))


def marked(scores: Tensor, count: int) -> Tensor:
    """1 where a hidden score is among the `count` largest of its token in absolute value and not 0, else 0."""
    sizes = scores.abs()
    chosen = sizes.topk(min(count, scores.shape[1]), 1).indices
    marks = torch.zeros_like(sizes).scatter(1, chosen, 1.0)
    return marks * (sizes > 0)


def clustered(columns: Tensor, clusters: int, iterations: int) -> Tensor:
    """The labels of marks `[tokens, units]` in clusters of equal size."""
    first = columns.mean(0).argsort(descending=True, stable=True)[:clusters]
    centroids = columns[:, first]
    for _ in range(iterations):
        labels = torch.from_numpy(assigned(distances(columns, centroids).numpy())).to(columns.device)
        centroids = means(columns, labels)
    return labels


def means(columns: Tensor, labels: Tensor) -> Tensor:
    """The centroids of labelled marks `[tokens, units]`: `[tokens, clusters]`."""
    return torch.stack([columns[:, labels == one].mean(1) for one in range(int(labels.max()) + 1)], 1)


def distances(columns: Tensor, centroids: Tensor) -> Tensor:
    """L1 distances of marks `[tokens, units]` to centroids between 0 and 1 `[tokens, clusters]`: `[units, clusters]`,
    in float64 on the CPU. There `|a - c| = a + c - 2ac`, since a is 0 or 1."""
    both = (columns.T @ centroids).double().cpu()
    return columns.sum(0).double().cpu()[:, None] + centroids.sum(0).double().cpu()[None] - 2 * both


def assigned(cost: numpy.ndarray) -> numpy.ndarray:
    """The cluster of each unit for costs `[units, clusters]`: equal sizes, the least sum (linear assignment to copies
    of the clusters; time grows with the cube of the units, a few thousand take seconds)."""
    from scipy.optimize import linear_sum_assignment

    size = cost.shape[0] // cost.shape[1]
    _, places = linear_sum_assignment(cost.repeat(size, 1))
    labels: numpy.ndarray = places // size
    return labels


def carved_layer(
    maps: Mapping[str, nn.Linear], carving: Carving, activation: str, active: int, dropout: float = 0.0
) -> CarvedFeedForward:
    """The layer of the same weights, its units in the order of a carving."""
    gate, down = maps[GATE], maps[DOWN]
    routed, width = carving.routed.shape
    layer = CarvedFeedForward(
        gate.in_features,
        gate.out_features,
        down.out_features,
        gate.out_features // width,
        gate.out_features // width - routed,
        active,
        activation,
        UP in maps,
        tuple(name for name, linear in maps.items() if linear.bias is not None),
        dropout,
    )
    order = torch.cat([carving.shared, carving.routed.flatten()])
    for name in (GATE, UP):
        if name not in maps:
            continue
        linear = maps[name]
        weight, bias = normalised(linear)
        _fill(layer.get_submodule(name), linear.weight[order], None if linear.bias is None else linear.bias[order])
        chosen = carving.representatives
        _fill(layer.get_submodule(f"router_{name}"), weight[chosen], None if bias is None else bias[chosen])
    _fill(layer.down, down.weight[:, order], down.bias)
    return layer


def _fill(linear: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    """Give a linear map these values; whether it learns stays as it is."""
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            learns = linear.get_parameter(name).requires_grad
            setattr(linear, name, nn.Parameter(value.detach().clone(memory_format=torch.contiguous_format), learns))


@torch.no_grad()
def captured(layer: CarvedFeedForward, tokens: Tensor) -> dict[str, float]:
    """The share of the routed experts' absolute hidden values that is in the chosen ones, mean over tokens: of the
    router, of a choice at random, and of the best choice."""
    inner = ACTIVATIONS[layer.activation](layer.gate(tokens))
    inner = inner if layer.up is None else inner * layer.up(tokens)
    mass = inner[:, layer.shared * layer.width :].abs().unflatten(1, (layer.routed, layer.width)).sum(2)
    share = mass / mass.sum(1, keepdim=True).clamp_min(torch.finfo(mass.dtype).tiny)
    return {
        "captured": float(share.gather(1, layer.route(tokens)[0]).sum(1).mean()),
        "captured_at_random": layer.active / layer.routed,
        "captured_at_best": float(share.topk(layer.active).values.sum(1).mean()),
    }


def _all_active(
    network: nn.Module, carved: Mapping[str, CarvedFeedForward], inputs: Sequence[Tensor], before: Tensor, active: int
) -> Check:
    """With every expert active the network answers as the dense one did."""
    for layer in carved.values():
        layer.active = layer.routed
    answer = network(*inputs)
    for layer in carved.values():
        layer.active = active
    difference = float((answer - before).abs().max() / before.abs().max().clamp_min(torch.finfo(before.dtype).tiny))
    return Check("all experts active", difference, LARGEST_DIFFERENCE)
