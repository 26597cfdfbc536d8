"""What a `torch.export` archive may hold before torch opens it: torch unpickles, and runs native code, without asking.

Our own archives hold JSON and raw tensors alone, and no example inputs (`training.export.write`).
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nas_core.errors import UsageError
from nas_core.plain import from_json

COMPILED = ("/data/aotinductor/", "/executorch/")
PICKLED = ("custom_obj_", "opaque_obj_")  # how the names of objects begin


def checked(path: Path) -> io.BytesIO:
    """The content of an archive. Raises UsageError for a file that is none, or that would run code."""
    content = io.BytesIO(path.read_bytes())
    try:
        wrong = next(_problems(content), None)
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise UsageError(f"'{path}' cannot be read: {error}") from error
    if wrong is not None:
        raise UsageError(f"'{path}' is not opened: {wrong}, so that loading it would run code")
    content.seek(0)
    return content


def _problems(content: io.BytesIO) -> Iterator[str]:
    """What speaks against opening an archive."""
    with zipfile.ZipFile(content) as archive:
        names = archive.namelist()
        if len(set(names)) < len(names):
            yield "two of its files have one name"
            return
        for name in names:
            if any(folder in f"/{name}" for folder in COMPILED):
                yield f"'{name}' is compiled code"
            elif name.rpartition("/")[2].startswith(PICKLED):
                yield f"'{name}' is a pickled object"
            elif name.endswith(".pt") and archive.read(name) and not _holds_tensors(archive.read(name)):
                yield f"'{name}' holds other things than tensors"
            elif name.endswith("_config.json") and _says_pickle(from_json(archive.read(name))):
                yield f"'{name}' names pickled files"


def _holds_tensors(content: bytes) -> bool:
    import torch

    try:
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # whatever a file that is none makes torch raise
        return False
    return True


def _says_pickle(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value.get("use_pickle")) or any(map(_says_pickle, value.values()))
    return isinstance(value, list) and any(map(_says_pickle, value))
