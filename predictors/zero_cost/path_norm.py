"""Path-norm: the size of a network as the sum over all paths from inputs and biases to outputs.

Gonon, Brisebarre, Riccietti and Gribonval, "A path-norm toolkit for modern networks: consequences, promises and
challenges", ICLR 2024: (sum over paths of the product of |w|^q along the path)^(1/q). One pass computes
it exactly for DAGs of ReLU layers with skip connections, batch normalisation and pooling: that of the
network whose batch normalisation is folded into the layer before it, with weights |w|^q, sums in place of the
maxima of max-pooling, and inputs of ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from nas_core.config import Config as BaseConfig
from predictors.forward_pass import ForwardPass
from predictors.function_hooks import ACTIVATIONS
from predictors.need import Need
from predictors.proxy import IMAGES, Unscorable
from training.rewrite import Rewrite, argument

Arguments = Sequence[Any]
Options = Mapping[str, Any]

_LAYERS = ("conv1d", "conv2d", "conv3d", "linear")
_ORDER = ("max", "median", "min", "minimum", "sort", "topk", "kthvalue")
_POOLING = tuple(
    f"{kind}_pool{axes}d{more}"
    for kind, more in (("max", ""), ("max", "_with_indices"), ("adaptive_max", ""), ("avg", ""), ("adaptive_avg", ""))
    for axes in (1, 2, 3)
)


class PathNorm:
    """The path-norm of the network in evaluation mode, in float64.

    Where the theory does not reach: every elementwise activation counts as ReLU. What is then still not linear in
    non-negative inputs (gates, attention, normalisation by the statistics of one sample) is refused, and so is a
    network without a path from its input to its output.
    """

    class Config(BaseConfig):
        """The exponent of the norm."""

        q: int = Field(default=1, ge=1, le=16, description="the exponent of the norm")

    tasks: ClassVar[frozenset[str]] = IMAGES
    needs: ClassVar[Need] = Need.NOTHING
    components: ClassVar[tuple[str, ...]] = ("path_norm",)

    def __init__(self, config: Config) -> None:
        self._q = config.q

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        """Raises Unscorable."""
        model = forward.copy().double().eval()
        passes = _Paths(model, self._q)
        image = torch.ones_like(forward.batch.inputs[0][:1], dtype=torch.float64)
        # Two more images for the check, as softmax and the like see no difference between equal values.
        other = image * (0.5 + torch.rand(image.shape, generator=forward.generator("path_norm")).to(image))
        images = torch.cat([0 * image, image, other, 2 * other])
        with torch.no_grad(), Rewrite(passes.rules):
            output = forward.run(model, forward.with_inputs(images))
        zero, one, once, twice = output.flatten(1).sum(1).tolist()
        if not max(one, twice) < float("inf"):
            raise Unscorable("the path-norm is too large for float64")
        if abs((twice - once) - (once - zero)) > 1e-9 * twice:
            raise Unscorable("the network is no ReLU network: gates, attention or normalisation by sample")
        if one - zero <= 1e-12 * one:
            raise Unscorable("no path leads from the input to the output")
        return {"path_norm": one ** (1 / self._q)}


class _Paths:
    """The rules by which a forward pass of non-negative numbers sums over paths; puts |w|^q into the model."""

    def __init__(self, model: nn.Module, q: int) -> None:
        self._q = q
        # Parameters as they were, by the id of the parameter.
        self._signed = {id(parameter): parameter.detach().clone() for parameter in model.parameters()}
        # By the id of a layer's output: that output, the output without bias, and the bias as it was.
        self._layers: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(parameter.abs() ** q)
        self.rules = {
            **dict.fromkeys(_LAYERS, self._layer),
            "batch_norm": self._batch_norm,
            **{name + mark: self._activation for name in ACTIVATIONS for mark in ("", "_")},
            **dict.fromkeys((*_POOLING, *_ORDER), _refuse),
            "max_pool2d": self._max_pool,
            "adaptive_max_pool2d": self._adaptive_max_pool,
            "maximum": lambda function, args, kwargs: torch.add(*args, **kwargs),
            "amax": lambda function, args, kwargs: torch.sum(*args, **kwargs),
            "avg_pool2d": self._average_pool,
            "adaptive_avg_pool2d": self._adaptive_average_pool,
            "mean": self._mean,
            **dict.fromkeys(("mul", "mul_", "div", "div_", "true_divide"), self._constant),
            **dict.fromkeys(("sub", "subtract"), lambda function, args, kwargs: torch.add(*args, **kwargs)),
            "sub_": lambda function, args, kwargs: torch.Tensor.add_(*args, **kwargs),
            **dict.fromkeys(("neg", "negative"), lambda function, args, kwargs: args[0]),
        }

    def _layer(self, function: Any, args: Arguments, kwargs: Options) -> Tensor:
        """A convolution or linear layer, remembered in case that batch normalisation follows."""
        names = ("input", "weight", "bias")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        bias = given.pop("bias", None)
        found: Tensor = function(given.pop("input"), given.pop("weight"), None, *args[3:], **given)
        if bias is None:
            return found
        wide = bias if function.__name__ == "linear" else _by_channel(bias, found)
        result = found + wide
        signed = self._signed.get(id(bias))
        if signed is not None:
            self._layers[id(result)] = (result, found, signed)
        return result

    def _batch_norm(self, function: Any, args: Arguments, kwargs: Options) -> Tensor:
        """Folded into the layer whose output is normalised, else an affine layer of its own."""
        names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
        given = {"weight": None, "bias": None, "eps": 1e-5, **dict(zip(names, args, strict=False)), **kwargs}
        x, mean, variance = given["input"], given["running_mean"], given["running_var"]
        if mean is None or variance is None:
            raise Unscorable("a batch normalisation has no running statistics")
        weight, bias = (self._signed.get(id(value), value) for value in (given["weight"], given["bias"]))
        scale = (variance + given["eps"]).rsqrt()
        scale = scale if weight is None else scale * weight
        shift = -mean * scale
        shift = shift if bias is None else shift + bias
        if id(x) in self._layers:
            _, x, layer_bias = self._layers[id(x)]
            shift = shift + scale * layer_bias
        return x * _by_channel(scale.abs() ** self._q, x) + _by_channel(shift.abs() ** self._q, x)

    def _activation(self, function: Any, args: Arguments, kwargs: Options) -> Tensor:
        """ReLU of numbers that are not negative."""
        x: Tensor = argument(args, kwargs, 0, "input")
        if function.__name__.endswith("_") or kwargs.get("inplace"):
            self._layers.pop(id(x), None)  # what is now at its place is no output of the layer
            return x
        return x.view_as(x)

    def _max_pool(self, function: Any, args: Arguments, kwargs: Options) -> Tensor:
        names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
        given = {"stride": None, "padding": 0, "dilation": 1, **dict(zip(names, args, strict=False)), **kwargs}
        x = given["input"]
        kernel, padding, dilation = (_pair(given[name]) for name in ("kernel_size", "padding", "dilation"))
        stride = _pair(given["stride"]) if given["stride"] else kernel
        rows, columns = function(*args, **kwargs).shape[2:]
        # Padded so that a convolution has as many windows, also those that `ceil_mode` adds.
        ends = [
            (windows - 1) * step + gap * (size - 1) + 1
            for windows, step, gap, size in zip((rows, columns), stride, dilation, kernel, strict=True)
        ]
        bottom, right = (max(end - size - pad, 0) for end, size, pad in zip(ends, x.shape[2:], padding, strict=True))
        x = functional.pad(x, (padding[1], right, padding[0], bottom))
        ones = x.new_ones(x.shape[1], 1, *kernel)
        found = functional.conv2d(x, ones, None, stride, 0, dilation, x.shape[1])
        return found[:, :, :rows, :columns]

    def _adaptive_max_pool(self, function: Any, args: Arguments, kwargs: Options) -> Tensor:
        x, output = argument(args, kwargs, 0, "input"), argument(args, kwargs, 1, "output_size")
        return functional.adaptive_avg_pool2d(x, output) * _window_sizes(x, output)

    def _average_pool(self, function: Any, args: Arguments, kwargs: Options) -> Tensor:
        names = ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        x = given.pop("input")
        found: Tensor = function(x, **given)
        ones = torch.ones_like(x[:1, :1])
        # The number of values of each window over their mean is what the window divides by.
        divisor = function(ones, **{**given, "divisor_override": 1}) / function(ones, **given)
        return found * divisor ** (1 - self._q)

    def _adaptive_average_pool(self, function: Any, args: Arguments, kwargs: Options) -> Tensor:
        x, output = argument(args, kwargs, 0, "input"), argument(args, kwargs, 1, "output_size")
        found: Tensor = function(x, output)
        return found * _window_sizes(x, output) ** (1 - self._q)

    def _mean(self, function: Any, args: Arguments, kwargs: Options) -> Tensor:
        found: Tensor = function(*args, **kwargs)
        return found * (argument(args, kwargs, 0, "input").numel() / found.numel()) ** (1.0 - self._q)

    def _constant(self, function: Any, args: Arguments, kwargs: Options) -> Any:
        """Multiplication or division by a number, which is a weight."""
        first, second = args[0], argument(args, kwargs, 1, "other")
        if isinstance(second, (int, float)):
            second = abs(second) ** self._q
        elif isinstance(first, (int, float)):
            first = abs(first) ** self._q
        rest = {name: value for name, value in kwargs.items() if name != "other"}
        return function(first, second, *args[2:], **rest)


def _refuse(function: Any, args: Arguments, kwargs: Options) -> Any:
    raise Unscorable(f"paths through '{function.__name__}' are not known")


def _by_channel(values: Tensor, like: Tensor) -> Tensor:
    """`[channels]` in a shape that multiplies `[n, channels, ...]`."""
    return values.view(-1, *[1] * (like.dim() - 2))


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[-1])


def _window_sizes(x: Tensor, output: Any) -> Tensor:
    """How many positions each window of an adaptive pooling has, `[rows, columns]`."""
    rows, columns = functional.adaptive_avg_pool2d(x[:1, :1], output).shape[2:]
    lengths = []
    for size, windows in zip(x.shape[2:], (rows, columns), strict=True):
        starts = [window * size // windows for window in range(windows)]
        ends = [-(-(window + 1) * size // windows) for window in range(windows)]
        lengths.append(x.new_tensor([end - start for start, end in zip(starts, ends, strict=True)]))
    return lengths[0][:, None] * lengths[1][None, :]
