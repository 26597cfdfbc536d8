"""A part of a network as a Python file of its own, which a fresh process compares with the part itself."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import safetensors.torch
import torch
from torch import Tensor, nn

from nas_core.errors import VerificationError
from nas_core.files import write_atomically
from nas_core.parts import PartSource
from training.export.python import check_part
from training.export.python.check import REFUSED
from training.export.python.layout import docstring
from training.export.verify import TOLERANCE, ask

IMPORTS = ("import math", "", "import torch", "from torch import Tensor, nn", "from torch.nn import functional")
BATCHES = 3
NOTHING = 1e-6  # what a gradient that is zero may differ by, a share of this


def written(made: PartSource, title: str, paragraphs: Sequence[str]) -> str:
    """The text of the file: what the part is and where it comes from, the imports that it uses, its code."""
    about = "\n\n".join((title, *paragraphs, made.usage, "Needs torch."))
    used = [line for line in IMPORTS if _used(line, made.code)]
    lines = used[1:] if used and not used[0] else used
    return "\n".join([*docstring(about), "", "from __future__ import annotations", "", *lines, "", "", made.code])


def _used(line: str, code: str) -> bool:
    if line == "import math":
        return "math." in code
    return "functional." in code if line.endswith("functional") else True


def export_part(
    part: nn.Module, made: PartSource, title: str, paragraphs: Sequence[str], file: Path, *, verify: bool = True
) -> Path:
    """Write the part to `file`. To `verify` it a fresh process that can import nothing of this program compares it
    first with `part`: values and gradients, in training mode batch after batch, then in evaluation mode, in float64.

    Raises VerificationError, and then writes nothing.
    """
    text = written(made, title, paragraphs)
    if verify:
        _verify(part, made, text, file.name)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, text.encode())
    return file


def _verify(part: nn.Module, made: PartSource, text: str, name: str) -> None:
    """Raises VerificationError where the text computes something else than the part; `name` is that of its file."""
    with TemporaryDirectory() as folder:
        source, cases = Path(folder) / "part.py", Path(folder) / "cases.safetensors"
        source.write_text(text, encoding="utf-8")
        cases.write_bytes(safetensors.torch.save(_cases(part, made.shape)))
        request = {"source": str(source), "made": made.made, "cases": str(cases), "batches": BATCHES}
        answer = ask([check_part.__file__], {**request, "refused": REFUSED})
    if "error" in answer:
        raise VerificationError(f"'{name}' failed its verification and was not kept: {answer['error']}")
    for what, difference, scale in answer["differences"]:
        allowed = TOLERANCE * max(scale, NOTHING)
        if not difference <= allowed:
            raise VerificationError(
                f"'{name}' failed its verification and was not kept: {what} differs by {difference:.3g} from the "
                f"network's (allowed: {allowed:.3g})"
            )


def _cases(part: nn.Module, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Parameters unlike those of a new part, inputs, what is summed by, and what the part makes of them."""
    generator = torch.Generator().manual_seed(0)

    def drawn(like: torch.Size | tuple[int, ...]) -> Tensor:
        return torch.randn(like, generator=generator, dtype=torch.float64)

    ours = copy.deepcopy(part).cpu().double()
    for module in ours.modules():
        reset = getattr(module, "reset_running_stats", None)
        if callable(reset):
            reset()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter += 0.3 * drawn(parameter.shape)
    found = {f"parameter/{name}": value.detach().clone() for name, value in ours.named_parameters()}
    for number in range(BATCHES):
        found[f"{number}/input"] = 1.5 * drawn(shape) + 0.4
        found[f"{number}/by"] = drawn(shape)
    return found | check_part.answers(ours, found, BATCHES)
