"""What may stand in a file that is passed on: no directory of the machine that wrote it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

# A slash that begins a path: nothing of a relative path, and no slash of `scheme://`, before it; up to the next option.
_ABSOLUTE = re.compile(r"""(?<![\w.~/-])/(?!/)(?:&(?!\w+=)|[^:?;,"'|&])*""")


def public(value: Any) -> Any:
    """Plain data with every absolute path in its texts cut to its last part.

    `folder:/home/me/flowers?size=32` -> `folder:flowers?size=32`; `/home/me/my.py:load` -> `my.py:load`. Meant for
    references and settings, not for prose.
    """
    if isinstance(value, str):
        return _ABSOLUTE.sub(lambda found: PurePosixPath(found[0]).name or ".", value)
    if isinstance(value, Mapping):
        return {key: public(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [public(one) for one in value]
    return value
