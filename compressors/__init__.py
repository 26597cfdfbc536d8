"""Compressors: smaller networks out of trained ones. One file per method, listed here (`compressors.compressor`)."""

from collections.abc import Mapping

GROUP = "nas.compressors"

BUILTIN: Mapping[str, str] = {}
