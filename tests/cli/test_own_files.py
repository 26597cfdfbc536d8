"""A space of one's own that imports torch and the modules beside it: checked, searched, trained, exported, loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nas_core.errors import UsageError
from nas_core.user_files import Added

Say = Callable[..., tuple[int, str, str]]
SPACE = """
import torch
from torch import nn
from beside_layers import Block
from nas_core.choice import Choice
from nas_core.space import SearchSpace

class Space(SearchSpace):
    name = "beside"
    tasks = frozenset({"image-classification"})
    choices = (Choice("width", (2, 4)), Choice("act", ("relu", "tanh")))
    def build(self, arch, task, size):
        from beside_head import head
        width = arch.values["width"]
        act = {"relu": nn.ReLU, "tanh": nn.Tanh}[arch.values["act"]]
        return nn.Sequential(Block(task.input_shape[0], width, act()), *head(width, task.outputs))

space = Space()
"""
LAYERS = """
from torch import nn
class Block(nn.Sequential):
    def __init__(self, inputs, width, act):
        super().__init__(nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), act)
"""
HEAD = """
from torch import nn
def head(width, outputs):
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, outputs)
"""

SEARCH = [
    "--space",
    "mine/my_space.py:space",
    "--study",
    "s",
    "-s",
    "split.limit=200",
    "--epochs",
    "1",
    "--threads",
    "1",
]


@pytest.fixture
def own(folder: Path) -> Iterator[Path]:
    (folder / "mine").mkdir()
    for name, text in (("my_space.py", SPACE), ("beside_layers.py", LAYERS), ("beside_head.py", HEAD)):
        (folder / "mine" / name).write_text(text)
    yield folder
    for name in [name for name in sys.modules if name.startswith(("beside_", "nas_user_"))]:
        del sys.modules[name]
    sys.path[:] = [entry for entry in sys.path if not isinstance(entry, Added)]


@pytest.mark.usefixtures("forked_workers")
def test_a_space_with_neighbours_is_checked_and_searched_by_workers(own: Path, say: Say) -> None:
    code, out, err = say("spaces", "check", "mine/my_space.py:space")
    assert code == 0, out + err
    code, _, err = say("search", *SEARCH, "--trials", "3", "--workers", "2")
    assert code == 0, err


@pytest.mark.usefixtures("forked_checks")
def test_a_space_with_neighbours_is_trained_exported_and_loaded(own: Path, say: Say) -> None:
    code, _, err = say("search", *SEARCH, "--trials", "1")
    assert code == 0, err
    assert say("train", "s", "--epochs", "1")[0] == 0
    code, out, err = say("export", "s", "--format", "safetensors,json", "--json")
    assert code == 0, err
    assert {Path(path).name for path in json.loads(out)["files"]} >= {"beside_layers.py", "beside_head.py"}
    # Where only the exported files are, the network is built and its weights are loaded.
    (own / "mine").rename(own / "gone")
    stem = next(path.stem for path in (own / "export").glob("*.json"))
    script = (
        "from training.export import load_network\n"
        f"network = load_network('export/{stem}.json', 'export/{stem}.safetensors')\n"
        "print(sum(p.numel() for p in network.parameters()))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=own, capture_output=True, text=True)
    assert done.stdout.strip().isdecimal(), done.stderr
    (own / "export" / "beside_head.py").write_text(HEAD + "\n")
    from training.export import load_network

    with pytest.raises(UsageError, match="was changed since"):
        load_network(f"export/{stem}.json", f"export/{stem}.safetensors")


def test_a_changed_neighbour_is_refused(own: Path, say: Say) -> None:
    assert say("search", *SEARCH, "--trials", "1")[0] == 0
    (own / "mine" / "beside_head.py").write_text(HEAD + "\n")
    code, _, err = say("resume", "s", "--trials", "2")
    assert (code, "the file of space 'mine/my_space.py:space' has changed since" in err) == (2, True)
