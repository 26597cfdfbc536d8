"""Which number format a training computes in: a pure function of the request, the processor and the kind of task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from training import tasks

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bf16"]
Request = Literal["auto", "float32", "bf16"]


def resolve(request: Request, device: torch.device, kind: str) -> Precision:
    """The format that `request` means for a task of this `kind` on this device.

    "auto" is bf16 autocast for images where the processor multiplies bf16 in hardware, else float32. On such CPUs
    convolution networks of 16 channels and more trained 1.6 times as fast as in float32, those of 8 channels as
    fast. Graphs stay in float32: CPUs scatter bf16 messages one by one, and attention layers were ten times slower.
    """
    if request != "auto":
        return request
    return "bf16" if tasks.find(kind).images and multiplies_bf16(device) else "float32"


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the processor has instructions for bf16 products (CUDA from capability 8, AVX512-BF16, AMX)."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    # Private in torch 2.7 to 2.13; without them nothing is known about the processor.
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in checks)
