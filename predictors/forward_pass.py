"""What zero-cost proxies are given: an untrained network, a batch, and one labelled pass that they share.

Weights are those of convolutions and linear layers (parameters called `weight` with two or more dimensions), as in
"Zero-Cost Proxies for Lightweight NAS" (Abdelfattah et al., ICLR 2021): neither biases nor normalisation. A weight
that the loss does not reach has the gradient 0.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.dropout import _DropoutNd

from nas_core.batch import Batch
from nas_core.seeds import derive
from nas_core.task import Task
from predictors import double_backward
from predictors.experts import sorted_rows
from predictors.function_hooks import FunctionHooks
from predictors.layers import Layers, Stage, Tap
from predictors.need import Need
from search_spaces.layers.rational import Rational
from training.compute import answers_alone
from training.tasks import kind_of

Loss = Callable[[Tensor, Batch], Tensor]

NODES = 256
"""How many labelled nodes of a graph are samples at most: what compares all pairs of samples grows with the square."""

_NORMALISATION = (nn.LayerNorm, nn.RMSNorm)  # those whose weights may have two or more dimensions


@dataclass(slots=True)
class LabelledPass:
    """One forward pass of the batch in training mode, and what was asked of it (`Need`); the rest is empty.

    n is the number of samples: images, or the nodes of `batch.index`. g and H are the gradient and the Hessian of the
    loss with respect to all weights together.
    """

    output: Tensor  # [n, outputs]
    gradients: dict[str, Tensor] = field(default_factory=dict)  # by weight, its shape
    curvature: dict[str, Tensor] = field(default_factory=dict)  # by weight, [] float64: its product with H g
    channels: dict[str, Tensor] = field(default_factory=dict)  # by weight, [output channels]
    units: int = 0  # activation units of one sample
    codes: Tensor | None = None  # [n, n] float64: how many units are on for both, or off for both
    sorted_rows: frozenset[str] = frozenset()  # layers whose units are of no sample (`predictors.experts`)
    jacobian: Tensor | None = None  # [n, values of one input]; none where inputs are integers


class ForwardPass:
    """An untrained network in training mode, without dropout, and the batch that it is scored with.

    `build` makes the network; the same `seed` gives the same weights. `loss(output, batch)` is the mean over samples.
    `needs`: what the shared pass must give. Of a graph with more than `NODES` labelled nodes, as many are drawn; of
    pairs of nodes at most as many that share no node, since in those that do half of what is compared is equal.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        batch: Batch,
        loss: Loss,
        task: Task,
        *,
        needs: Need = Need.NOTHING,
        seed: int = 0,
    ) -> None:
        self.loss, self.task, self.seed = loss, task, seed
        self._needs = needs
        self.batch = self._few_nodes(batch)
        self.device = batch.inputs[0].device
        with _seeded(derive(seed, "weights")):
            model = build()
        self.model = answers_alone(_without_dropout(model).to(self.device).train())

    def copy(self) -> nn.Module:
        """A network of a proxy's own, equal to `model`."""
        return copy.deepcopy(self.model)

    def generator(self, purpose: str) -> torch.Generator:
        """Random numbers for one purpose, on the CPU so that every device sees the same ones."""
        return torch.Generator().manual_seed(derive(self.seed, purpose))

    def run(self, model: nn.Module, batch: Batch | None = None) -> Tensor:
        """The outputs of a batch (by default its own), `[n, *task.answer]` for samples and for all nodes of a graph;
        those of an auxiliary head are left out. What the network draws at random, it draws in every pass alike."""
        with _seeded(derive(self.seed, "forward"), self.device):
            output = model(*(batch or self.batch).inputs)
        return output[0] if isinstance(output, tuple) else output

    def with_inputs(self, first: Tensor) -> Batch:
        """A batch of other first inputs; what else the network is given is that of the first sample for all of them, of
        a graph that of the graph. Its targets are of no use."""
        others = self.batch.inputs[1:]
        if kind_of(self.task).apart:
            others = tuple(value[:1].expand(len(first), *value.shape[1:]) for value in others)
        return replace(self.batch, inputs=(first, *others))

    def select(self, values: Tensor) -> Tensor:
        """The rows of the samples: all of them, or those of the nodes in `batch.index`."""
        return values if self.batch.index is None else values[self.batch.index]

    def by_sample(self, values: Tensor, batch: Batch | None = None) -> Tensor:
        """A row for each sample of a batch (by default its own): of many graphs the mean over the nodes of each, of
        pairs both nodes side by side, where the rows are those of nodes."""
        batch = batch or self.batch
        if self.task.level == "pair":
            ends = batch.inputs[-1] if batch.index is None else batch.inputs[-1][:, batch.index]
            return torch.cat([values[ends[0]], values[ends[1]]], 1)
        if not batch.graphs:
            return values if batch.index is None else values[batch.index]
        counts = batch.inputs[-1]
        if len(values) == len(counts):
            return values
        graph_of = torch.arange(len(counts), device=values.device).repeat_interleave(counts, output_size=len(values))
        sums = values.new_zeros(len(counts), *values.shape[1:]).index_add(0, graph_of, values)
        return sums / counts.view(-1, *[1] * (values.dim() - 1))

    @property
    def samples(self) -> int:
        """How many there are of what proxies compare: samples, or graphs."""
        return self.batch.size

    def halves(self) -> tuple[Batch, Batch]:
        """The batch in two disjoint halves of equal size; of a graph the same graph with half of the nodes each.

        Raises ValueError for fewer than two samples.
        """
        half = self.samples // 2
        if half == 0:
            raise ValueError(f"a batch of {self.samples} sample has no halves")
        return self.part(0, half), self.part(half, 2 * half)

    def part(self, start: int, stop: int) -> Batch:
        """The samples `start` to `stop`."""
        return self.batch.part(start, stop)

    def gradients(self, batch: Batch) -> dict[str, Tensor]:
        """The gradients of the mean loss of another batch, by weight."""
        named = weights(self.model)
        with self._untouched(), torch.enable_grad():
            found = _gradients([self.loss(self.run(self.model, batch), batch)], list(named.values()))
        return {name: _filled(one, weight) for (name, weight), one in zip(named.items(), found, strict=True)}

    @cached_property
    def passed(self) -> LabelledPass:
        """The labelled pass, computed when it is first read. Batch statistics couple the samples, as in training."""
        with self._untouched():
            return _labelled_pass(self, self._needs)

    @contextmanager
    def _untouched(self) -> Iterator[None]:
        """Leaves the buffers of the model as they are."""
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)

    def _few_nodes(self, batch: Batch) -> Batch:
        if batch.index is None or (len(batch.index) <= NODES and self.task.level != "pair"):
            return batch
        order = torch.randperm(len(batch.index), generator=self.generator("nodes"))
        if self.task.level == "pair":
            order = _apart(batch.inputs[-1][:, batch.index].cpu(), order)
        return Batch(batch.inputs, batch.target, batch.index[order[:NODES].sort().values.to(batch.index.device)])


def _apart(pairs: Tensor, order: Tensor) -> Tensor:
    """The first of the pairs [2, p] in this order, at most `NODES` of which no two share a node."""
    seen: set[int] = set()
    found = []
    for number, ends in zip(order.tolist(), pairs[:, order].T.tolist(), strict=True):
        if seen.isdisjoint(ends):
            seen.update(ends)
            found.append(number)
        if len(found) == NODES:
            break
    return torch.tensor(found)


def weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of convolutions and linear layers, by name."""
    norms = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, _NORMALISATION)
        for parameter in module.parameters(recurse=False)
    }
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if name.rpartition(".")[2] == "weight" and parameter.dim() >= 2 and id(parameter) not in norms
    }


def total(parts: Iterable[Tensor]) -> float:
    """The sum of the entries of all parts, summed in float64; minus infinity where that is no finite number, so that
    a network whose numbers overflow is not the best one."""
    found = sum(part.sum(dtype=torch.float64).item() for part in parts)
    return found if math.isfinite(found) else -math.inf


def _gradients(
    values: Sequence[Tensor | None],
    inputs: Sequence[Tensor | GradientEdge],
    grad_outputs: Sequence[Tensor] | None = None,
    **options: bool,
) -> list[Tensor | None]:
    """`torch.autograd.grad`, with None for what the values do not depend on, even where they depend on nothing."""
    live = [position for position, value in enumerate(values) if value is not None and value.requires_grad]
    if not live or not inputs:
        return [None] * len(inputs)
    given = None if grad_outputs is None else [grad_outputs[position] for position in live]
    chosen = [values[position] for position in live]
    return list(torch.autograd.grad(chosen, list(inputs), given, allow_unused=True, **options))


def _filled(found: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if found is None else found.detach()


def _labelled_pass(forward: ForwardPass, needs: Need) -> LabelledPass:
    named = weights(forward.model)
    codes = _Codes(forward) if needs & Need.CODES else None
    curved = bool(needs & Need.CURVATURE)
    jacobian = bool(needs & Need.JACOBIAN) and forward.batch.inputs[0].is_floating_point()
    by_loss = curved or bool(needs & (Need.GRADIENTS | Need.CHANNELS))
    # Fused attention has no second derivative.
    attention = sdpa_kernel(SDPBackend.MATH) if curved else nullcontext()
    inputs = forward.batch.inputs
    if jacobian:
        inputs = (inputs[0].detach().requires_grad_(), *inputs[1:])
    layers = Layers(named, inputs[0], tapped=bool(needs & Need.CHANNELS), scaled=curved)
    hooks = FunctionHooks(
        codes.add if codes else None, layers.instead | ({"batch_norm": double_backward.batch_norm} if curved else {})
    )
    with torch.set_grad_enabled(by_loss or jacobian), attention, hooks, sorted_rows(forward.model) as layers_of_experts:
        output = forward.run(forward.model, replace(forward.batch, inputs=inputs))
    found = LabelledPass(forward.select(output).detach())
    if codes is not None:
        found.units, found.codes = codes.units, codes.agreement
        found.sorted_rows = frozenset(layers_of_experts)
    with torch.enable_grad():
        if jacobian:
            (rows,) = _gradients([forward.select(output).sum()], [inputs[0]], retain_graph=by_loss)
            found.jacobian = forward.by_sample(_filled(rows, inputs[0]).flatten(1))
        if by_loss:
            _by_loss(forward, forward.loss(output, forward.batch), named, layers, found, curved)
    return found


def _by_loss(
    forward: ForwardPass, loss: Tensor, named: Mapping[str, Tensor], layers: Layers, found: LabelledPass, curved: bool
) -> None:
    """The gradients of the loss, and what is made of them."""
    edges = [tap.edge for tap in layers.taps]
    layers.backward.stage = Stage.WEIGHTS
    everything = _gradients([loss], [*named.values(), *layers.leaves.values(), *edges], create_graph=curved)
    inside = dict(zip(layers.leaves, everything[len(named) :], strict=False))  # from the layers
    beside = dict(zip(named, everything, strict=False))  # from elsewhere, where there are leaves
    for name, weight in named.items():
        gradient = _filled(beside[name], weight)
        found.gradients[name] = gradient + _filled(inside[name], weight) if name in inside else gradient
    for tap, gradient in zip(layers.taps, everything[len(named) + len(inside) :], strict=True):
        information = _fisher(forward, tap, _filled(gradient, tap.value))
        before = found.channels.get(tap.name)
        found.channels[tap.name] = information if before is None else before + information
    if curved:
        found.curvature = _curvature(named, layers, inside, beside, found.gradients)


def _curvature(
    named: Mapping[str, Tensor],
    layers: Layers,
    inside: Mapping[str, Tensor | None],
    beside: Mapping[str, Tensor | None],
    gradients: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """theta' (H g) by weight: by its scale where all of its gradient comes from layers, else by H g."""
    scaled = [name for name in inside if beside[name] is None]
    direct = [(name, leaf) for name, leaf in [*named.items(), *layers.leaves.items()] if name not in scaled]
    layers.backward.stage, layers.backward.direct = Stage.SCALES, frozenset(named) - frozenset(scaled)
    second = _gradients(
        [*inside.values(), *beside.values()],
        [*(layers.scales[name] for name in scaled), *(leaf for _, leaf in direct)],
        [gradients[name] for name in (*inside, *beside)],
    )
    found = {name: torch.zeros((), dtype=torch.float64, device=weight.device) for name, weight in named.items()}
    for name, by_scale in zip(scaled, second, strict=False):
        if by_scale is not None:
            found[name] = by_scale - gradients[name].double().square().sum()
    for (name, leaf), product in zip(direct, second[len(scaled) :], strict=True):
        if product is not None:
            found[name] = found[name] + (leaf.detach() * product).sum(dtype=torch.float64)
    return found


def _fisher(forward: ForwardPass, tap: Tap, gradient: Tensor) -> Tensor:
    """Per output channel half the mean over samples of the squared sum over positions of value times gradient
    (Theis et al. 2018, eq. 5; Turner et al., "BlockSwap", ICLR 2020, eq. 4)."""
    product = tap.value * gradient
    if tap.linear:
        product = product.movedim(-1, 1)
    if product.dim() > 2:
        product = product.flatten(2).sum(2)
    return product.square().sum(0) / (2 * forward.samples)


class _Codes:
    """Adds up how many activation units agree, for every pair of samples."""

    def __init__(self, forward: ForwardPass) -> None:
        self._forward = forward
        self._rows = {len(forward.batch.inputs[0]), forward.samples if forward.batch.graphs else -1}
        self.units = 0
        self.agreement = torch.zeros(forward.samples, forward.samples, dtype=torch.float64, device=forward.device)

    def add(self, x: Tensor) -> None:
        """On and off units of one activation; one that does not keep the samples apart is left out.

        Of a graph among many a unit is on for a share of its nodes; what agrees is expected of a node of each.
        """
        if x.dim() < 2 or len(x) not in self._rows:
            return
        on = self._forward.by_sample((x.detach().flatten(1) > 0).float())
        both = on @ on.T
        count, units = on.sum(1), on.shape[1]
        # Both on, or both off: b b' + (1 - b)(1 - b)'.
        self.agreement += 2 * both - count[:, None] - count[None, :] + units
        self.units += units


@contextmanager
def _seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Random numbers from `seed`, on the CPU and on `device`; afterwards those of others go on as before."""
    cuda = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def _without_dropout(model: nn.Module) -> nn.Module:
    """Sets the probabilities of dropout to 0: of torch's modules, and of those with a number called `dropout`. Likewise
    the random part of a rational activation's coefficients."""
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
        elif isinstance(module, Rational):
            module.noise = 0.0
    return model
