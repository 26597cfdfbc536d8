"""The rungs of a bracket, and what a bracket cannot do."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_core.config import validate
from nas_core.errors import UsageError
from nas_core.evaluation import Fidelity, Objective
from nas_core.strategy import Setting
from search_spaces.nasbench201.space import NasBench201
from strategies.multi_fidelity.asha import Asha
from strategies.multi_fidelity.bracket import Bracket, ladder
from strategies.multi_fidelity.hyperband import Hyperband
from strategies.multi_fidelity.successive_halving import SuccessiveHalving

EPOCHS = Fidelity("epoch", 1, 81, continues=True)
TABLE = Fidelity("epoch", 12, 200, levels=(12, 200))
BRACKETS: list[type[Bracket]] = [SuccessiveHalving, Hyperband, Asha]


def make(kind: type[Bracket], fidelity: Fidelity | None = EPOCHS, **config: Any) -> Bracket:
    setting = Setting(NasBench201(), 3, (Objective("quality", "max"),), fidelity=fidelity)
    return kind(setting, validate(kind.Config, config, "strategy"))


@pytest.mark.parametrize(
    ("low", "high", "levels", "eta", "minimum", "expected"),
    [
        (1, 81, None, 3, None, (1, 3, 9, 27, 81)),
        (1, 81, None, 3, 9, (9, 27, 81)),
        (1, 27, None, 3, None, (1, 3, 9, 27)),
        (1, 64, None, 4, None, (1, 4, 16, 64)),
        (1, 10, None, 3, None, (1, 3, 10)),
        (1, 50, None, 3, 2, (2, 6, 18, 50)),
        (1, 2, None, 3, None, (1, 2)),
        (1, 100, None, 2, 1.5, (2, 3, 6, 12, 24, 48, 100)),
        (0.1, 0.9, None, 3, None, (0.1, 0.1 * 3, 0.9)),
        (12, 200, (12, 200), 3, None, (12, 200)),
        (4, 108, (4, 12, 36, 108), 3, None, (4, 12, 36, 108)),
        (4, 108, (4, 12, 36, 108), 3, 12, (12, 36, 108)),
        (1, 200, tuple(range(1, 201)), 3, None, (1, 3, 9, 27, 81, 200)),
        (100, 200, (100, 200), 3, None, (100, 200)),
    ],
)
def test_rungs(
    low: float, high: float, levels: tuple[float, ...] | None, eta: int, minimum: float | None, expected: Any
) -> None:
    assert ladder(Fidelity("epoch", low, high, levels), eta, minimum) == expected


@given(st.integers(1, 50), st.integers(1, 500), st.integers(2, 10), st.integers(0, 40))
def test_rungs_rise_from_the_minimum_to_the_full_budget(low: int, more: int, eta: int, above: int) -> None:
    high = low + more
    minimum = min(low + above, high - 1)
    found = ladder(Fidelity("epoch", low, high), eta, minimum)
    assert (found[0], found[-1]) == (minimum, high)
    assert all(budget.is_integer() for budget in found)
    ratios = [upper / lower for lower, upper in pairwise(found)]
    assert all(ratio > 1 for ratio in ratios)
    assert all(abs(ratio - eta) <= 1e-9 for ratio in ratios[:-1])
    assert ratios[-1] <= eta**1.5 + 1e-9


@pytest.mark.parametrize("kind", BRACKETS)
@pytest.mark.parametrize(
    ("fidelity", "config", "message"),
    [
        (None, {}, "needs budgets to choose from, and this evaluator has one only; train by epochs"),
        (Fidelity("epoch", 1, 1), {}, "all there is is 1 epoch; train by epochs .--evaluator train., or name a table"),
        (Fidelity("epoch", 200, 200, (200,)), {}, "all there is is 200 epoch"),
        (EPOCHS, {"minimum": 81}, "minimum: 81 epoch is not from 1 to below 81"),
        (Fidelity("part", 0, 1), {}, "minimum: budgets start at 0 part; set one above 0"),
        (EPOCHS, {"minimum": 0.5}, "minimum: 0.5 epoch is not from 1 to below 81"),
        (TABLE, {"minimum": 50}, "minimum: at 50 epoch and above all there is is 200; lower it"),
        (EPOCHS, {"eta": 1}, "eta: Input should be greater than or equal to 2"),
        (EPOCHS, {"inner": "rendom"}, "unknown strategy 'rendom'; did you mean 'random'"),
        (EPOCHS, {"inner": "hyperband"}, "inner: 'hyperband' is a bracket itself"),
        (EPOCHS, {"inner": "local-search", "inner_config": {"mode": "best"}}, "inner_config: unknown key 'mode'"),
        (EPOCHS, {"inner_config": {"population": 3}}, "inner_config: unknown key 'population'"),
    ],
)
def test_what_cannot_work_is_one_clear_line(
    kind: type[Bracket], fidelity: Fidelity | None, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        make(kind, fidelity, **config)
    assert "\n" not in str(caught.value)


def test_a_bracket_too_small_for_its_rungs_is_refused() -> None:
    with pytest.raises(UsageError, match="none of 80 would reach the top of 5 rungs; at least 81 are needed"):
        make(SuccessiveHalving, configurations=80)


def test_a_stored_configuration_names_the_defaults_of_the_inner_strategy() -> None:
    config = validate(Asha.Config, {"inner": "regularized-evolution", "inner_config": {"sample": 2}}, "strategy")
    assert config.model_dump()["inner_config"] == {"population": 10, "sample": 2}
    assert validate(Asha.Config, config.model_dump(mode="json"), "strategy") == config
    assert Asha.Config().model_dump()["inner"] == "random"
