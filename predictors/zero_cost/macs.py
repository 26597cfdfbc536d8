"""Multiply-accumulates, the baseline called FLOPs in NAS-Bench-Suite-Zero (Krishnakumar et al., NeurIPS 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from nas_core.config import Config as BaseConfig
from predictors.forward_pass import ForwardPass
from predictors.need import Need
from predictors.proxy import EVERY_TASK
from training import cost
from training.tasks import kind_of


class Macs:
    """Multiply-accumulates that one image, or the whole graph, takes, as `search_spaces.counter` counts them.

    What the network holds but does not compute, such as an edge without a way to the output, does not count.
    """

    class Config(BaseConfig):
        """Nothing to set."""

    tasks: ClassVar[frozenset[str]] = EVERY_TASK
    needs: ClassVar[Need] = Need.NOTHING
    components: ClassVar[tuple[str, ...]] = ("macs",)

    def __init__(self, config: Config) -> None:
        pass

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        one = kind_of(forward.task).first(forward.batch.inputs, 1)
        return {"macs": float(cost.macs(forward.model, one))}
