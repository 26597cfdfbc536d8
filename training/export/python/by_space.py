"""The file of a network that cannot be written on its own: it is built by the user's space, which comes along."""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from nas_core.user_files import files_of
from training.export.python.module import Source, Subject, assembled, rest
from training.export.python.terms import literal
from training.export.rebuild import Origin

_IMPORTS = {"load_network": "from training.export import load_network"}


def space_source(
    network: nn.Module, subject: Subject, origin: Origin, description: Mapping[str, Any], reason: str
) -> Source:
    """A file that builds the network by the space in the user's file; `reason` is why it does. It needs this program,
    and what the user's file imports."""
    assert origin.file is not None
    described = description["space_file"].removesuffix(".space.py") + ".json"
    build = [
        "def build() -> nn.Module:",
        '    """The network, untrained."""',
        f"    return load_network(Path(__file__).with_name({literal(described)}))",
    ]
    why = f"Its search space builds it, from {description['space_file']} beside this file: {reason}."
    code = ["\n".join(build), *rest(network, subject, "build")]
    text, needs = assembled(subject, code, _IMPORTS, (why,), _imported(origin.file))
    return Source(text, needs, alone=False)


def _imported(file: Path) -> set[str]:
    """Packages that a file, and the modules beside it that it uses, import, beside Python's own."""
    found = set()
    for each in (file, *files_of(file)):
        for node in ast.walk(ast.parse(each.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            found |= {name.partition(".")[0] for name in names}
    beside = {name for name in found if (file.parent / f"{name}.py").is_file() or (file.parent / name).is_dir()}
    return found - beside - set(sys.stdlib_module_names)
