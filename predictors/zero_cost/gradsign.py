"""GradSign: how far the gradients of single samples agree in sign at the initial weights.

Zhang and Jia, "GradSign: Model Performance Inference with Theoretical Insights", ICLR 2022 (arXiv 2110.08616),
Algorithm 1: with g_ik the derivative of the loss of sample i by weight k, the score is

    sum_k | sum_i sign(g_ik) |,   sign(0) = 0

The theory: let Psi be the mean L1 distance between the local optima of single samples near the initial weights. A
multiple of Psi squared bounds both the training loss and the population loss that training can reach. Where the
losses of samples are locally quadratic and the initial weights random, two samples agree in the sign of a derivative
the more often the closer their optima are in that weight, so agreement at the initial weights estimates -Psi.

The score grows with the number of samples and of weights: it compares networks on the same batch in one space.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from nas_core.batch import Batch
from nas_core.config import Config as BaseConfig
from predictors.forward_pass import ForwardPass, weights
from predictors.need import Need
from predictors.proxy import EVERY_TASK, Unscorable
from search_spaces.layers.batch_moment import BatchMoment
from training.tasks import kind_of

CONVOLUTIONS = {
    functional.conv1d: torch.nn.grad.conv1d_weight,
    functional.conv2d: torch.nn.grad.conv2d_weight,
    functional.conv3d: torch.nn.grad.conv3d_weight,
}
CLOSE = 1e-2  # of the largest output: more than rounding, less than other samples of the batch would change


class GradSign:
    """The sum over weights of | sum over samples of the gradient's sign |, at most samples times weights.

    Batch normalisation would couple the samples. With `bn="instance"`, as in the reference code, each sample is a
    batch of one in training mode and so has its own statistics. That is impossible where a normalised map has one
    value (1x1 maps, `BatchNorm1d`), and such a network is scored as with `bn="calibrated"`: statistics of the whole
    batch in one training pass, then evaluation mode. Graph networks are always calibrated; their samples are the nodes
    of the batch, which share one forward pass.

    A network without a path from its weights to the loss scores exactly 0. Memory is bounded by `chunk` samples.
    Of three ways that give the same the first that a network allows is taken: one batched pass with the gradients of
    each sample from the inputs and output gradients of its layers; `vmap`; sample after sample.
    """

    class Config(BaseConfig):
        """Settings of GradSign."""

        bn: Literal["instance", "calibrated"] = Field(
            default="instance", description="statistics of batch normalisation: of each sample, or of the whole batch"
        )
        reduction: Literal["sum", "mean"] = Field(
            default="sum", description="over weights; the mean takes the size of the network out of the score"
        )
        chunk: int = Field(default=64, ge=1, description="samples whose gradients are in memory together")

    tasks: ClassVar[frozenset[str]] = EVERY_TASK
    needs: ClassVar[Need] = Need.NOTHING
    components: ClassVar[tuple[str, ...]] = ("gradsign",)

    def __init__(self, config: Config) -> None:
        self._config = config

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        """Raises Unscorable for a network without weights, and where the loss of a sample is not finite."""
        with _borrowed(forward.model) as model:
            signs = Signs(weights(model))
            if not signs.totals:
                raise Unscorable("the network has no convolution and no linear layer")
            if not kind_of(forward.task).apart:
                _calibrate(forward, model)
                _nodes(forward, model, signs, self._config.chunk)
            elif self._config.bn == "calibrated" or not _by_own_statistics(forward, model, signs, self._config.chunk):
                _calibrate(forward, model)
                _samples(forward, model, signs, self._config.chunk)
        score = signs.agreement()
        return {"gradsign": score / signs.size if self._config.reduction == "mean" else score}


class Signs:
    """Adds up the signs of gradients over samples, by weight; from here on the weights require gradients."""

    def __init__(self, named: Mapping[str, Tensor]) -> None:
        self.named = {name: weight.requires_grad_() for name, weight in named.items()}
        self.size = sum(weight.numel() for weight in named.values())
        self.clear()

    def clear(self) -> None:
        """Whole numbers: exact in float32 for up to 2^24 samples, and added up fastest there."""
        self.totals = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in self.named.items()}

    def add(self, name: str, signs: Tensor) -> None:
        """The signs of the gradients of one weight, `[samples, *shape]`."""
        self.totals[name] += signs.sum(0)

    def add_backward(self, output: Tensor, given: Tensor | None = None, keep: bool = False) -> None:
        """The gradients of samples whose gradients by `output` are `given`, `[samples, *output]`; None: of the one
        sample whose loss `output` is. `keep`: there is more to come from the same pass."""
        if not output.requires_grad:
            return
        given = torch.ones_like(output)[None] if given is None else given
        batched = len(given) > 1
        found = torch.autograd.grad(
            output,
            list(self.named.values()),
            given if batched else given[0],
            retain_graph=keep,
            is_grads_batched=batched,
            allow_unused=True,
        )
        for name, gradient in zip(self.named, found, strict=True):
            if gradient is not None:
                self.add(name, gradient.sign() if batched else gradient.sign()[None])

    def agreement(self) -> float:
        """The sum over weights of the absolute totals."""
        return sum(float(total.abs().sum(dtype=torch.float64)) for total in self.totals.values())


@contextmanager
def _borrowed(model: nn.Module) -> Iterator[nn.Module]:
    """The network without parameters that require gradients, to be changed in its attributes and buffers: afterwards
    it is as it was. A deep copy takes as long as a fifth of the gradients of a small network."""
    modules = [(module, dict(module.__dict__), dict(module._buffers)) for module in model.modules()]
    parameters = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    values = [
        (buffer, buffer.clone())
        for module, _, buffers in modules
        if not isinstance(module, _BatchNorm)  # whose buffers are replaced, not changed
        for buffer in buffers.values()
        if buffer is not None
    ]
    try:
        yield model.requires_grad_(False)
    finally:
        for module, attributes, buffers in modules:
            module.__dict__.pop("forward", None)  # that of `_by_own_statistics`
            module.__dict__.update(attributes)
            module._buffers.update(buffers)
        for parameter, required in parameters:
            parameter.requires_grad_(required)
        with torch.no_grad():
            for buffer, value in values:
                buffer.copy_(value)


def _by_own_statistics(forward: ForwardPass, model: nn.Module, signs: Signs, chunk: int) -> bool:
    """The samples with batch normalisation of each by its own statistics; whether that is possible."""
    for norm in _norms(model):
        norm.track_running_stats = False
        norm.running_mean = norm.running_var = norm.num_batches_tracked = None
    for moment in _moments(model):
        moment.forward = partial(_own_moment, moment)  # type: ignore[method-assign]
    try:
        _samples(forward, model, signs, chunk)
    except ValueError:  # torch's "Expected more than 1 value per channel when training"
        signs.clear()
        return False
    return True


def _calibrate(forward: ForwardPass, model: nn.Module) -> None:
    """Give batch normalisation the statistics of the whole batch, and freeze them."""
    like = next(model.parameters())
    for norm in _norms(model):
        norm.track_running_stats, norm.momentum = True, None  # None: the mean over all batches, here one
        norm.running_mean, norm.running_var = like.new_zeros(norm.num_features), like.new_ones(norm.num_features)
        norm.num_batches_tracked = torch.zeros((), dtype=torch.long, device=forward.device)
    for moment in _moments(model):
        moment.__dict__.pop("forward", None)
        moment.momentum = None
        moment.reset_running_stats()
    with torch.no_grad():
        forward.run(model.train())
    model.eval()


def _norms(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def _moments(model: nn.Module) -> list[BatchMoment]:
    return [module for module in model.modules() if isinstance(module, BatchMoment)]


def _own_moment(moment: BatchMoment, value: Tensor, x: Tensor) -> Tensor:
    """The moment of each sample, for which torch's batch normalisation wants several values too."""
    if x.shape[3] == 1:
        raise ValueError("one value per channel has no statistics")
    return moment.of(value, (3,))


def _nodes(forward: ForwardPass, model: nn.Module, signs: Signs, chunk: int) -> None:
    """The samples are nodes, and all come from one forward pass."""
    batch, output = forward.batch, forward.run(model)
    answer = output.detach().requires_grad_()
    nodes = torch.arange(len(output), device=forward.device) if batch.index is None else batch.index
    for part in nodes.split(chunk):
        losses = [forward.loss(answer, Batch(batch.inputs, batch.target, node)) for node in part.split(1)]
        _check(torch.stack(losses))
        given = torch.stack([torch.autograd.grad(loss, answer)[0] for loss in losses])
        try:
            signs.add_backward(output, given, keep=True)
        except RuntimeError:  # an operation whose backward pass cannot be batched
            for one in given.split(1):
                signs.add_backward(output, one, keep=True)


def _samples(forward: ForwardPass, model: nn.Module, signs: Signs, chunk: int) -> None:
    """The samples are computed apart, in the first of three ways that the network allows."""
    # Graphs are of different sizes, and their layers see nodes.
    ways = (_one_by_one,) if forward.batch.graphs else (_in_one_pass, _mapped, _one_by_one)
    for way in ways:
        try:
            for start in range(0, forward.samples, chunk):
                way(forward, model, signs, start, min(start + chunk, forward.samples))
            return
        except (Coupled, RuntimeError):  # of vmap, for example: control flow that depends on values
            if way is ways[-1]:
                raise
            signs.clear()


def _one_by_one(forward: ForwardPass, model: nn.Module, signs: Signs, start: int, stop: int) -> None:
    for sample in range(start, stop):
        batch = forward.part(sample, sample + 1)
        loss = forward.loss(forward.run(model, batch), batch)
        _check(loss)
        signs.add_backward(loss)


def _mapped(forward: ForwardPass, model: nn.Module, signs: Signs, start: int, stop: int) -> None:
    """The gradients of all weights together, by vmap."""

    batch = forward.part(start, stop)

    def loss(values: Mapping[str, Tensor], target: Tensor, *inputs: Tensor) -> Tensor:
        sample = replace(batch, inputs=tuple(value[None] for value in inputs), target=target[None])
        return forward.loss(forward.run(lambda *x: functional_call(model, values, x), sample), sample)

    values = {name: weight.detach() for name, weight in signs.named.items()}
    of_each = vmap(grad_and_value(loss), (None, 0, *[0] * len(batch.inputs)))
    gradients, losses = of_each(values, batch.target, *batch.inputs)
    _check(losses)
    for name, gradient in gradients.items():
        signs.add(name, gradient.sign())


def _in_one_pass(forward: ForwardPass, model: nn.Module, signs: Signs, start: int, stop: int) -> None:
    """Layer by layer, in one pass back through all samples. Raises Coupled where that would not be right."""
    with Separate(signs, stop - start) as separate:
        output = forward.run(model, forward.part(start, stop))
    if len(output) != stop - start or _reached(output) & {id(weight) for weight in signs.named.values()}:
        raise Coupled  # or a weight is used otherwise than by a known layer
    answers = [answer.requires_grad_() for answer in output.detach().split(1)]
    losses = [forward.loss(answer, forward.part(start + row, start + row + 1)) for row, answer in enumerate(answers)]
    _check(torch.stack(losses))
    if start == 0:
        with torch.no_grad(), Separate(signs, 1):
            alone = forward.run(model, forward.part(0, 1))
        if not (output[:1] - alone).abs().max() <= CLOSE * alone.abs().max():
            raise Coupled  # such as other normalisations over the batch
    separate.backward(output, torch.cat(torch.autograd.grad(losses, answers)))


def _check(losses: Tensor) -> None:
    if not losses.isfinite().all():
        raise Unscorable("the loss of a sample is not finite")


def _reached(output: Tensor) -> set[int]:
    """The leaves that a backward pass from the output would reach, by `id`."""
    found, seen, waiting = set(), set(), [output.grad_fn]
    while waiting:
        function = waiting.pop()
        if function is None or function in seen:
            continue
        seen.add(function)
        if hasattr(function, "variable"):
            found.add(id(function.variable))
        waiting += [following for following, _ in function.next_functions]
    return found


class Coupled(Exception):
    """One pass through a batch does not give the gradients of each sample, for all that is known of the network."""


class Separate(TorchFunctionMode):
    """Computes `rows` samples in one pass as if each were a batch of one; `backward` adds up the signs of each.

    Batch normalisation by statistics of the batch becomes instance normalisation. Convolutions and linear layers are
    computed with detached weights, so torch does not make the gradient of the whole batch; that of each sample is made
    of the layer's input and the gradient of its output when that is known, and forgotten once it is counted.
    Raises Coupled in the forward pass for layers that do not keep the samples as rows.
    """

    def __init__(self, signs: Signs, rows: int) -> None:
        super().__init__()
        self._signs, self._rows = signs, rows
        self._names = {id(weight): name for name, weight in signs.named.items()}
        self._uses = Counter[str]()
        self._sums: dict[str, Tensor] = {}  # gradients of weights that are used more than once
        self._starts: list[Tensor] = []  # outputs of the first layers: how far back the backward pass must go

    def backward(self, output: Tensor, given: Tensor) -> None:
        """`given`, of the shape of the output: the gradient of each sample's loss."""
        if not output.requires_grad:
            return
        torch.autograd.grad(output, self._starts, given, allow_unused=True)
        for name, gradients in self._sums.items():
            self._signs.add(name, gradients.sign_())

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.batch_norm and self._rows > 1:
            return _instance_norm(*args, **kwargs)
        if func is functional.linear:
            return self._weighted(func, _of_linear, *args, **kwargs)
        if func in CONVOLUTIONS:
            return self._convolution(func, *args, **kwargs)
        return func(*args, **kwargs)

    def _convolution(
        self,
        func: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        if isinstance(padding, str) or input.dim() != weight.dim():
            raise Coupled
        derive = partial(_of_convolution, CONVOLUTIONS[func], weight.shape, (stride, padding, dilation), groups)
        return self._weighted(func, derive, input, weight, bias, stride, padding, dilation, groups)

    def _weighted(
        self, func: Any, derive: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any
    ) -> Tensor:
        name = self._names.get(id(weight))
        if name is None:
            return func(input, weight, bias, *rest)
        if input.dim() < 2 or len(input) != self._rows:
            raise Coupled
        output = func(input, weight.detach(), bias, *rest)
        if torch.is_grad_enabled():
            self._uses[name] += 1
            if not output.requires_grad:
                self._starts.append(output.requires_grad_())
                output = output.clone()  # which the network may change in place, unlike a leaf
            output.register_hook(partial(self._count, name, derive, [input.detach()]))
        return output

    def _count(self, name: str, derive: Any, held: list[Tensor], gradient: Tensor) -> None:
        gradients = derive(held.pop(), gradient)  # the input is free before the pass is over
        if self._uses[name] == 1:
            self._signs.add(name, gradients.sign_())
        else:
            self._sums[name] = self._sums[name].add_(gradients) if name in self._sums else gradients


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`functional.batch_norm` with statistics of each sample where it would use those of the batch."""
    if training:
        return functional.instance_norm(input, weight=weight, bias=bias, eps=eps)
    return functional.batch_norm(input, running_mean, running_var, weight, bias, eps=eps)


def _of_linear(input: Tensor, gradient: Tensor) -> Tensor:
    """Weight gradients by sample, `[n, o, i]`, from `[n, ..., i]` and `[n, ..., o]`."""
    input, gradient = (value.reshape(len(value), -1, value.shape[-1]) for value in (input, gradient))
    return torch.bmm(gradient.transpose(1, 2), input)


def _of_convolution(derive: Any, shape: Any, geometry: Any, groups: int, input: Tensor, gradient: Tensor) -> Tensor:
    """Weight gradients by sample, `[n, *shape]`: those of one convolution whose groups are the samples."""
    n = len(input)
    if geometry[:2] == ((1, 1), (0, 0)) and groups == shape[2] == shape[3] == 1:
        return torch.bmm(gradient.flatten(2), input.flatten(2).transpose(1, 2)).view(n, *shape)
    input, gradient = (value.reshape(1, -1, *value.shape[2:]) for value in (input, gradient))
    return derive(input, (n * shape[0], *shape[1:]), gradient, *geometry, n * groups).view(n, *shape)
