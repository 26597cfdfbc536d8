"""Import paths that a file of a user's or the card of an export can hold go on working (CONTRIBUTING lists them)."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATHS = [
    "nas_core.space.SearchSpace",
    "nas_core.choice.Choice",
    "nas_core.choice.When",
    "nas_core.config.Config",
    "nas_core.config.SizeConfig",
    "nas_core.strategy.Setting",
    "nas_core.strategy.Proposal",
    "nas_core.evaluation.Report",
    "training.data.source.image_source",
    "training.data.source.graph_source",
    "training.export.load_network",
    "studies.extract.load_extracted",
]


@pytest.mark.parametrize("path", PATHS)
def test_it_can_be_imported(path: str) -> None:
    module, _, name = path.rpartition(".")
    assert hasattr(importlib.import_module(module), name)


def test_contributing_lists_their_modules() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text.partition("## Import paths that stay")[2].partition("\n## ")[0]
    named = re.findall(r"`([a-z_.]+)`", section)
    listed = {f"nas_core{name}" if name.startswith(".") else name for name in named}
    for path in PATHS:
        assert path.rpartition(".")[0] in listed or path in listed, path


def test_layers_of_a_space_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from search_spaces.layers.drop_path import DropPath

    monkeypatch.delitem(sys.modules, "search_spaces.modules.drop_path", raising=False)

    with pytest.warns(DeprecationWarning, match=r"is now search_spaces\.layers\.drop_path"):
        earlier = importlib.import_module("search_spaces.modules.drop_path")
    assert earlier.DropPath is DropPath
