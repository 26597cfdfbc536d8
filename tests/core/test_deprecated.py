"""Old names of contracts that users implement or use answer for one release, and say that they are old."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from nas_core import relax
from nas_core.architecture import Architecture
from nas_core.graph import ArchGraph
from nas_core.one_shot import Progress
from nas_core.relax import FixedPicker, Mix, Picker, Style
from nas_core.strategy import Setting, uses_warm_start
from search_spaces.nasbench201.space import NasBench201
from search_spaces.supernet.picker import SupernetPicker
from training.data import load
from training.data.augment import Augment
from training.data.loading import Loading
from training.data.split import Split

ARCH = Architecture("toy", {"a": 1})


def old(name: str) -> Any:
    return pytest.warns(DeprecationWarning, match=re.escape(name))


def test_of_a_graph() -> None:
    with old("ArchGraph(skeleton=...) is now fixed_topology=..."):
        graph = ArchGraph(("input", "output"), ((0, 1),), skeleton=True)  # type: ignore[call-arg]
    assert graph.fixed_topology
    assert graph == ArchGraph(("input", "output"), ((0, 1),), fixed_topology=True)
    with old("ArchGraph.skeleton is now fixed_topology"):
        assert graph.skeleton  # type: ignore[attr-defined]


def test_of_a_setting() -> None:
    known = ((ARCH, 1.0),)
    with old("Setting(prior=...) is now warm_start=..."):
        setting = Setting(NasBench201(), 0, (), prior=known)  # type: ignore[call-arg]
    assert setting.warm_start == known
    with old("Setting.prior is now warm_start"):
        assert setting.prior == known  # type: ignore[attr-defined]
    with old("Setting.kept is now cache"):
        assert setting.kept is setting.cache  # type: ignore[attr-defined]


def test_of_a_strategy() -> None:
    class Old:
        uses_prior = True

    class New:
        uses_warm_start = True

    assert uses_warm_start(New)
    assert not uses_warm_start(object)
    with old("Old.uses_prior is now uses_warm_start"):
        assert uses_warm_start(Old)


def test_of_progress() -> None:
    with old("Progress(scores=...) is now strengths=..."):
        progress = Progress({}, scores={"edge": (1.0,)}, arch=None)  # type: ignore[call-arg]
    with old("Progress.scores is now strengths"):
        assert progress.scores == progress.strengths  # type: ignore[attr-defined]


def test_of_pickers() -> None:
    with old("nas_core.relax.Pick is now Picker"):
        assert relax.Pick is Picker
    with pytest.raises(AttributeError, match="has no attribute 'Picked'"):
        _ = relax.Picked
    picker = SupernetPicker()
    open_, fixed = picker.route("edge", (1, 2)), FixedPicker({"edge": 2}).route("edge", (1, 2))
    picker.current.mix = Mix({"edge": (1,)})
    for route in (open_, fixed):
        with old("Route.taken is now selected"):
            assert route.taken() == route.selected() == [(2, None)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("word", "style"), [("full", Style.STANDALONE), ("search", Style.SUPERNET)])
def test_of_styles(word: str, style: Style) -> None:
    """Spaces of users compare with them; an extracted network's description holds them."""
    assert Style(word) is style
    for other in Style:
        with old(f"style '{word}' is now '{style}'"):
            assert (other == word) == (other is style)
        assert other in {Style.STANDALONE, Style.SUPERNET}
        assert other != "neither"
        assert other == other.value


def test_of_a_source_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "from training.data import load\n"
        "from training.data.loading import Loading\n"
        "class Mine:\n"
        "    def __init__(self, split):\n"
        "        self._digits = load('digits', split)\n"
        "        for name in ('task', 'split_hash', 'sizes', 'class_counts', 'inputs', 'reference'):\n"
        "            setattr(self, name, getattr(self._digits, name))\n"
        "    def bind(self, device, batch_size=64, channels_last=False):\n"
        "        return self._digits.bind(device, Loading(batch_size=batch_size, channels_last=channels_last))\n"
        "def mine(argument, split):\n"
        "    return Mine(split)\n"
    )
    monkeypatch.chdir(tmp_path)
    split = Split(limit=40)
    with old("Mine.bind(device, batch_size, ...) is now bind(device, loading)"):
        source = load("mine.py:mine", split)
    assert source.sizes == load("digits", split).sizes
    bound = source.bind("cpu", Loading(batch_size=5, augment=Augment(crop=1), channels_last=True))
    assert next(iter(bound.batches("train", 0, 0))).samples == 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load("digits", split).bind("cpu", Loading(batch_size=5))
