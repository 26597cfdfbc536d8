"""Rankings over a pool: ranks, ties, the worst, and what is joined how."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_core.architecture import Architecture
from predictors.ranking import RANKINGS, rank_mean, ranking, ranks

INF = math.inf
ARCHS = [Architecture("toy", {"choice": number}) for number in range(4)]
COLUMNS = {
    "synflow": [1.0, 2.0, 3.0, 4.0],
    "jacob_cov": [-INF, 5.0, 5.0, 9.0],
    "snip": [0.2, 0.1, math.nan, 0.3],
    "naswot": [3.0, 1.0, 2.0, -INF],
    "az_nas.expressivity": [1.0, 2.0, 3.0, 4.0],
    "az_nas.progressivity": [4.0, 3.0, 2.0, 1.0],
    "az_nas.trainability": [-INF, -INF, -1.0, -2.0],
    "az_nas.complexity": [7.0, 7.0, 7.0, 7.0],
}


def score(name: str, archs: Sequence[Architecture]) -> list[float]:
    return [COLUMNS[name][int(str(arch.values["choice"]))] for arch in archs]


def test_the_best_has_rank_one_ties_share_their_mean_and_nan_is_the_worst() -> None:
    assert list(ranks([5.0, 1.0, 5.0, 2.0])) == [3.5 / 4, 1 / 4, 3.5 / 4, 2 / 4]
    assert list(ranks([math.nan, 1.0, -INF, 2.0])) == [1.5 / 4, 3 / 4, 1.5 / 4, 1.0]


def test_vote_is_the_mean_rank_of_its_three_scores() -> None:
    expected = [(1 + 1 + 3) / 12, (2 + 2.5 + 2) / 12, (3 + 2.5 + 1) / 12, 1.0]
    assert ranking("vote", ARCHS, score) == pytest.approx(expected)
    assert ranking("vote", ARCHS, score) == rank_mean([COLUMNS[name] for name in ("synflow", "jacob_cov", "snip")])


def test_az_nas_adds_the_logarithms_of_the_ranks_of_its_four_parts() -> None:
    parts = [(1, 4, 1.5, 2.5), (2, 3, 1.5, 2.5), (3, 2, 4, 2.5), (4, 1, 3, 2.5)]
    expected = [sum(math.log(rank / 4) for rank in part) for part in parts]
    assert ranking("az_nas", ARCHS, score) == pytest.approx(expected)


def test_any_other_score_is_its_own_ranking() -> None:
    assert ranking("naswot", ARCHS, score) == COLUMNS["naswot"]
    assert ranking("az_nas.trainability", ARCHS, score) == COLUMNS["az_nas.trainability"]


def test_an_empty_pool_has_an_empty_ranking() -> None:
    assert all(ranking(name, [], score) == [] for name in (*RANKINGS, "naswot"))


@given(st.lists(st.lists(st.integers(-50, 50), min_size=5, max_size=5), min_size=1, max_size=4))
def test_only_the_order_within_each_column_counts(columns: list[list[int]]) -> None:
    values = [[float(value) for value in column] for column in columns]
    assert rank_mean(values) == rank_mean([[math.exp(value / 9) for value in column] for column in values])
    # Being the best of every column is the only way to 1, where nobody ties.
    for position, value in enumerate(rank_mean(values)):
        best = all(sorted(column)[-1] == column[position] and column.count(column[position]) == 1 for column in values)
        assert (value == pytest.approx(1.0)) == best
