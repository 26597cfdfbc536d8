"""The site of the documentation: every page is in it, no link of it leads nowhere, and it fetches nothing."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILDER = "zensical"


@pytest.fixture(scope="module")
def site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_of_docs", ROOT / "docs" / "site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def named(entry: Any) -> Iterator[str]:
    """The pages of a part of the navigation."""
    if isinstance(entry, str):
        yield entry
    else:
        for one in entry.values() if isinstance(entry, dict) else entry:
            yield from named(one)


def test_every_page_is_in_the_navigation(site: ModuleType) -> None:
    settings = tomllib.loads((ROOT / "docs" / "zensical.toml").read_text())["project"]
    pages = {path for path, _ in site.pages() if not path.startswith("examples/")}  # pages on a space etc. lead there
    assert sorted(named(settings["nav"])) == sorted(pages)


def test_links_lead_to_pages_and_code_stays(site: ModuleType) -> None:
    text = "[a](docs/data.md#texts), [b](../examples/my_space.py), [c](../CONTRIBUTING.md#x), [d](#e), [f](https://g.h)"
    assert site.linked(text) == (
        "[a](data.md#texts), [b](examples/my_space.md), [c](contributing.md#x), [d](#e), [f](https://g.h)"
    )
    code = "`x[0](docs/a.md)`\n```python\ny[1](docs/b.md)\n```\n"
    assert site.linked(code) == code


class Fetched(HTMLParser):
    """What a page asks for when it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and ((tag in ("script", "img", "iframe") and name == "src") or (tag == "link" and name == "href")):
                self.found.append(value)


def test_the_site_is_built_strictly_and_fetches_nothing(site: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip(BUILDER, reason="the extra 'docs' is not installed")
    built = site.build(tmp_path)
    pages = sorted(built.rglob("*.html"))
    assert len(pages) > len(list(site.pages()))  # and one for what is not found
    for page in pages:
        parser = Fetched()
        parser.feed(page.read_text(encoding="utf-8"))
        assert parser.found
        assert not [where for where in parser.found if re.match("(https?:)?//", where)], page
    start = (built / "index.html").read_text(encoding="utf-8")
    pictures = re.findall(r'<img[^>]* src="([^"]+)"', start)
    assert len(pictures) >= 3
    assert all((built / path).is_file() for path in pictures)
    reference = (built / "reference" / "spaces" / "index.html").read_text(encoding="utf-8")
    assert 'id="nas_core.space.SearchSpace.allowed"' in reference
    assert 'id="a-new-search-space-one-file"' in (built / "contributing" / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_link_that_leads_nowhere_ends_it(site: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The links there are lead somewhere: a test above."""
    pytest.importorskip(BUILDER, reason="the extra 'docs' is not installed")
    given = dict(site.pages())
    for wrong in ("[x](nothing.md)", "[x](data.md#nothing)", "::: nas_core.nothing"):
        changed = {**given, "tabular.md": f"{given['tabular.md']}\n\n{wrong}\n"}
        monkeypatch.setattr(site, "pages", lambda changed=changed: iter(changed.items()))
        with pytest.raises(subprocess.CalledProcessError):
            site.build(tmp_path)
