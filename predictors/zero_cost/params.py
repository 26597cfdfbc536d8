"""Parameters: their number, the baseline that other proxies have to beat (NAS-Bench-Suite-Zero, NeurIPS 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from nas_core.config import Config as BaseConfig
from predictors.forward_pass import ForwardPass
from predictors.need import Need
from predictors.proxy import EVERY_TASK
from training import cost


class Params:
    """The number of parameters, shared ones once; a head that only training uses does not count."""

    class Config(BaseConfig):
        """Nothing to set."""

    tasks: ClassVar[frozenset[str]] = EVERY_TASK
    needs: ClassVar[Need] = Need.NOTHING
    components: ClassVar[tuple[str, ...]] = ("params",)

    def __init__(self, config: Config) -> None:
        pass

    def score(self, forward: ForwardPass) -> Mapping[str, float]:
        return {"params": float(cost.params(forward.model))}
