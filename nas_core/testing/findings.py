"""What the contract suites share: how findings are collected, and how a fresh interpreter is asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from nas_core import refs

MOST = 3  # findings of one part; more of the same kind helps nobody


def collect(part: str, function: Callable[..., Iterator[str]], *arguments: Any) -> Iterator[str]:
    """The first findings of one part of a suite, headed by its name; an exception is a finding too."""
    try:
        for finding in islice(function(*arguments), MOST):
            yield f"{part}: {finding}"
    except Exception as error:  # whatever a user's code raises is what the suite is there to report
        yield f"{part}: {raised(error)}"


def raised(error: Exception) -> str:
    """`raised ValueError: message (file.py:12)`, with the innermost place."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"raised {type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"


@dataclass(frozen=True)
class Reference:
    """A name as a user writes it, with the table and the entry-point group that resolve it."""

    text: str
    builtins: Mapping[str, str] = field(default_factory=dict)
    group: str = ""
    kind: str = "object"

    def load(self) -> Any:
        """The object, called with the reference's arguments where it is a class or function."""
        return refs.load(self.text, self.builtins, self.group, self.kind).object

    def find(self) -> Any:
        """The object itself, for strategies and other classes."""
        return refs.find(self.text, self.builtins, self.group, self.kind)


def ask_fresh(code: str, *arguments: Any, hash_seed: int = 4711, seconds: float = 120.0) -> Any:
    """What `code` prints as JSON in a new interpreter with another hash seed; its arguments are `ARGUMENTS`.

    A `Reference` arrives as a `Reference`. Raises RuntimeError with the last line of stderr when it fails.
    """
    plain = [{"reference": asdict(item)} if isinstance(item, Reference) else {"value": item} for item in arguments]
    head = (
        "import json, sys\n"
        "from nas_core.testing.findings import Reference\n"
        "ARGUMENTS = [Reference(**a['reference']) if 'reference' in a else a['value'] for a in json.load(sys.stdin)]\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    done = subprocess.run(
        [sys.executable, "-c", head + code],
        input=json.dumps(plain),
        capture_output=True,
        text=True,
        env=environment,
        timeout=seconds,
    )
    if done.returncode:
        raise RuntimeError(f"a fresh interpreter failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])  # a user's file may print as well
