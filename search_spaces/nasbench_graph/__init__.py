"""The space `nasbench_graph`: choices in `space`, layers in `network`."""

from search_spaces.nasbench_graph.space import GraphSize, NasBenchGraph

__all__ = ["GraphSize", "NasBenchGraph"]
