"""The place of before; goes with the next release."""

from nas_core.deprecated import told
from search_spaces.layers.drop_path import DropPath, drop_path

__all__ = ["DropPath", "drop_path"]

told("search_spaces.modules.drop_path", "search_spaces.layers.drop_path")
