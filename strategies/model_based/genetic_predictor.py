"""Genetic search whose children are screened by a predictor that sees nothing but their structure.

After Stier, Darji and Granitzer, "Experiments on Properties of Hidden Structures of Sparse Neural Networks", 2021:
accuracy is predicted from properties of the architecture's graph alone, by a random forest, and a genetic search
evaluates those children that are predicted to be good. Here the features are those properties and the counts of
operations (`predictors/encodings.py`), which every space has.

In place of every child `surplus` of different couples are bred, and the one with the highest prediction is evaluated.
The forest is fitted after every generation, to all outcomes so far: normal scores of ranks, infeasible ones below the
feasible, several objectives joined by random weights (`strategies/parts/targets.py`). Generations and survival are
those of `strategies/evolution/genetic.py`, with the tournaments of AE-CNN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from nas_core.seeds import derive, generator
from nas_core.strategy import Outcome, Pending, Proposal, Setting
from predictors.surrogate import Problem
from strategies.evolution.genetic import Generations, Rates, Tournaments
from strategies.model_based.surrogate_config import SurrogateConfig
from strategies.parts.targets import normal_scores

BLOCKS = ("structure", "counts")


class GeneticPredictor:
    """A proposal's note names the parents of a child, or says that it is a founder."""

    class Config(Rates, SurrogateConfig):
        """Rates of the genetic search, and who screens."""

        mutation: float = Field(0.5, ge=0, le=1, description="probability that a child is mutated")
        surplus: int = Field(10, ge=1, le=1_000, description="children that are bred for one that is evaluated")
        surrogate: str = Field("random-forest", description="what screens them: a name, or FILE.py:CLASS")

        @field_validator("surrogate_config", mode="before")
        @classmethod
        def _sees_structure(cls, given: Any, info: ValidationInfo) -> Any:
            """What the forest sees unless it is told otherwise."""
            forest = info.data.get("surrogate") == "random-forest" and isinstance(given, dict)
            return {"blocks": BLOCKS, **given} if forest else given

    def __init__(self, setting: Setting, config: Config) -> None:
        self._setting, self._config = setting, config
        self._generations = Generations(setting, config, Tournaments())
        self._surrogate = config.make(Problem(setting.space, derive(setting.seed, "surrogate")))
        self._fitted = 0  # told when the surrogate was fitted
        self._told = 0
        self._outcomes: list[tuple[int, Outcome]] = []  # what can be learned, and how many had been told with it

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal:
        first = self._generations.ask(number, pending)
        if first.note["role"] == "founder" or not self._learn():
            return first
        bred = {first.arch: first}
        for litter in range(1, self._config.surplus):
            child = self._generations.ask(number, pending, litter)
            if child.note["role"] != "founder":
                bred.setdefault(child.arch, child)
        children = list(bred.values())
        predicted = self._surrogate.predict([child.arch for child in children])[0]
        return children[int(predicted.argmax())]

    def tell(self, outcome: Outcome) -> None:
        self._generations.tell(outcome)
        self._told += 1
        if outcome.values is not None or outcome.violations:
            self._outcomes.append((self._told, outcome))

    def _learn(self) -> bool:
        """Fit the surrogate where a generation has ended since; False: there is too little to learn from."""
        ended = self._told - self._told % self._config.population
        seen = {outcome.proposal.arch: outcome for told, outcome in self._outcomes if told <= ended}
        if len(seen) < 2:
            return False
        if ended != self._fitted:
            rng = generator(self._setting.seed, ended, "weights")
            weights = rng.dirichlet([1.0] * len(self._setting.objectives))
            self._surrogate.fit(list(seen), normal_scores(list(seen.values()), weights))
            self._fitted = ended
        return True
