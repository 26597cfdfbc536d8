"""How much memory there is."""

from __future__ import annotations

import os
from pathlib import Path


def free_bytes() -> int | None:
    """Bytes of main memory that can be had without swapping, within the limit of a container; None where nothing
    says so."""
    return min((limit for limit in (_machine(), _container()) if limit is not None), default=None)


def _machine() -> int | None:
    """What the machine can give: Linux says it, elsewhere it is the whole memory."""
    information = Path("/proc/meminfo")
    if information.is_file():
        for line in information.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows
        return None


def _container() -> int | None:
    """The limit of the control group of a container, where it has one."""
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text(encoding="ascii").strip() if limit.is_file() else "max"
    return int(text) if text.isdigit() else None
