"""The report of a real search in a real browser: it asks for nothing elsewhere, and is read in any mode and width."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas_cli.app import run
from tests.browser import Browser, Page
from tests.cli.conftest import enter
from tests.cli.test_bench import write

# Of each text that is seen: how its colour stands out from what is behind it, as WCAG 2 counts that.
CONTRAST = """(() => {
  const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b }
  const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor
    if (c !== 'rgba(0, 0, 0, 0)') return c } return 'rgb(255, 255, 255)' }
  const found = []
  for (const e of document.querySelectorAll('h1,h2,h3,p,a,dt,dd,th,td,summary,figcaption,code,b,small,svg text')) {
    const style = getComputedStyle(e), [a, b] = [light(e.closest('svg') ? style.fill : style.color), light(behind(e))]
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
    if (e.textContent.trim() && ratio < 4.5) found.push([e.tagName, e.textContent.trim().slice(0, 40), ratio])
  }
  return found })()"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("searched")
    write(folder)
    search = ["search", "--space", "dials.py:space", "--table", "dials.csv", "--data", "made", "--trials", "30"]
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        assert (
            run([*search, "--strategy", "regularized-evolution", "-s", "strategy.population=8", "--study", "one"]) == 0
        )
        assert run([*search, "--strategy", "random", "--seed", "2", "--study", "chance"]) == 0
        assert run(["report", "one"]) == 0
    return folder / "report.html"


@pytest.fixture
def page(browser: Browser, report: Path) -> Page:
    page = browser.page()
    page.go(report.as_uri())
    return page


def test_it_opens_offline_without_errors(page: Page, report: Path) -> None:
    assert page.errors == []
    assert [url for url in page.requests if not url.startswith("data:")] == [report.as_uri()]
    assert page.evaluate("document.title") == "one"
    drawn = page.evaluate("[...document.querySelectorAll('figure svg')].map(s => s.getBoundingClientRect().height)")
    assert len(drawn) >= 4
    assert min(drawn) > 100
    assert page.evaluate("[...document.querySelectorAll('img')].every(i => i.naturalWidth > 0)")
    # Texts of pictures are inside of them, whatever font there is.
    assert page.evaluate(
        "[...document.querySelectorAll('figure svg text')].every(t => t.getBoundingClientRect().width > 0)"
    )


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_is_read_in_both_modes(page: Page, dark: bool) -> None:
    page.look(1200, dark=dark)
    ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert ground == ("rgb(16, 18, 21)" if dark else "rgb(246, 247, 249)")
    assert page.evaluate(CONTRAST) == []


def test_a_phone_scrolls_downwards_alone(page: Page) -> None:
    page.look(360, 740)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    outside = "[...document.querySelectorAll('main *')].filter(e => !e.closest('.wide,pre'))"
    outside += ".filter(e => e.getBoundingClientRect().right > 360).map(e => e.outerHTML.slice(0, 80))"
    assert page.evaluate(outside) == []


def test_it_is_gone_through_by_keyboard(page: Page) -> None:
    page.look(1200)
    page.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left >= 0")
    for _ in range(3):
        page.press("Tab")
    page.press("Enter")
    page.until("location.hash === '#figures'")
    page.until("Math.abs(document.querySelector('#figures').getBoundingClientRect().top) < 120")
