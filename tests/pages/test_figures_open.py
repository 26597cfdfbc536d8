"""Every kind of figure that studies of every kind can have, as PNG, SVG and HTML: files that open, pages that do not
complain, and in all of them the same panels with the same names."""

from __future__ import annotations

import xml.etree.ElementTree as xml
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
from PIL import Image

from nas_cli.app import run
from reports import make
from reports.addressed import addressed
from reports.figure import Figure, named
from reports.mirrored import Mirrored
from studies.store.store import Store
from tests.browser import Browser
from tests.cli.conftest import enter
from tests.cli.test_bench import write

pytestmark = pytest.mark.slow  # tests/reports has each kind against what was stored, and both renderers
pytest.importorskip("plotly")

SMALL = ["--data", "digits", "-s", "split.limit=120", "--size", "channels=4,cells=1", "--threads", "1", "--seed", "1"]
TABLE = ["--space", "dials.py:space", "--table", "dials.csv", "--data", "made"]
TWO = ["--objective", "val_accuracy", "--objective", "macs:min"]
COMMANDS = (
    ["search", "--study", "plain", *SMALL, "--strategy", "random", "--trials", "6", "--epochs", "2"],
    ["search", "--study", "several", *SMALL, *TWO, "--strategy", "random", "--trials", "6", "--epochs", "2"],
    ["search", "--study", "bracket", *SMALL, "--strategy", "successive-halving", "-s", "strategy.eta=2",
     "--trials", "24", "--epochs", "2"],
    ["search", "--study", "one-shot", *SMALL, "--strategy", "darts", "-s", "strategy.epochs=2", "--epochs", "2"],
    ["train", "plain", "--top", "3", "--epochs", "2"],
    ["compress", "plain", "--method", "magnitude", "--target", "params<=0.5x"],
    ["bench", "strategies", *TABLE, "--strategies", "random,local-search", "--queries", "8", "--seeds", "2",
     "--jobs", "1", "--name", "bench"],
)  # fmt: skip
SEARCH = {"history", "curves", "architecture", "importance", "parallel", "slice", "contour", "rank", "edf", "timeline"}
KINDS = {
    "plain": SEARCH | {"compressed", "ranks"},
    "several": SEARCH | {"front"},
    "bracket": SEARCH | {"ranks"},
    "one-shot": {"alphas", "architecture", "curves", "history", "timeline"},
    "bench": {"regret", "differences"},
    "compression": {"architecture", "curves", "pruning"},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("drawn")
    write(folder)
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        for command in COMMANDS:
            assert run(command) == 0, command
        with Store("sqlite:///nas.db", reading=True) as found:
            yield found


def address(store: Store, name: str) -> str:
    if name != "compression":
        return name
    from nas_core.records import COMPRESS
    from studies.address import address_of

    study = store.study("plain")
    (found,) = [(trial, one) for trial in store.trials(study) for one in store.below(trial, COMPRESS)]
    return address_of(study, *found)


def words(figure: Figure | Mirrored) -> set[str]:
    """What is written in a figure."""
    if isinstance(figure, Mirrored):
        return {figure.title, figure.metric} if figure.plot not in ("timeline", "rank") else {figure.title}
    found = {figure.title} | {panel.title for panel in figure.panels}
    for panel in figure.panels:
        found |= {name for name, _ in named(panel)}
        found |= {axis.label for axis in (panel.x, panel.y) if not axis.hidden}
    return found - {""}


@pytest.mark.parametrize("name", KINDS)
def test_files_open_and_hold_what_the_figures_say(store: Store, tmp_path: Path, browser: Browser, name: str) -> None:
    where = address(store, name)
    figures, _ = make.every(addressed(store, where))
    assert figures.keys() == KINDS[name]
    for kind, figure in figures.items():
        for ending in ("png", "svg"):
            assert run(["plot", where, "--kind", kind, "--out", str(tmp_path / f"{kind}.{ending}")]) == 0
        image = numpy.asarray(Image.open(tmp_path / f"{kind}.png").convert("RGB"))
        assert len(numpy.unique(image.reshape(-1, 3), axis=0)) > 10
        texts = {"".join(node.itertext()) for node in xml.parse(tmp_path / f"{kind}.svg").iter()}
        assert words(figure) <= texts
    assert run(["plot", where, "--kind", "all", "--out", str(tmp_path / "all.html")]) == 0
    page = browser.page()
    page.look(1200)
    page.go((tmp_path / "all.html").as_uri())
    page.until(f"document.querySelectorAll('.js-plotly-plot .main-svg').length >= {len(figures)}")
    assert page.errors == []
    shown = page.evaluate(
        "[...document.querySelectorAll('.js-plotly-plot')].map(p => [p._fullLayout._subplots.cartesian.length,"
        " p.textContent, p.getBoundingClientRect().height])"
    )
    assert len(shown) == len(figures)
    for (panels, text, height), figure in zip(shown, figures.values(), strict=True):
        assert height > 200
        assert figure.title in text
        if isinstance(figure, Figure):
            assert panels == len(figure.panels)
            assert all(word in text for word in words(figure))
