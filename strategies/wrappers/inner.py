"""What strategies with another strategy inside share: how it is named and made, and what can be done with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from pydantic import Field, ValidationInfo, field_validator

from nas_core import refs
from nas_core.architecture import Architecture
from nas_core.config import Config as BaseConfig
from nas_core.config import validate
from nas_core.strategy import Proposal, Setting, Strategy
from strategies import BLACK_BOX, GROUP


class InnerConfig(BaseConfig):
    """The inner strategy and its settings."""

    inner: str = Field("random", description="strategy that proposes the candidates: a name, or FILE.py:CLASS")
    inner_config: dict[str, Any] = Field(
        default_factory=dict, validate_default=True, description="the settings of that strategy"
    )

    @field_validator("inner_config")
    @classmethod
    def _of_the_inner(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """All settings of the inner strategy, so that a stored study says what its defaults were."""
        if "inner" not in info.data:
            return given
        return validate(cls.find(info.data["inner"]).Config, given, "strategy: inner_config").model_dump(mode="json")

    @classmethod
    def find(cls, reference: str) -> Any:
        """The class of an inner strategy. Raises UsageError for one that cannot be inside."""
        return refs.find(reference, BLACK_BOX, GROUP, "strategy")

    def make(self, setting: Setting) -> Strategy:
        """A new instance of the inner strategy. Raises UsageError for a setting that it cannot handle."""
        kind = self.find(self.inner)
        made: Strategy = kind(setting, validate(kind.Config, self.inner_config, "strategy: inner_config"))
        return made


@runtime_checkable
class Adopts(Protocol):
    """A strategy whose notes depend on the architecture that is proposed."""

    def adopt(self, proposal: Proposal, arch: Architecture) -> Proposal:
        """A proposal that this strategy made, with another architecture; pure."""
        ...


def adopt(strategy: Strategy, proposal: Proposal, arch: Architecture) -> Proposal:
    """A proposal of the strategy as it would be, had the strategy chosen this architecture."""
    return strategy.adopt(proposal, arch) if isinstance(strategy, Adopts) else replace(proposal, arch=arch)
