"""Multiply-accumulates of whatever torch runs: the one counter of networks, operators and supernets.

Counted are convolutions and matrix products (half of what `torch.utils.flop_counter` counts), grouped products, sparse
products by what is not zero, fused attention and recurrent layers as what they consist of, and message passing: one per
feature of a message, weighted or only added. Degrees, softmax over neighbours, normalisation, activations, biases and
other products of elements count nothing. What a module multiplies beside that, it says itself
(`nas_core.traits.HasMacs`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nas_core.batch import plain
from nas_core.errors import NasError
from nas_core.traits import HasIdle, HasMacs, deployed_parameters
from search_spaces.unfused import unfused

aten = torch.ops.aten

T = TypeVar("T")


def counts(build: Callable[[], nn.Module], inputs: Sequence[Any] | None) -> tuple[int, int]:
    """Parameters and multiply-accumulates of what `build` makes; without inputs the latter are 0.

    On the meta device, without memory for weights and maps, or on the CPU where it cannot be built or run there.
    """
    return _cheaply(build, inputs, _counts)


def active_count(build: Callable[[], nn.Module]) -> int:
    """The active parameters of what `build` makes; where as in `counts`."""
    return _cheaply(build, None, lambda model, _: active_params(model))


def _cheaply(
    build: Callable[[], nn.Module],
    inputs: Sequence[Any] | None,
    count: Callable[[nn.Module, Sequence[Any] | None], T],
) -> T:
    try:
        with torch.device("meta"):
            return count(build(), None if inputs is None else [_onto_meta(value) for value in inputs])
    except NasError:
        raise
    except Exception:
        # Some layers compute while they are built, or look at values; a real defect shows itself again on the CPU,
        # outside of this handler, so that its traceback does not begin with this one.
        pass
    with torch.random.fork_rng(devices=[]):
        return count(build(), inputs)


def params(model: nn.Module) -> int:
    """The number of parameters that are deployed (`nas_core.traits.deployed_parameters`)."""
    return sum(parameter.numel() for _, parameter in deployed_parameters(model))


def active_params(model: nn.Module) -> int:
    """The parameters that one sample passes: all but those that modules leave idle (`nas_core.traits.HasIdle`)."""
    return params(model) - sum(module.idle_params() for module in model.modules() if isinstance(module, HasIdle))


def _counts(model: nn.Module, inputs: Sequence[Any] | None) -> tuple[int, int]:
    return params(model), 0 if inputs is None else macs(model, inputs)


def _onto_meta(value: Any) -> Any:
    return value.to("meta") if isinstance(value, Tensor) else value


def macs(model: nn.Module, inputs: Sequence[Any]) -> int:
    """Multiply-accumulates of `model(*inputs)` in evaluation mode; the model's mode is left as it was.

    Features of a graph count as dense, whatever the data have of them ready.
    """
    training = {module: module.training for module in model.modules()}
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    model.requires_grad_(False)  # torch's counter fails on a view of a parameter that a module is given
    try:
        with torch.no_grad(), MacCounter(model) as counter:
            model(*plain(inputs))
    finally:
        for parameter in learned:
            parameter.requires_grad_()
        for module, mode in training.items():
            module.training = mode
    return counter.macs


def counted(model: nn.Module, inputs: Sequence[Any]) -> dict[str, float]:
    """`params` and `macs` of a network that is called with these inputs."""
    return {"params": float(params(model)), "macs": float(macs(model, inputs))}


class MacCounter:
    """A context that counts what is run in it; `model` holds the modules that are asked what they multiply unseen."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._unseen = 0
        self._passing = 0  # how many layers of message passing the operation that runs lies within
        self._seen = FlopCounterMode(display=False, custom_mapping=_formulas(self._summed))
        self._hooks: list[Any] = []
        self._unfused = unfused()

    @property
    def macs(self) -> int:
        """Up to now."""
        return self._seen.get_total_flops() // 2 + self._unseen

    def __enter__(self) -> MacCounter:
        modules: list[Any] = list(self._model.modules())
        self._hooks += [each.register_forward_pre_hook(self._told) for each in modules if _tells(each)]
        for layer in filter(passes_messages, modules):
            self._hooks.append(layer.register_forward_pre_hook(self._entered))
            self._hooks.append(layer.register_forward_hook(self._left))
            self._hooks.append(layer.register_message_forward_hook(self._message))
        self._unfused.__enter__()
        self._seen.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._seen.__exit__(*error)
        self._unfused.__exit__(*error)
        for hook in self._hooks:
            hook.remove()

    def _told(self, module: Any, inputs: tuple[Any, ...]) -> None:
        self._unseen += module.uncounted_macs(*inputs)

    def _entered(self, module: nn.Module, inputs: Any) -> None:
        self._passing += 1

    def _left(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._passing -= 1

    def _message(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self._unseen += output.numel()

    def _summed(self, source: Tensor) -> int:
        """The flops of adding up rows by index. Within layers of message passing the messages themselves count; one
        number per index is a degree."""
        return 0 if self._passing or source.dim() < 2 else 2 * source.numel()


def _formulas(summed: Callable[[Tensor], int]) -> Mapping[Any, Callable[..., int]]:
    """Flops of the operations that `torch.utils.flop_counter` does not see, or sees as dense."""

    def scattered(into: Tensor, dim: int, index: Tensor, source: Any, *rest: Any, **named: Any) -> int:
        return summed(source) if isinstance(source, Tensor) else 0

    def segmented(data: Tensor, *rest: Any, **named: Any) -> int:
        return summed(data)

    def product(one: Tensor, other: Tensor, *rest: Any, **named: Any) -> int:
        return 2 * _products(one, other)

    def sum_and_product(bias: Tensor, one: Tensor, other: Tensor, *rest: Any, **named: Any) -> int:
        return 2 * _products(one, other)

    def grouped(one: Tensor, other: Tensor, offsets: Tensor | None = None, *rest: Any, **named: Any) -> int:
        # Groups that one of both has no dimension for are slices of another one: every row of it counts once.
        return 2 * prod(one.shape[-2:] if other.dim() == 2 else one.shape) * other.shape[-1]

    def attended(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any) -> int:
        return 2 * prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])

    def recurrent_layer(one: Tensor, into: Tensor, again: Tensor, *rest: Any, **named: Any) -> int:
        return 2 * prod(one.shape[:-1]) * (into.numel() + again.numel())

    def recurrent(one: Tensor, weights: Sequence[Tensor], *rest: Any, **named: Any) -> int:
        return 2 * prod(one.shape[:-1]) * sum(each.numel() for each in weights if each.dim() == 2)

    formulas: Mapping[Any, tuple[str, ...]] = {
        scattered: (
            *("scatter_add", "scatter_add_", "scatter_reduce", "scatter_reduce_"),
            *("index_add", "index_add_", "index_reduce", "index_reduce_"),
        ),
        segmented: ("segment_reduce",),
        product: ("mm",),
        sum_and_product: ("addmm", "_sparse_addmm"),
        grouped: ("_grouped_mm",),
        attended: ("_scaled_dot_product_flash_attention_for_cpu",),
        recurrent_layer: ("mkldnn_rnn_layer",),
        recurrent: ("_cudnn_rnn",),
    }
    for formula in formulas:
        formula._get_raw = True  # tensors instead of shapes
    return {
        getattr(aten, name): formula for formula, names in formulas.items() for name in names if hasattr(aten, name)
    }


def _products(one: Tensor, other: Tensor) -> int:
    """Of two matrices, one of which may be sparse."""
    if other.layout != torch.strided:
        return one.shape[0] * other._nnz()
    return (one.numel() if one.layout == torch.strided else one._nnz()) * other.shape[1]


def _tells(module: nn.Module) -> bool:
    return isinstance(module, HasMacs)


def passes_messages(module: nn.Module) -> bool:
    """Whether it is a layer of message passing of PyTorch Geometric, where somebody has imported that."""
    library = sys.modules.get("torch_geometric.nn.conv.message_passing")
    return library is not None and isinstance(module, library.MessagePassing)
