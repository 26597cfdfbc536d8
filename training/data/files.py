"""Reading a user's data files: what is missing or malformed is said in one line."""

from __future__ import annotations

import difflib
import gzip
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.errors import MachineError, NotFoundError, UsageError, unknown
from training.data.reference import written
from training.memory import free_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A key with one of these words says which samples belong to which part.
PART_WORDS = {
    *("train", "training", "val", "valid", "validation", "dev", "eval", "evaluation", "test", "testing", "holdout"),
    *("mask", "masks", "split", "splits", "fold", "folds"),
}


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
        raise UsageError(
            f"data '{written(scheme, argument)}': {scheme} is embedded and takes no argument; write {scheme}"
        )


def first_of(folder: Path, names: Sequence[str]) -> Path:
    """The first of these file names that is in the folder; NotFoundError lists what was looked for."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise NotFoundError(f"{folder} holds none of {', '.join(names)}")


def content(path: Path) -> bytes:
    """The bytes of a file, unpacked where it is gzipped. Raises UsageError for a damaged or unreadable file,
    MachineError for one that unpacks to more than a quarter of the memory that is free."""
    try:
        if path.suffix != ".gz":
            return path.read_bytes()
        free = free_bytes()
        most = -1 if free is None else free // 4
        with gzip.open(path) as stream:
            found = stream.read(most)
            if free is not None and stream.read(1):
                raise MachineError(
                    f"{path}: unpacks to more than {most / 2**20:,.0f} MiB, a quarter of the free memory"
                )
            return found
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UsageError(f"{path}: damaged gzip file ({error})") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error


def arrays(path: Path, needed: Sequence[str], known: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file under the `known` keys, of which `needed` must be there; other keys are not read.

    Raises UsageError for what is missing, Python objects and damaged files.
    """
    with _opened(path, needed) as file:
        missing = [key for key in needed if key not in file]
        if missing:
            has = f"needed: {', '.join(needed)}; found: {', '.join(file) or 'nothing'}"
            raise UsageError(f"{path}: has no '{missing[0]}' ({has})")
        return {key: _array(path, file, key) for key in known if key in file}


def unused(path: Path, known: Sequence[str], hint: str = "") -> list[str]:
    """What to tell of the keys of an npz file that are not `known`.

    Raises UsageError for one that could have meant something: a known key that is misspelt, or the name of a part of
    the data (`hint` is said then).
    """
    with _opened(path, known) as file:
        others = [key for key in file if key not in known]
        absent = [key for key in known if key not in file]
    for key in others:
        if difflib.get_close_matches(key.lower(), absent, cutoff=0.8) or PART_WORDS & set(_words(key)):
            raise UsageError(f"{path}: {unknown('key', key, known)}{hint}")
    return [f"not used: {', '.join(others)} (known: {', '.join(known)})"] if others else []


@contextmanager
def _opened(path: Path, needed: Sequence[str]) -> Iterator[Any]:
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise UsageError(f"{path}: is a single array; an .npz file with {', '.join(needed)} is needed")
        with file:
            yield file
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(f"{path}: not a readable .npz file of plain arrays (pickled objects are not read)") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error


def texts(path: Path, key: str, found: Mapping[str, NDArray[Any]]) -> tuple[str, ...]:
    """The names under a key of an npz file; none where it is not there."""
    if key not in found:
        return ()
    names = found[key]
    if names.dtype.kind != "U" or names.ndim != 1:
        raise UsageError(f"{path}: {key} are {names.dtype} {names.shape}; needed is a list of texts")
    return tuple(names.tolist())


def _array(path: Path, file: Any, key: str) -> NDArray[Any]:
    try:
        array: NDArray[Any] = file[key]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise UsageError(
            f"{path}: '{key}' holds Python objects (pickled objects are not read); save plain numbers or texts, "
            f"as np.asarray({key}.tolist()) makes them"
        ) from error
    return array


def _words(key: str) -> list[str]:
    """`x_train` and `trainX` -> their words in lower case."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", key)]


def _path(scheme: str, argument: str, example: str) -> Path:
    if not argument:
        raise UsageError(f"data '{scheme}' needs a path: {example}")
    return Path(argument).expanduser()
