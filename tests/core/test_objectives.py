"""Objectives, constraints, and the order that they put outcomes in."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_core.architecture import Architecture
from nas_core.errors import UsageError
from nas_core.evaluation import (
    Constraint,
    Metric,
    Objective,
    parse_constraint,
    parse_constraints,
    parse_objective,
    parse_objectives,
)
from nas_core.pareto import best, better, dominates, front
from nas_core.strategy import Outcome, Proposal, State

METRICS = (Metric("val_accuracy"), Metric("loss", "min"), Metric("params", "min", cost=True))


@pytest.mark.parametrize("texts", [("loss", "loss:max"), ("params:min", "val_accuracy", "params")])
def test_a_metric_is_one_objective_at_most(texts: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="are the same metric; name each metric once"):
        parse_objectives(texts, METRICS)
    assert [str(one) for one in parse_objectives(("loss", "params"), METRICS)] == ["loss:min", "params:min"]


def test_constraints_that_no_number_satisfies() -> None:
    assert len(parse_constraints(("params>=2", "params<=2", "loss<=1"), METRICS)) == 3
    with pytest.raises(UsageError, match="'params>=3' and 'params<=2': no candidate can satisfy both"):
        parse_constraints(("params<=2", "loss>=5", "params>=3"), METRICS)


def test_an_objective_takes_the_metric_s_own_goal() -> None:
    assert parse_objective("val_accuracy", METRICS) == Objective("val_accuracy", "max")
    assert parse_objective("loss", METRICS) == Objective("loss", "min")
    assert parse_objective("loss:max", METRICS) == Objective("loss", "max")
    assert Objective("loss", "min").orient(0.5) == -0.5
    assert Objective("loss", "max").orient(0.5) == 0.5
    for text in ("val_accuracy:max", "loss:min"):
        assert str(parse_objective(text, METRICS)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("acuracy", "unknown metric 'acuracy'; did you mean 'val_accuracy'"),
        ("", "unknown metric ''"),
        ("loss:up", "objective 'loss:up': the goal is 'up'; write loss:max or loss:min"),
    ],
)
def test_a_wrong_objective_is_explained(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_objective(text, METRICS)


@pytest.mark.parametrize("text", ["params<=500000", " params <= 5e5 ", "params<=500000.0"])
def test_a_constraint_is_a_bound(text: str) -> None:
    constraint = parse_constraint(text, METRICS)
    assert constraint == Constraint("params", "<=", 5e5)
    assert parse_constraint(str(constraint), METRICS) == constraint


@pytest.mark.parametrize(
    "text",
    ["params<500", "params=500", "params<=", "<=500", "params<=much", "params<=nan", "params<=inf", "", "a b<=3"],
)
def test_a_malformed_constraint_is_explained(text: str) -> None:
    with pytest.raises(UsageError, match="is malformed; write metric<=number"):
        parse_constraint(text, METRICS)
    with pytest.raises(UsageError, match="unknown metric 'parms'; did you mean 'params'"):
        parse_constraint("parms<=3", METRICS)


@pytest.mark.parametrize(
    ("constraint", "value", "violation"),
    [
        (Constraint("params", "<=", 100), 150, 0.5),
        (Constraint("params", "<=", 100), 100, 0),
        (Constraint("params", "<=", 100), 50, -0.5),
        (Constraint("val_accuracy", ">=", 0.8), 0.6, 0.25),
        (Constraint("val_accuracy", ">=", 0.8), 0.9, -0.125),
        (Constraint("loss", "<=", 0), 2, 2),
        (Constraint("loss", ">=", -4), -6, 0.5),
        (Constraint("loss", "<=", 1), math.nan, math.inf),
        (Constraint("loss", "<=", 1), math.inf, math.inf),
    ],
)
def test_violations_are_relative_to_the_bound(constraint: Constraint, value: float, violation: float) -> None:
    assert constraint.violation(value) == pytest.approx(violation)


def outcome(values: tuple[float, ...] | None, *violations: float, number: int = 0) -> Outcome:
    state = State.COMPLETE if values is not None else State.REJECTED
    return Outcome(number, Proposal(Architecture("toy", {"a": number})), state, values, violations)


def test_only_positive_violations_count() -> None:
    assert outcome((1.0,), 0.5, -2.0, 0.25).violation == 0.75
    assert outcome((1.0,), -1.0).violation == 0
    assert outcome((1.0,)).violation == 0


def test_feasibility_comes_before_dominance() -> None:
    """Deb et al. 2002, Definition 1, one case after the other."""
    good, poor = outcome((2.0,), -1.0), outcome((1.0,), -1.0)
    slightly, badly, unmeasured = outcome((9.0,), 0.1), outcome((9.0,), 0.7), outcome(None, 0.1)
    failed = outcome(None)
    ranked = [good, poor, slightly, unmeasured, badly, failed]
    for position, one in enumerate(ranked):
        assert not better(one, one)
        for other in ranked[position + 1 :]:
            assert better(one, other)
            assert not better(other, one)


def test_dominance_is_better_somewhere_and_worse_nowhere() -> None:
    assert dominates((1, 2), (1, 1))
    assert not dominates((1, 1), (1, 1))
    assert not dominates((2, 0), (1, 1))
    with pytest.raises(ValueError, match="zip"):
        dominates((1,), (1, 2))


numbers = st.integers(0, 4).map(float)
outcomes = st.lists(
    st.builds(
        outcome,
        st.one_of(st.none(), st.tuples(numbers, numbers)),
        st.sampled_from([-1.0, 0.0, 0.5, 1.0]),
        number=st.integers(0, 99),
    ),
    min_size=1,
    max_size=9,
)


@settings(max_examples=80, deadline=None)
@given(outcomes)
def test_the_front_is_what_nobody_dominates(given_outcomes: list[Outcome]) -> None:
    found = front(given_outcomes)
    possible = [one for one in given_outcomes if one.values is not None and max(one.violations) <= 0]
    wanted = [
        one
        for one in possible
        if not any(
            all(a >= b for a, b in zip(other.values or (), one.values or (), strict=True))
            and other.values != one.values
            for other in possible
        )
    ]
    assert found == wanted
    assert bool(found) == bool(possible)


@settings(max_examples=80, deadline=None)
@given(outcomes)
def test_the_best_is_beaten_by_nobody(given_outcomes: list[Outcome]) -> None:
    chosen = best(given_outcomes)
    assert not any(better(other, chosen) for other in given_outcomes)
    assert not front(given_outcomes) or chosen in front(given_outcomes)


def test_the_first_of_equals_is_the_best() -> None:
    one, other = outcome((1.0,), number=3), outcome((1.0,), number=1)
    assert best([one, other]) is one
    with pytest.raises(ValueError, match="no outcome to choose from"):
        best([])
