"""The space `evonorm`: choices in `space`, the mathematics in `primitives`, the layer in `layer`."""

from search_spaces.evonorm.space import EvoNorm

__all__ = ["EvoNorm"]
