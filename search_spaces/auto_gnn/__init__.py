"""The space `auto-gnn`: choices and costs in `space`, layers in `network`, attention functions in `attention`."""

from search_spaces.auto_gnn.space import AutoGnn, AutoGnnSize

__all__ = ["AutoGnn", "AutoGnnSize"]
