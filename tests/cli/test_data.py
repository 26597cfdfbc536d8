"""Data from the command line: what `nas data check` and `nas search` say of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

Said = Callable[..., tuple[int, str, str]]

OWN = """
import numpy as np
from training.data.source import image_source

def load(argument, split):
    with open("calls.txt", "a") as calls:
        calls.write("read\\n")
    rng = np.random.default_rng(0)
    return image_source("mine", rng.random((40, 1, 8, 8)), np.arange(40) % 2 + 1, split)
"""


def test_a_search_reads_its_data_once_and_warns_once(say: Said, folder: Path) -> None:
    Path("my_data.py").write_text(OWN)
    wanted = ("--data", "my_data.py:load", "--trials", "1", "--epochs", "1", "--size", "search,channels=4,cells=1")
    code, _, err = say("search", "--space", "nasbench201", "--strategy", "random", *wanted)
    assert code == 0
    assert Path("calls.txt").read_text() == "read\n"
    warnings = [line for line in err.splitlines() if line.startswith("nas: warning:")]
    assert len(warnings) == 1
    assert warnings[0].startswith("nas: warning: my_data.py:load: the labels start at 1: 1 of the 3 outputs")


def test_data_check_warns_on_stderr(say: Said, folder: Path) -> None:
    np.savez("g.npz", x=np.ones((30, 2)), y=np.arange(30) % 3, edge_index=np.zeros((2, 4), int), weight=np.ones(4))
    code, out, err = say("data", "check", "graph:g.npz")
    assert code == 0
    assert "weight" not in out
    assert err.startswith("nas: warning: graph:g.npz: not used: weight (known: x, ")
    code, out, err = say("data", "check", "graph:g.npz?normalise=rows&spilt=1")
    assert (code, out) == (2, "")
    assert "unknown option 'spilt'; did you mean 'split'? (known: normalise, split, labels)" in err
