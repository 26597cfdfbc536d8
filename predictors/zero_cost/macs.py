"""Multiply-accumulates, the baseline called FLOPs in NAS-Bench-Suite-Zero (Krishnakumar et al., NeurIPS 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, ClassVar

from torch import Tensor, nn

from nas_core.config import Config as BaseConfig
from predictors.forward_pass import ForwardPass
from predictors.need import Need
from predictors.proxy import EVERY_TASK
from training import cost


class Macs:
    """Multiply-accumulates of the convolutions and matrix products that one image, or the whole graph, computes.

    In a graph network every message counts once per feature, also one that is only added. What the network holds but
    does not compute, such as an edge without a way to the output, does not count.
    """

    class Config(BaseConfig):
        """Nothing to set."""

    tasks: ClassVar[frozenset[str]] = EVERY_TASK
    needs: ClassVar[Need] = Need.NOTHING
    components: ClassVar[tuple[str, ...]] = ("macs",)

    def __init__(self, config: Config) -> None:
        pass

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        inputs = forward.batch.inputs
        if forward.batch.index is None:
            return {"macs": float(cost.macs(forward.model, [value[:1] for value in inputs]))}
        messages: list[int] = []

        def count(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
            messages.append(output.numel())

        with ExitStack() as hooks:
            for module in forward.model.modules():
                # PyTorch Geometric's message passing calls these with all messages of a layer, [edges, ...].
                register = getattr(module, "register_message_forward_hook", None)
                if register is not None:
                    hooks.callback(register(count).remove)
            products = cost.macs(forward.model, inputs)
        return {"macs": float(products + sum(messages))}
