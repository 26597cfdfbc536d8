"""Given weights to start from: the tensors of a safetensors file that a network has too, by name and shape."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nas_core.errors import NotFoundError, UsageError, VerificationError
from nas_core.traits import HasSignature

if TYPE_CHECKING:
    from torch import Tensor, nn


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
    """A safetensors file that trainings start from. `reference` is what it was called, `sha256` what it held."""

    path: Path
    reference: str
    sha256: str

    def take(self, network: nn.Module) -> Taken:
        """Copy the tensors that the network has too into it; the others stay as they were made, and so do those of
        modules that say that theirs are never to be taken (`nas_core.traits.HasSignature`).

        Raises UsageError for a file that is none, or of which nothing fits; VerificationError for one that has changed.
        """
        import safetensors.torch
        import torch
        from safetensors import SafetensorError

        content = _read(self.path)
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise VerificationError(
                f"the weights '{self.reference}' have changed since the training began; restore them"
            )
        try:
            given: dict[str, Tensor] = safetensors.torch.load(content)
        except SafetensorError as error:
            raise UsageError(f"'{self.reference}' is no safetensors file: {error}") from error
        own = network.state_dict()
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


def start_from(path: Path, reference: str) -> Start:
    """The file as it is now. Raises NotFoundError."""
    return Start(path, reference, hashlib.sha256(_read(path)).hexdigest())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotFoundError(f"there are no weights at '{path}' ({error.strerror or error})") from error
