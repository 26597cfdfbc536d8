"""`nas search` with brackets and what `nas show` says of them, on a table of two schedules."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Say = Callable[..., tuple[int, str, str]]

SPACE = """
from nas_core.choice import Choice
from nas_core.space import SearchSpace

class Wide(SearchSpace):
    name = "wide"
    tasks = frozenset({"image-classification"})
    choices = (Choice("a", tuple(range(12))), Choice("b", tuple(range(12))))

space = Wide()
"""
DATA = """
    task: {kind: image-classification, input_shape: [1, 8, 8], outputs: 10}
    metrics: {val_accuracy: {columns: {12: %s, 200: long}}}
"""


@pytest.fixture
def table(folder: Path) -> list[str]:
    """Options of a search on a table where `like` foretells the long schedule, `unlike` the opposite of it."""
    (folder / "wide.py").write_text(SPACE)
    one = DATA % "like" + "  once:" + DATA % "unlike"
    once = "\n  single:\n    task: {kind: image-classification, input_shape: [1, 8, 8], outputs: 10}\n"
    mapping = f"files: [wide.csv]\nspace: wide\nrow: {{choices: {{a: a, b: b}}}}\ndata:\n  good:{one}"
    mapping = mapping.replace("once:", "bad:") + once.rstrip() + "\n    metrics: {val_accuracy: {column: long}}\n"
    (folder / "wide.yaml").write_text(mapping)
    rows = [(a, b, (37 * (12 * a + b) % 144) / 200) for a in range(12) for b in range(12)]
    lines = [f"{a},{b},{long / 2},{0.5 - long / 2},{long}" for a, b, long in rows]
    (folder / "wide.csv").write_text("a,b,like,unlike,long\n" + "\n".join(lines) + "\n")
    return ["--space", "wide.py:space", "--table", "wide.csv", "--trials", "60"]


def test_show_says_how_well_the_lower_rung_foretells_the_top(say: Say, table: list[str]) -> None:
    for data in ("good", "bad"):
        code, _, err = say("search", *table, "--data", data, "--strategy", "asha", "--study", data)
        assert code == 0, err
    assert "tau 1.00 at 12\n" in say("show", "good")[1]
    _, page, _ = say("show", "bad")
    assert "tau -1.00 at 12 (below 0.5 at 12: too aggressive, lower eta or raise minimum)" in page
    assert json.loads(say("show", "bad", "--json")[1])["rank_correlation"] == {"12": pytest.approx(-1)}
    assert say("search", *table, "--data", "good", "--strategy", "random", "--study", "plain")[0] == 0
    assert "rank correlation" not in say("show", "plain")[1]
    assert json.loads(say("show", "plain", "--json")[1])["rank_correlation"] == {}


@pytest.mark.parametrize("strategy", ["successive-halving", "hyperband", "asha"])
def test_a_study_with_a_bracket_is_resumed_and_verified(say: Say, table: list[str], strategy: str) -> None:
    """In two parts it is the study that it is in one, and each decision can be repeated."""
    words = [*table, "--data", "good", "--strategy", strategy, "-s", "strategy.inner=local-search"]
    for name, first in (("whole", []), ("parts", ["--trials", "23"])):
        code, _, err = say("search", *words, *first, "--study", name)
        assert code == 0, err
    assert say("resume", "parts", "--trials", "60")[0] == 0
    whole, parts = (json.loads(say("trials", name, "--json")[1]) for name in ("whole", "parts"))
    told = [[(trial["key"], trial["budget"], trial["note"], trial["state"]) for trial in one] for one in (whole, parts)]
    assert told[0] == told[1]
    assert {trial["budget"] for trial in whole} == {12, 200}
    assert say("verify", "parts")[0] == 0


def test_a_bracket_on_a_table_of_one_schedule_is_one_clear_line(say: Say, table: list[str]) -> None:
    code, _, err = say("search", *table, "--data", "single", "--strategy", "asha")
    assert code == 2
    assert err.count("\n") == 1
    assert "this evaluator has one only; train by epochs (--evaluator train), or name a table with several" in err
