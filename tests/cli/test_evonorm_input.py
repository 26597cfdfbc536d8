"""Layers that are none, or that a study cannot have: a line or two, and the right exit code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from studies.search import endings

Say = Callable[..., tuple[int, str, str]]
SEARCH = ("search", "--study", "s", "--data", "digits", "--trials", "1", "--epochs", "1", "--space")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x / max(x", "position 10 of 'x / max(x': the end instead of ','"),
        ("x + sigmod(x)", "position 5 of 'x + sigmod(x)': 'sigmod' instead of x, 0, v0, v1 or a function"),
        ("tanh(" * 11 + "x" + ")" * 11, "more than 10 nodes"),
        ("evonorm-b9", "unknown architecture 'evonorm-b9'; did you mean"),
    ],
)
def test_formulas(say: Say, folder: Path, text: str, said: str) -> None:
    code, _, err = say("show", "--architecture", f"evonorm:{text}")
    assert (code, len(err.strip().splitlines()) <= 2) == (2, True)
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize("flag", ["--baselines", "--enqueue"])
@pytest.mark.parametrize(
    ("space", "name", "said"),
    [
        ("evonorm", "evonorm-s9", "did you mean 'evonorm-s2'"),
        ("evonorm", "bn-relu,bnrelu", "'bnrelu'; did you mean 'bn-relu'"),
        (
            "evonorm(batch=false)",
            "bn-relu",
            "architecture 'bn-relu': it has moments of the batch, which evonorm(batch=False) leaves out; "
            "take one of gn-relu, gn-silu, frn, evonorm-s0, evonorm-s1, evonorm-s2",
        ),
        ("evonorm(batch=0)", "bn-relu", "evonorm: batch is 0; use true or false"),
    ],
)
def test_names_of_layers(say: Say, folder: Path, flag: str, space: str, name: str, said: str) -> None:
    code, _, err = say(*SEARCH, space, "--strategy", "random", flag, name)
    assert code == 2
    assert said in err
    assert "Traceback" not in err
    assert not (folder / "nas.db").exists()


def test_where_every_layer_is_turned_down(say: Say, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers that the space knows as unsound are not among the trials of `evonorm`; `random` has both."""
    tight = ("--screen", "quality(steps=1, bar=10)", "--size", "width=4,depth=1,stages=1", "-s", "split.limit=60")
    for strategy, in_a_row in (("evonorm", 5), ("random", 300)):
        monkeypatch.setattr(endings, "REJECTED_IN_A_ROW", in_a_row)
        code, _, err = say(*SEARCH, "evonorm", "--strategy", strategy, *tight, "--study", strategy)
        assert code == 4
        assert "was evaluated in full; rejected: " in err
        assert "quality 5 (100.0%, " in err if strategy == "evonorm" else "rejected: blind" in err
        assert "loosen 'quality' in a new study" in err
