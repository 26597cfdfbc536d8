"""Under which name this program is installed. It is not that of the command: `nas` is a stranger's package on PyPI."""

from __future__ import annotations

from importlib import metadata

NAME = "nas-search"


def version() -> str:
    """The installed version; "unknown" for a source tree that is not installed."""
    try:
        return metadata.version(NAME)
    except metadata.PackageNotFoundError:
        return "unknown"
