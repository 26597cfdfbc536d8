"""The space `mlp`: choices in `space`, layers in `network`."""

from search_spaces.mlp.space import Mlp, Size

__all__ = ["Mlp", "Size"]
