"""Our packages have common names (`training`, `studies`): no user's folder may take their place."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

PACKAGES = (
    "compressors",
    "nas_cli",
    "nas_core",
    "predictors",
    "reports",
    "search_spaces",
    "strategies",
    "studies",
    "training",
)


def intruder() -> str | None:
    """Which folder or file Python finds instead of one of our packages, in a sentence; None: all are ours.

    Looks at what is imported already, and asks the import system for the rest without importing it.
    """
    home = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        place = _place(name)
        if place is None:
            return f"package '{name}' of nas is missing in '{home}'; install nas again"
        if place != home / name:
            return (
                f"'{place}' takes the place of the package '{name}' of nas in '{home}'; "
                "rename it, start in another folder, or take its folder off PYTHONPATH"
            )
    return None


def check() -> None:
    """Raise MachineError when a package of ours comes from another place."""
    from nas_core.errors import MachineError

    problem = intruder()
    if problem:
        raise MachineError(problem)


def _place(name: str) -> Path | None:
    """The folder (or single file) that `import name` gives, or has given."""
    module = sys.modules.get(name)
    spec = module.__spec__ if module is not None else importlib.util.find_spec(name)
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    if folders:
        return Path(folders[0]).resolve()
    return Path(spec.origin).resolve() if spec.origin else None
