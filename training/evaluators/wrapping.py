"""Settings of an evaluator around another one."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import BeforeValidator, Field, SerializeAsAny

from training.evaluators.kinds import options, stored
from training.evaluators.settings import EvaluatorOptions, EvaluatorSettings


class WrapperSettings(EvaluatorSettings):
    """Of a wrapper; what it does not say is said by the `inner` evaluator."""

    later: ClassVar[frozenset[str]] = frozenset({"trial_seconds"})  # the inner one's

    trial_seconds: None = None
    inner: Annotated[SerializeAsAny[EvaluatorSettings], BeforeValidator(stored)]

    def at(self, place: str) -> EvaluatorSettings:
        return self.around(self.inner.at(place))

    def costs_at(self, place: str) -> EvaluatorSettings | None:
        inner = self.inner.costs_at(place)
        return None if inner is None else self.around(inner)

    def on(self, device: str) -> EvaluatorSettings:
        return self.around(self.inner.on(device))

    def as_stored(self, stored: EvaluatorSettings) -> EvaluatorSettings:
        return self.around(self.inner.as_stored(stored.inner)) if isinstance(stored, type(self)) else self

    def around(self, inner: EvaluatorSettings) -> Self:
        return self.model_copy(update={"inner": inner})


class WrapperOptions(EvaluatorOptions):
    """What a configuration asks of a wrapper."""

    trial_seconds: None = None
    inner: Annotated[SerializeAsAny[EvaluatorOptions], BeforeValidator(options)] = Field(
        description="the evaluator that is wrapped"
    )

    @property
    def compute(self) -> tuple[str, int | None, bool]:
        return self.inner.compute

    @property
    def supernet(self) -> str | None:
        return self.inner.supernet

    def with_all(self, settings: EvaluatorSettings) -> EvaluatorOptions:
        assert isinstance(settings, WrapperSettings)
        return self.model_copy(update={"inner": self.inner.with_all(settings.inner)})
