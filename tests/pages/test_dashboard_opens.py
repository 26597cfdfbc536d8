"""`nas dashboard` in a real browser: figures, what is new, both modes, a phone's width, the keyboard, and odd names."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas_core.strategy import State
from studies.store.store import Store
from tests.browser import Browser, Page
from tests.pages.serving import Served, served, study, trial, url_of
from tests.pages.test_dashboard import named, odd
from tests.pages.test_report_opens import CONTRAST

pytest.importorskip("starlette")
pytest.importorskip("plotly")

DRAWN = "[...document.querySelectorAll('.plot')].every(p => p.inView === false || p.dataset.state)"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("shown")
    with Store(url_of(folder), create=True) as found:
        one = study(found, "s", "score:max")
        for number in range(60):
            failed = number % 9 == 4
            trial(found, one, number, None if failed else (number * 37 % 101) / 100,
                  State.FAILED if failed else State.COMPLETE, reason="exception: made" if failed else None)  # fmt: skip
        yield found


@pytest.fixture(scope="module")
def server(store: Store) -> Iterator[Served]:
    with served(store.url) as found:
        yield found


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.page()
    page.look(1200)
    yield page
    page.go("about:blank")  # which ends its connection


def test_a_study_is_drawn_without_errors_or_strangers(page: Page, server: Served) -> None:
    page.go(f"{server.url}/study?name=s")
    page.until(DRAWN)
    assert page.evaluate("document.querySelector('.plot').dataset.state") == "drawn"
    points = page.evaluate("document.querySelector('.plot').data.find(t => t.name === 'trials').y.length")
    assert points == 53
    page.until("document.getElementById('live').textContent === 'live'")
    assert page.errors == []
    assert [url for url in page.requests if not url.startswith((server.url, "data:", "blob:"))] == []


def test_what_is_new_appears(page: Page, server: Served, store: Store) -> None:
    page.go(f"{server.url}/study?name=s")
    page.until("document.getElementById('live').textContent === 'live'")
    before = page.evaluate("document.querySelector('#rows tbody a').textContent")
    number = int(before) + 1
    trial(store, store.study("s"), number, 5.0)
    page.until(f"document.querySelector('#rows tbody a').textContent === '{number}'")
    page.until("document.querySelector('.tile b').textContent === '5'")
    assert page.errors == []


def test_much_that_is_new_is_shown_at_once_now_and_then(page: Page, server: Served, store: Store) -> None:
    """So that searches beside it keep their processor; the last of it is shown too."""
    page.go(f"{server.url}/study?name=s")
    page.until("document.getElementById('live').textContent === 'live'")
    page.evaluate("window.times = []; new MutationObserver(() => window.times.push(performance.now()))"
                  ".observe(document.getElementById('rows'), {childList: true})")  # fmt: skip
    begun, number = time.monotonic(), int(page.evaluate("document.querySelector('#rows tbody a').textContent"))
    while time.monotonic() < begun + 3:
        number += 1
        trial(store, store.study("s"), number, 0.5)
        time.sleep(0.1)
    page.until(f"document.querySelector('#rows tbody a').textContent === '{number}'", 60)
    times = page.evaluate("window.times")
    assert len(times) > 1
    assert min(later - one for one, later in itertools.pairwise(times)) >= 2000
    assert page.errors == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_is_read_in_both_modes(page: Page, server: Served, dark: bool) -> None:
    page.look(1200, dark=dark)
    for path in ("/", "/study?name=s", "/run?study=s&run=4", "/compare?name=s"):
        page.go(f"{server.url}{path}")
        page.until(DRAWN)
        assert [one for one in page.evaluate(CONTRAST) if one[0] != "text"] == []
    page.go(f"{server.url}/study?name=s")
    page.until(DRAWN)
    ink = page.evaluate("getComputedStyle(document.querySelector('.plot .xtick text')).fill")
    assert ink == ("rgb(230, 233, 237)" if dark else "rgb(27, 31, 36)")


def test_a_phone_scrolls_downwards_alone(page: Page, server: Served) -> None:
    page.look(360, 740)
    for path in ("/", "/study?name=s", "/run?study=s&run=1", "/compare?name=s", "/running"):
        page.go(f"{server.url}{path}")
        assert page.evaluate("document.documentElement.scrollWidth") == 360, path


def test_it_is_gone_through_by_keyboard(page: Page, server: Served) -> None:
    page.go(f"{server.url}/study?name=s")
    page.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.evaluate("document.querySelector('#rows').scrollIntoView()")
    page.evaluate("document.querySelector('#rows th a').focus()")  # where many a Tab leads
    page.press("Tab")
    assert page.evaluate("document.activeElement.textContent.trim()") == "score"
    loads = page.loads
    page.press("Enter")
    page.until("location.search.includes('sort=score')")
    assert page.loads >= loads
    page.until("document.querySelector('th[aria-sort]')?.textContent.startsWith('score')")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") is not None


@pytest.mark.parametrize("count", [3, pytest.param(24, marks=pytest.mark.slow)])
def test_names_execute_nothing(page: Page, tmp_path: Path, count: int) -> None:
    """Drawn by Plotly too, which reads its texts as a kind of HTML."""
    names = [name for name, _, _ in named(tmp_path, odd(count))]
    with served(url_of(tmp_path)) as server:
        page.go(f"{server.url}/")
        for name in names:
            page.evaluate(f"location.assign('/study?name=' + encodeURIComponent({name!r}))")
            page.until("document.querySelector('h1') && document.querySelectorAll('.plot').length")
            page.until(f"document.querySelector('h1')?.textContent === {name!r}")
            page.until(DRAWN)
            assert page.evaluate("window.hit === undefined")
        assert [one for one in page.errors if "Content Security Policy" in one] == []
        page.go("about:blank")
