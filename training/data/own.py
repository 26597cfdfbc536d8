"""Data of a user's own file: `my_data.py:NAME`, where NAME is a data set, or a function that loads one."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from nas_core import refs
from nas_core.errors import UsageError
from training.data.dataset import called, dataset_source, of_module, parts_of
from training.data.items import ItemOptions
from training.data.protocol import Source
from training.data.reference import options
from training.data.split import Split

if TYPE_CHECKING:
    from torch.utils.data import Dataset

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
    found, rest = _found(reference, split)
    if not isinstance(found, dict):
        return found
    chosen = options("", reference, ItemOptions)[1] if rest.startswith("?") else ItemOptions()
    return dataset_source(reference, found, chosen, split, partial(_parts, reference, split))


def _parts(reference: str, split: Split) -> Mapping[str, Dataset[Any]]:
    """The data sets of a reference that is known to name some."""
    found, _ = _found(reference, split)
    assert isinstance(found, dict)
    return found


def _found(reference: str, split: Split) -> tuple[Any, str]:
    """Part -> data set where the reference names such, what its loader returns otherwise; and what follows NAME."""
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
        return parts, rest
    if not callable(found):
        raise UsageError(f"{where}: '{name}' is {type(found).__name__}; needed is {KINDS}")
    if rest.startswith("?"):
        raise UsageError(f"{where}: options are for data sets; a loader gets its argument as {file}:{name}:ARGUMENT")
    source = called(found, where, rest[1:], split)
    return parts_of(source, where) or source, rest


def _takes(function: Any, *arguments: object) -> bool:
    """Whether a function can be called with these arguments."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # functions in C may say nothing of their arguments
        return True
    return True
