"""Given weights: the tensors of a file, by name and shape, of which a network starts with those that it has too, or
which it is filled with.

Files are safetensors, or what `torch.save(network.state_dict(), "w.pt")` writes: of these `torch.load` reads tensors
and plain containers alone (`weights_only`), so that no file runs code.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nas_core.errors import NotFoundError, UsageError, VerificationError
from nas_core.traits import HasSignature

if TYPE_CHECKING:
    from torch import Tensor, nn


PICKLED = (".pt", ".pth")
SUFFIXES = (".safetensors", *PICKLED)
"""Of files of weights."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a network took from a file: of its `tensors`, which it did not, and the share of its values that it did."""

    reference: str
    tensors: int
    fresh: tuple[str, ...]
    share: float

    def __str__(self) -> str:
        count = f"{self.tensors - len(self.fresh)} of {self.tensors} tensors"
        text = f"{count}, {self.share:.1%} of the values, from {self.reference}"
        shown = ", ".join(self.fresh[:3]) + (", ..." if len(self.fresh) > 3 else "")
        return f"{text} (fresh: {shown})" if self.fresh else text


@dataclass(frozen=True, slots=True)
class Start:
    """A file of weights. `reference` is what it was called, `sha256` what it held."""

    path: Path
    reference: str
    sha256: str

    def take(self, network: nn.Module) -> Taken:
        """Copy the tensors that the network has too into it; the others stay as they were made, and so do those of
        modules that say that theirs are never to be taken (`nas_core.traits.HasSignature`).

        Raises UsageError for a file that is none, or of which nothing fits; VerificationError for one that has changed.
        """
        import torch

        given, own = self.tensors(), network.state_dict()
        never = tuple(
            f"{name}."
            for name, one in network.named_modules()
            if isinstance(one, HasSignature) and one.signature() is None
        )
        fitting = {
            name
            for name, tensor in own.items()
            if name in given and given[name].shape == tensor.shape and not name.startswith(never)
        }
        with torch.no_grad():
            for name in fitting:
                own[name].copy_(given[name])
        values = sum(own[name].numel() for name in fitting)
        fresh = tuple(name for name in own if name not in fitting)
        if not values:
            example = next(iter(own), "none")
            raise UsageError(
                f"no tensor of '{self.reference}' has the name and the shape of one of this network (such as {example} "
                f"{list(own[example].shape) if own else []}); it holds {', '.join(list(given)[:3]) or 'nothing'}"
            )
        return Taken(self.reference, len(own), fresh, values / sum(tensor.numel() for tensor in own.values()))

    def tensors(self) -> dict[str, Tensor]:
        """What the file holds, on the CPU. Raises as `take`."""
        content = _read(self.path)
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise VerificationError(
                f"the weights '{self.reference}' have changed since the training began; restore them"
            )
        return _pickled(content, self.reference) if self.path.suffix in PICKLED else _stored(content, self.reference)

    def fill(self, network: nn.Module) -> None:
        """Load all tensors of the file into the network: they must be those that it has.

        Raises UsageError, naming the first tensor that is missing, too many, of another shape, or not finite.
        """
        given, own = self.tensors(), network.state_dict()
        for name, tensor in own.items():
            if name not in given:
                held = ", ".join(list(given)[:3]) or "nothing"
                raise UsageError(f"'{self.reference}' lacks the tensor '{name}' of the network; it holds {held}")
            if given[name].shape != tensor.shape:
                raise UsageError(
                    f"'{self.reference}': the tensor '{name}' is {list(given[name].shape)}, that of the network "
                    f"{list(tensor.shape)}"
                )
        for name, tensor in given.items():
            if name not in own:
                raise UsageError(f"'{self.reference}' holds a tensor '{name}', which the network does not have")
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise UsageError(f"'{self.reference}': the tensor '{name}' holds NaN or infinite values")
        network.load_state_dict(given)


def start_from(path: Path, reference: str) -> Start:
    """The file as it is now. Raises NotFoundError."""
    return Start(path, reference, hashlib.sha256(_read(path)).hexdigest())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotFoundError(f"there are no weights at '{path}' ({error.strerror or error})") from error


def _stored(content: bytes, reference: str) -> dict[str, Tensor]:
    import safetensors.torch
    from safetensors import SafetensorError

    try:
        return safetensors.torch.load(content)
    except SafetensorError as error:
        raise UsageError(f"'{reference}' is no safetensors file: {error}") from error


def _pickled(content: bytes, reference: str) -> dict[str, Tensor]:
    import io

    import torch

    try:
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file that is none makes torch raise
        raise UsageError(
            f"'{reference}' cannot be read as tensors alone; write torch.save(network.state_dict(), ...), or "
            "a safetensors file"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in found.values()):
        raise UsageError(f"'{reference}' holds other things than tensors by name; write network.state_dict() alone")
    return dict(found)
