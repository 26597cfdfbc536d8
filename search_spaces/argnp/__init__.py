"""The space `argnp`: choices in `space`, operations in `operations`, networks in `network`."""

from search_spaces.argnp.space import Argnp, ArgnpSize

__all__ = ["Argnp", "ArgnpSize"]
