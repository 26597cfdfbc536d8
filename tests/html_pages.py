"""Pages of HTML as tests read them: elements and their attributes, texts of sections, tables, what a page loads."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "hr", "input", "path", "use", "rect", "image", "stop"}
LOADS = ("src", "href", "xlink:href", "action", "formaction", "data", "poster", "srcset", "background")


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What is read, blanks as one."""
        return " ".join(self._all().split())

    def _all(self) -> str:
        return "".join(child if isinstance(child, str) else f" {child._all()} " for child in self.children)

    def every(self, tag: str | None = None) -> list[Element]:
        """All elements in it, in their order, or those with a tag."""
        found = [child for child in self.children if isinstance(child, Element)]
        return [one for child in found for one in (child, *child.every()) if tag is None or one.tag == tag]

    def one(self, name: str) -> Element:
        """The element of an id."""
        (found,) = [one for one in self.every() if one.attributes.get("id") == name]
        return found

    def tables(self) -> list[list[list[str]]]:
        """Of every table the texts of its cells, heads first."""
        return [
            [[cell.text for cell in row.every() if cell.tag in ("td", "th")] for row in table.every("tr")]
            for table in self.every("table")
        ]

    def pairs(self) -> dict[str, str]:
        """Names and values of all definition lists."""
        cells = [one for one in self.every() if one.tag in ("dt", "dd")]
        return {name.text: value.text for name, value in zip(cells[::2], cells[1::2], strict=True)}


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        made = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(made)
        if tag not in VOID:
            self.open.append(made)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open[-1].tag == tag, f"</{tag}> where <{self.open[-1].tag}> is open"
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read(page: str) -> Element:
    """The page. Fails where an element is not closed, or another one is."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert [one.tag for one in reader.open] == [""]
    return reader.open[0]


def loaded(page: Element) -> list[str]:
    """What a browser would fetch, or go to, elsewhere."""
    found = [value for one in page.every() for name, value in one.attributes.items() if name in LOADS]
    return [value for value in found if not value.startswith(("#", "data:"))]


def scripted(page: Element) -> list[str]:
    """What a browser would execute."""
    found = [one.text for one in page.every("script")]
    found += [name for one in page.every() for name in one.attributes if name.startswith("on")]
    led = [value for one in page.every() for name, value in one.attributes.items() if name in LOADS]
    return found + [value for value in led if value.strip().lower().startswith(("javascript:", "data:text"))]
