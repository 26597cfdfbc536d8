"""The space `darts`: choices in `space`, layers in `network`."""

from search_spaces.darts.space import Darts, Size

__all__ = ["Darts", "Size"]
