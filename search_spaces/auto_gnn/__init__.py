"""The space `auto-gnn`: choices in `space`, what spaces of such layers have in common in `layerwise`, layers in
`network`, attention functions in `attention`."""

from search_spaces.auto_gnn.space import AutoGnn, AutoGnnSize

__all__ = ["AutoGnn", "AutoGnnSize"]
