"""Reading a user's data files: what is missing or malformed is said in one line."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def folder_of(scheme: str, argument: str, example: str) -> Path:
    """The folder that `scheme:ARGUMENT` names; NotFoundError where there is none."""
    path = _path(scheme, argument, example)
    if not path.is_dir():
        kind = "is a file, not a folder" if path.exists() else "does not exist"
        raise NotFoundError(f"data '{scheme}:{argument}': {path} {kind}")
    return path


def file_of(scheme: str, argument: str, example: str) -> Path:
    """The file that `scheme:ARGUMENT` names; NotFoundError where there is none."""
    path = _path(scheme, argument, example)
    if not path.is_file():
        kind = "is a folder, not a file" if path.exists() else "does not exist"
        raise NotFoundError(f"data '{scheme}:{argument}': {path} {kind}")
    return path


def nothing(scheme: str, argument: str) -> None:
    """Refuses an argument for embedded data."""
    if argument:
        raise UsageError(f"data '{scheme}:{argument}': {scheme} is embedded and takes no argument; write {scheme}")


def first_of(folder: Path, names: Sequence[str]) -> Path:
    """The first of these file names that is in the folder; NotFoundError lists what was looked for."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise NotFoundError(f"{folder} holds none of {', '.join(names)}")


def content(path: Path) -> bytes:
    """The bytes of a file, unpacked where it is gzipped. Raises UsageError for a damaged or unreadable file."""
    try:
        if path.suffix != ".gz":
            return path.read_bytes()
        with gzip.open(path) as stream:
            return stream.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UsageError(f"{path}: damaged gzip file ({error})") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error


def arrays(path: Path, needed: Sequence[str], known: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file under the `known` keys, of which `needed` must be there; other keys are not read."""
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise UsageError(f"{path}: is a single array; an .npz file with {', '.join(needed)} is needed")
        with file:
            missing = [key for key in needed if key not in file]
            if missing:
                has = f"needed: {', '.join(needed)}; found: {', '.join(file) or 'nothing'}"
                raise UsageError(f"{path}: has no '{missing[0]}' ({has})")
            return {key: file[key] for key in known if key in file}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(f"{path}: not a readable .npz file of plain arrays (pickled objects are not read)") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error


def _path(scheme: str, argument: str, example: str) -> Path:
    if not argument:
        raise UsageError(f"data '{scheme}' needs a path: {example}")
    return Path(argument).expanduser()
