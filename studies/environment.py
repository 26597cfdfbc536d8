"""The machine and software that a run had, as plain data."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from nas_core import distribution
from studies.records import StudySpec

_PACKAGES = (distribution.NAME, "torch", "torch-geometric", "numpy")


def environment(spec: StudySpec) -> dict[str, Any]:
    """Versions, processor, device and threads."""
    said = spec.evaluator.facts
    device = said.device or "cpu"
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device": device,
        "threads": said.threads,
        "packages": {name: _version(name) for name in _PACKAGES},
    }
    if device.startswith("cuda"):
        import torch

        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
