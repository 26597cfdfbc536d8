"""Regularised (ageing) evolution.

Real, Aggarwal, Huang and Le, "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019,
Algorithm 1: the population is a queue; the best of a random sample is the parent; its mutated child enters
at the back while the oldest member leaves at the front, however good it is.

Deviations: the initial population holds distinct candidates wherever there are enough of them. Members are
compared by feasibility, then Pareto dominance, which with one objective and no constraint is the paper's
rule. A candidate that is known already enters the population again; a failed one never does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from nas_core import moves
from nas_core.config import Config as BaseConfig
from nas_core.pareto import best
from nas_core.seeds import generator
from nas_core.strategy import Exhausted, Outcome, Pending, Proposal, Setting
from strategies.basic.random_search import known_to, sample_new
from strategies.parts.outcomes import restored, stored

if TYPE_CHECKING:
    from numpy.random import Generator


class RegularizedEvolution:
    """Regularised evolution with one mutation per child; children note their parent's number."""

    class Config(BaseConfig):
        """The paper uses a population of 100 and a sample of 25 for 20,000 evaluations, NAS-Bench-201 one of 10."""

        population: int = Field(10, ge=1, le=100_000, description="members of the population (P)")
        sample: int = Field(5, ge=1, le=100_000, description="members drawn per step, the best is the parent (S)")

        @model_validator(mode="after")
        def _sample_fits(self) -> Self:
            if self.sample > self.population:
                raise ValueError(f"sample {self.sample} is larger than population {self.population}; lower it")
            return self

    def __init__(self, setting: Setting, config: Config) -> None:
        self._setting = setting
        self._config = config
        self._variation = moves.variation(setting.space)
        self._population: deque[Outcome] = deque(maxlen=config.population)
        self._founders: set[str] = set()  # identities told before the population was full

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal:
        founding = len(self._population) + len(pending) < self._config.population
        if founding or not self._population:
            return self._founder(number, pending)
        rng = generator(self._setting.seed, number, "child")
        parent = best(self._draw(rng))
        try:
            child = self._variation.mutate(parent.proposal.arch, rng)
        except ValueError as error:
            raise Exhausted(str(error)) from error
        return Proposal(child, note={"role": "child", "of": parent.number})

    def tell(self, outcome: Outcome) -> None:
        if len(self._population) < self._config.population:
            self._founders.add(self._setting.identity(outcome.proposal.arch))
        if outcome.values is not None or outcome.violations:
            self._population.append(outcome)  # the oldest leaves at the other end
        if len(self._population) == self._config.population:
            self._founders.clear()

    def state_dict(self) -> dict[str, Any]:
        return {"population": [stored(one) for one in self._population], "founders": sorted(self._founders)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._population.extend(map(restored, state["population"]))
        self._founders = set(state["founders"])

    def _founder(self, number: int, pending: Sequence[Pending]) -> Proposal:
        rng = generator(self._setting.seed, number, "founder")
        arch = sample_new(self._setting, known_to(self._setting, self._founders, pending), rng)
        return Proposal(arch or moves.sample(self._setting.space, rng), note={"role": "founder"})

    def _draw(self, rng: Generator) -> list[Outcome]:
        """The sample, without replacement; a population that is not full yet may be smaller than it."""
        size = min(self._config.sample, len(self._population))
        return [self._population[int(member)] for member in rng.choice(len(self._population), size, replace=False)]
