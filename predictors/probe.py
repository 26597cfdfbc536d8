"""What zero-cost proxies are given: an untrained network, a batch, and one labelled pass that they share.

Weights are those of convolutions and linear layers (parameters called `weight` with two or more dimensions), as in
"Zero-Cost Proxies for Lightweight NAS" (Abdelfattah et al., ICLR 2021): neither biases nor normalisation. A weight
that the loss does not reach has the gradient 0.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from nas_core.batch import Batch
from nas_core.seeds import derive
from nas_core.task import Task
from predictors.proxy import Need
from predictors.watch import Watch

Loss = Callable[[Tensor, Batch], Tensor]


@dataclass(slots=True)
class Pass:
    """One forward pass of the batch in training mode, and what was asked of it (`Need`); the rest is empty.

    n is the number of samples: images, or the nodes of `batch.index`.
    """

    output: Tensor  # [n, outputs]
    gradients: dict[str, Tensor] = field(default_factory=dict)  # by weight, its shape
    curvature: dict[str, Tensor] = field(default_factory=dict)  # by weight, its shape
    channels: dict[str, Tensor] = field(default_factory=dict)  # by weight, [output channels]
    units: int = 0  # activation units of one sample
    codes: Tensor | None = None  # [n, n] float64: how many units are on for both, or off for both
    jacobian: Tensor | None = None  # [n, values of one input]


class Probe:
    """An untrained network in training mode, without dropout, and the batch that it is scored with.

    `build` makes the network; the same `seed` gives the same weights. `loss(output, batch)` is the mean over samples.
    `needs`: what the shared pass must give.
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
        self.batch, self.loss, self.task, self.seed = batch, loss, task, seed
        self._needs = needs
        self.device = batch.inputs[0].device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "weights"))
            model = build()
        self.model = _without_dropout(model).to(self.device).train()

    def copy(self) -> nn.Module:
        """A network of a proxy's own, equal to `model`."""
        return copy.deepcopy(self.model)

    def generator(self, purpose: str) -> torch.Generator:
        """Random numbers for one purpose, on the CPU so that every device sees the same ones."""
        return torch.Generator().manual_seed(derive(self.seed, purpose))

    def run(self, model: nn.Module, batch: Batch | None = None) -> Tensor:
        """The outputs of a batch (by default the probe's own), `[n, outputs]` for images and for all nodes of a graph;
        those of an auxiliary head are left out."""
        output = model(*(batch or self.batch).inputs)
        return output[0] if isinstance(output, tuple) else output

    def select(self, values: Tensor) -> Tensor:
        """The rows of the samples: all of them, or those of the nodes in `batch.index`."""
        return values if self.batch.index is None else values[self.batch.index]

    @property
    def samples(self) -> int:
        return len(self.batch.target if self.batch.index is None else self.batch.index)

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
        batch = self.batch
        if batch.index is not None:
            return Batch(batch.inputs, batch.target, batch.index[start:stop])
        return Batch(tuple(value[start:stop] for value in batch.inputs), batch.target[start:stop])

    @cached_property
    def passed(self) -> Pass:
        """The labelled pass, computed when it is first read. Batch statistics couple the samples, as in training."""
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        try:
            return _labelled_pass(self, self._needs)
        finally:
            with torch.no_grad():
                for name, buffer in self.model.named_buffers():
                    buffer.copy_(buffers[name])


def weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of convolutions and linear layers, by name."""
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if name.rpartition(".")[2] == "weight" and parameter.dim() >= 2
    }


def _labelled_pass(probe: Probe, needs: Need) -> Pass:
    named = weights(probe.model)
    names = {id(weight): name for name, weight in named.items()}
    codes = _Codes(probe) if needs & Need.CODES else None
    taps: list[tuple[str, Tensor]] = []

    def tap(weight: Tensor, output: Tensor) -> None:
        if id(weight) in names and output.requires_grad:
            taps.append((names[id(weight)], output))

    inputs = probe.batch.inputs
    if needs & Need.JACOBIAN:
        inputs = (inputs[0].detach().requires_grad_(), *inputs[1:])
    watch = Watch(codes.add if codes else None, tap if needs & Need.CHANNELS else None)
    by_loss = needs & (Need.GRADIENTS | Need.CURVATURE | Need.CHANNELS)
    with torch.set_grad_enabled(bool(by_loss or needs & Need.JACOBIAN)), watch:
        output = probe.run(probe.model, Batch(inputs, probe.batch.target, probe.batch.index))
    found = Pass(probe.select(output).detach())
    if codes is not None:
        found.units, found.codes = codes.units, codes.agreement
    if needs & Need.JACOBIAN:
        summed = probe.select(output).sum()
        (jacobian,) = torch.autograd.grad(summed, inputs[0], retain_graph=bool(by_loss), materialize_grads=True)
        found.jacobian = probe.select(jacobian).flatten(1)
    if by_loss:
        _by_loss(probe, output, needs, named, taps, found)
    return found


def _by_loss(
    probe: Probe, output: Tensor, needs: Need, named: Mapping[str, Tensor], taps: list[tuple[str, Tensor]], found: Pass
) -> None:
    """The gradients of the loss, and what is made of them."""
    tapped = [value for _, value in taps]
    curved = bool(needs & Need.CURVATURE)
    everything = torch.autograd.grad(
        probe.loss(output, probe.batch),
        [*named.values(), *tapped],
        create_graph=curved,
        materialize_grads=True,
    )
    gradients = everything[: len(named)]
    found.gradients = {name: gradient.detach() for name, gradient in zip(named, gradients, strict=True)}
    for (name, value), gradient in zip(taps, everything[len(named) :], strict=True):
        information = _fisher(probe, value.detach(), gradient.detach())
        found.channels[name] = found.channels[name] + information if name in found.channels else information
    if curved:
        product = sum((gradient.detach() * gradient).sum() for gradient in gradients)
        assert isinstance(product, Tensor)
        second = torch.autograd.grad(product, list(named.values()), materialize_grads=True, allow_unused=True)
        found.curvature = dict(zip(named, second, strict=True))


def _fisher(probe: Probe, value: Tensor, gradient: Tensor) -> Tensor:
    """Per output channel half the mean over samples of the squared sum over positions of value times gradient
    (Theis et al. 2018, eq. 5; Turner et al., "BlockSwap", ICLR 2020, eq. 4)."""
    product = value * gradient
    if product.dim() > 2:
        product = product.flatten(2).sum(2)
    return product.square().sum(0) / (2 * probe.samples)


class _Codes:
    """Adds up how many activation units agree, for every pair of samples."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._rows = len(probe.batch.inputs[0])
        self.units = 0
        self.agreement = torch.zeros(probe.samples, probe.samples, dtype=torch.float64, device=probe.device)

    def add(self, x: Tensor) -> None:
        """On and off units of one activation; one that does not keep the samples apart is left out."""
        if x.dim() < 2 or len(x) != self._rows:
            return
        on = (self._probe.select(x.detach()).flatten(1) > 0).float()
        both, count = on @ on.T, on.sum(1)
        units = on.shape[1]  # both on, or both off: b b' + (1 - b)(1 - b)'
        self.agreement += 2 * both - count[:, None] - count[None, :] + units
        self.units += units


def _without_dropout(model: nn.Module) -> nn.Module:
    """Sets the probabilities of dropout to 0: of torch's modules, and of those with a number called `dropout`."""
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    return model
