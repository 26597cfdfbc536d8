"""SynFlow: how much flows through the weights of a network, without any data.

Tanaka, Kunin, Yamins and Ganguli, "Pruning neural networks without any data by iteratively conserving synaptic
flow", NeurIPS 2020; as a proxy in Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021:
with absolute parameters, without normalisation and for inputs of ones, R is the sum of the outputs and the score
sum |theta dR/dtheta| over the weights of convolutions and linear layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nas_core.batch import Batch
from nas_core.config import Config as BaseConfig
from predictors.forward_pass import ForwardPass, weights
from predictors.need import Need
from predictors.proxy import EVERY_TASK, Unscorable
from predictors.zero_cost.transform import NORMALISATIONS, Rewrite, argument, unchanged
from training.tasks import kind_of

SATURATING = frozenset({"hardsigmoid", "hardtanh", "logsigmoid", "relu6", "sigmoid", "softsign", "tanh"})
GATES = frozenset({"hardsigmoid", "sigmoid"})
_VIEWS = ("__getitem__", "expand", "expand_as", "reshape", "unsqueeze", "view", "view_as")


class SynFlow:
    """The score itself in float64, not its logarithm (the ranks are the same): up to some 1e60 for usual networks.

    0, the worst, where nothing flows from input to output. On a graph all nodes have features of ones, and R is over
    all nodes.

    Deviations: activations that saturate pass their input on. A gate, a product with a sigmoid, is open: its own
    weights count nothing. A difference of two signals is their sum, so that no two paths cancel (Chebyshev).
    """

    class Config(BaseConfig):
        """Nothing to set."""

    tasks: ClassVar[frozenset[str]] = EVERY_TASK
    needs: ClassVar[Need] = Need.NOTHING
    components: ClassVar[tuple[str, ...]] = ("synflow",)

    def __init__(self, config: Config) -> None:
        pass

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        """Raises Unscorable for a network without weights, or whose flow is beyond float64."""
        return {"synflow": total([weight * gradient for weight, gradient in flow(forward)])}


def flow(forward: ForwardPass) -> list[tuple[Tensor, Tensor]]:
    """Every weight |theta| of convolutions and linear layers, and the gradient of R with respect to it, in float64.

    Raises Unscorable for a network without weights.
    """
    model = positive(forward.copy())
    first, *others = forward.batch.inputs
    shape = (1, *first.shape[1:]) if kind_of(forward.task).apart else first.shape
    inputs = [torch.ones(shape, dtype=torch.float64, device=first.device)]
    inputs += [value.double().abs() if value.is_floating_point() else value for value in others]
    found = list(weights(model).values())
    if not found:
        raise Unscorable("the network has no weights of convolutions or linear layers")
    with torch.enable_grad(), Rewrite(_Rules().rules):
        output = forward.run(model, Batch(tuple(inputs), forward.batch.target, forward.batch.index))
    gradients = torch.autograd.grad(output.sum(), found, allow_unused=True, materialize_grads=True)
    return [(weight.detach(), gradient) for weight, gradient in zip(found, gradients, strict=True)]


def positive(model: nn.Module) -> nn.Module:
    """The network itself in float64 and evaluation mode, with absolute parameters and buffers."""
    model = model.double().eval()
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            value.abs_()
    return model


def total(terms: Sequence[Tensor]) -> float:
    """The sum of all entries. Raises Unscorable where it is beyond float64."""
    found = float(torch.stack([term.abs().sum() for term in terms]).sum())
    if not math.isfinite(found):
        raise Unscorable("the flow through the network is too large for float64")
    return found


class _Rules:
    """What is computed instead, so that every path counts with a positive weight."""

    def __init__(self) -> None:
        # Gates by the id of their tensor, which is kept so that no other tensor gets the id.
        self._gates: dict[int, Tensor] = {}
        self.rules = {
            **dict.fromkeys(NORMALISATIONS, unchanged),
            **dict.fromkeys(SATURATING - GATES, unchanged),
            **{f"{name}_": unchanged for name in SATURATING - GATES},
            **dict.fromkeys(GATES, self._gate),
            **{f"{name}_": self._gate for name in GATES},
            **dict.fromkeys(_VIEWS, self._view),
            **dict.fromkeys(("mul", "mul_", "multiply"), self._product),
            **dict.fromkeys(("sub", "sub_", "subtract"), self._difference),
            **dict.fromkeys(("neg", "negative"), self._negative),
        }

    def _gate(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
        value: Tensor = argument(args, kwargs, 0, "input")
        return self._mark(value.clone())  # another tensor: the gate's input is no gate

    def _view(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        found = function(*args, **kwargs)
        return self._mark(found) if id(args[0]) in self._gates else found

    def _mark(self, value: Tensor) -> Tensor:
        self._gates[id(value)] = value
        return value

    def _product(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        first, second = args[0], argument(args, kwargs, 1, "other")
        if _both_flow(first, second):
            if id(second) in self._gates:
                return first + torch.zeros_like(second)  # in the shape of the product
            if id(first) in self._gates:
                return second + torch.zeros_like(first)
        return function(*args, **kwargs)

    def _difference(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        # What needs no gradient is a constant, such as the maximum that a softmax takes off.
        if not _both_flow(args[0], argument(args, kwargs, 1, "other")):
            return function(*args, **kwargs)
        add = torch.Tensor.add_ if function.__name__ == "sub_" else torch.add
        return add(*args, **kwargs)

    def _negative(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        value = argument(args, kwargs, 0, "input")
        return value if value.requires_grad else function(*args, **kwargs)


def _both_flow(first: Any, second: Any) -> bool:
    return isinstance(first, Tensor) and isinstance(second, Tensor) and first.requires_grad and second.requires_grad
