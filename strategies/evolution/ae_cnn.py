"""AE-CNN's genetic algorithm, on any space.

Sun, Xue, Zhang and Yen, "Completely Automated CNN Architecture Design Based on Blocks", IEEE TNNLS 31(4), 2020
(arXiv 1810.11875): binary tournaments choose two distinct parents, crossover (probability 0.9) and mutation (0.2)
make the offspring, binary tournaments among parents and offspring choose the next population, and the best always
survives. Crossover and mutation are those of the space: the paper's own on the space `ae-cnn`.

Deviations: survivors are distinct trials; offspring that are known already are mutated again
(`strategies/evolution/genetic.py`, which also says what a generation is with several trials in flight); the budget, not
a number of generations, ends the search. With several objectives or constraints members are compared by their fronts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas_core.strategy import Outcome, Pending, Proposal, Setting
from strategies.evolution.genetic import Generations, Rates, Tournaments


class AeCnn:
    """Tournaments, crossover, mutation, tournaments with elitism."""

    class Config(Rates):
        """The paper's values: a population of 20, probabilities of 0.9 and 0.2."""

    def __init__(self, setting: Setting, config: Config) -> None:
        self._generations = Generations(setting, config, Tournaments())

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal:
        return self._generations.ask(number, pending)

    def tell(self, outcome: Outcome) -> None:
        self._generations.tell(outcome)

    def state_dict(self) -> dict[str, Any]:
        return self._generations.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._generations.load_state_dict(state)
