"""What objects say about themselves: the fields of a configuration, the docstrings of a user's and of our code."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from nas_cli import render
from nas_core.errors import NasError, UsageError
from nas_core.testing.findings import raised

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

_SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "multiple_of": "multiple of"}


@contextmanager
def foreign_code(kind: str, name: str) -> Iterator[None]:
    """Whatever a user's code raises ends as a UsageError."""
    try:
        yield
    except NasError:
        raise
    except Exception as error:
        raise UsageError(f"{kind} '{name}' cannot be used: it {raised(error)}") from error


def fields(model: type[BaseModel]) -> list[dict[str, Any]]:
    """The fields of a configuration: name, default, allowed values and description."""
    return [
        {
            "name": name,
            "required": field.is_required(),
            "default": None if field.is_required() else field.get_default(call_default_factory=True),
            "type": values(field),
            "what": field.description or "",
        }
        for name, field in model.model_fields.items()
    ]


def settings_page(found: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Print the fields of a configuration; the first one that has a default."""
    if not found:
        render.emit("it has no settings")
        return None
    rows = [[f["name"], "required" if f["required"] else str(f["default"]), f["type"], f["what"]] for f in found]
    render.table(["setting", "default", "values", "what"], rows, right=["default"])
    return next((dict(field) for field in found if not field["required"]), None)


def each(names: Iterable[str], facts: Callable[[str], Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What everything listed says of itself. An installed package may be broken: its names have the `trouble`."""
    found: list[dict[str, Any]] = []
    for name in names:
        try:
            found.append({"name": name, **facts(name)})
        except (NasError, ImportError) as error:
            found.append({"name": name, "trouble": str(error)})
    return found


def what(fact: Mapping[str, Any]) -> str:
    """Its line, or why there is none."""
    return fact.get("what") or f"cannot be loaded: {fact['trouble']}"


def values(field: FieldInfo) -> str:
    """`int, 1 to 100`: the type and the bounds of a field."""
    annotation = field.annotation
    if get_origin(annotation) is Literal:
        return " or ".join(map(str, get_args(annotation)))
    rules = [(sign, getattr(rule, sign)) for rule in field.metadata for sign in _SIGNS if hasattr(rule, sign)]
    name = annotation.__name__ if type(annotation) is type else str(annotation).replace("typing.", "")
    if [sign for sign, _ in rules] == ["ge", "le"]:
        return f"{name}, {rules[0][1]} to {rules[1][1]}"
    return ", ".join([name, *(f"{_SIGNS[sign]} {limit}" for sign, limit in rules)])


def line(found: Any) -> str:
    """One line: of the module's docstring, which names the paper, or of the object's own."""
    return render.first_line(_of_module(found) or _own(found))


def line_of_module(name: str) -> str:
    """`line` of what a module holds that is not imported: its docstring is read from the source."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        return ""
    source = Path(found.origin).read_text(encoding="utf-8")
    return render.first_line(ast.get_docstring(ast.parse(source)))


def text(found: Any) -> str:
    """The module's docstring and the object's own."""
    return "\n\n".join(part for part in (_of_module(found), _own(found)) if part)


def _of_module(found: Any) -> str:
    return inspect.cleandoc(getattr(sys.modules.get(found.__module__), "__doc__", None) or "")


def _own(found: Any) -> str:
    return inspect.cleandoc(found.__doc__ or "")
