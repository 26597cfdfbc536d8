"""What strategies with a surrogate inside share: how it is named and made."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from nas_core import refs
from nas_core.config import Config as BaseConfig
from nas_core.config import validate
from predictors import GROUP, SURROGATES
from predictors.surrogate import Problem, Surrogate


class SurrogateConfig(BaseConfig):
    """The surrogate and its settings."""

    surrogate: str = Field("gp", description="what learns the objective: a name, or FILE.py:CLASS")
    surrogate_config: dict[str, Any] = Field(
        default_factory=dict, validate_default=True, description="the settings of the surrogate"
    )

    @field_validator("surrogate_config")
    @classmethod
    def _of_the_surrogate(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """All settings of the surrogate, so that a stored study says what its defaults were."""
        if "surrogate" not in info.data:
            return given
        kind = _find(info.data["surrogate"])
        return validate(kind.Config, given, "strategy: surrogate_config").model_dump(mode="json")

    def takes(self, key: str) -> bool:
        """Whether the surrogate has such a setting."""
        return key in _find(self.surrogate).Config.model_fields

    def make(self, problem: Problem, **settings: Any) -> Surrogate:
        """A new instance, with some settings replaced. Raises UsageError for a problem that it cannot handle."""
        kind = _find(self.surrogate)
        config = validate(kind.Config, {**self.surrogate_config, **settings}, "strategy: surrogate_config")
        made: Surrogate = kind(problem, config)
        return made


def _find(reference: str) -> Any:
    return refs.find(reference, SURROGATES, GROUP, "surrogate")
