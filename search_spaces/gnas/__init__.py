"""The space `gnas`: choices in `space`, layers in `network`."""

from search_spaces.gnas.space import Gnas, GnasSize

__all__ = ["Gnas", "GnasSize"]
