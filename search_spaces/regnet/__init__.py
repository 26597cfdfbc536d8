"""The space `regnet`: see `space`."""

from search_spaces.regnet.space import RegNet, Size

__all__ = ["RegNet", "Size"]
