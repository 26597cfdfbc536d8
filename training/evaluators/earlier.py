"""Settings of evaluators as studies stored them before schema 0007: one flat mapping with a `name`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LISTED = ("train", "table", "supernet")


def as_now(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same as they are stored now: a `kind`, and a table of costs around it. What is so already stays."""
    if "name" not in values or "kind" in values:
        return dict(values)
    rest = {key: value for key, value in values.items() if key not in ("name", "costs")}
    if values["name"] in _LISTED:
        inner: dict[str, Any] = {"kind": values["name"], **rest}
    else:
        inner = {"kind": values["name"], "settings": rest}
    return {"kind": "cost-table", "inner": inner, "costs": values["costs"]} if "costs" in values else inner
