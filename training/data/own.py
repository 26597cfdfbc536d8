"""Data of a user's own file: `my_data.py:NAME`, where NAME is a data set, or a function that loads one."""

from __future__ import annotations

import inspect
import re
from typing import Any

from nas_core import refs
from nas_core.errors import UsageError
from training.data.dataset import Options, called, dataset_source, of_module, parts_of
from training.data.reference import options
from training.data.source import Source
from training.data.split import Split

_REFERENCE = re.compile(r"(?P<file>.+?\.py)(?::(?P<name>[^:?]+))?(?P<rest>[:?].*)?", re.DOTALL)

KINDS = (
    "a torch.utils.data.Dataset, a mapping of train, valid and test to such, a function without arguments that returns "
    "one of these, or a function load(argument, split)"
)


def is_own(reference: str) -> bool:
    """Whether a data reference names a Python file."""
    return _REFERENCE.fullmatch(reference) is not None


def load(reference: str, split: Split) -> Source:
    """`FILE.py`, `FILE.py:NAME`, both with options `?size=32`; or `FILE.py:FUNCTION:ARGUMENT`.

    Of a file alone the data sets `train`, `valid` and `test` are used. Otherwise, told by what NAME is: a data set, a
    class of these, or a mapping of parts to them; a function without arguments that returns one of these; a function
    load(argument: str, split: Split), which returns one of these or a Source. Raises UsageError for anything else,
    NotFoundError for a missing file or object.
    """
    match = _REFERENCE.fullmatch(reference)
    assert match is not None
    file, name, rest = match["file"], match["name"], match["rest"] or ""
    where = f"data '{reference}'"
    found = refs.find(f"{file}:{name or '__dict__'}", {}, "", "data")
    parts = parts_of(of_module(found, where) if name is None else found, where)
    if parts is None and callable(found) and not _takes(found, "", split) and _takes(found):
        parts = parts_of(found := called(found, where), where)
    if parts is not None:
        if rest.startswith(":"):
            raise UsageError(f"{where}: a data set takes no argument; options are written {file}:{name}?size=32")
        return dataset_source(reference, parts, options("", reference, Options)[1] if rest else Options(), split)
    if not callable(found):
        raise UsageError(f"{where}: '{name}' is {type(found).__name__}; needed is {KINDS}")
    if rest.startswith("?"):
        raise UsageError(f"{where}: options are for data sets; a loader gets its argument as {file}:{name}:ARGUMENT")
    source: Any = called(found, where, rest[1:], split)
    parts = parts_of(source, where)
    return source if parts is None else dataset_source(reference, parts, Options(), split)


def _takes(function: Any, *arguments: object) -> bool:
    """Whether a function can be called with these arguments."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # functions in C may say nothing of their arguments
        return True
    return True
