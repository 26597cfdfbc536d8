"""The space `evonorm`: choices in `space`, the mathematics in `primitives`, the layer in `layer`."""

from search_spaces.evonorm.space import EvoNorm, Size

__all__ = ["EvoNorm", "Size"]
