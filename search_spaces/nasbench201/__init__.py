"""The space `nasbench201`: choices in `space`, layers in `network`."""

from search_spaces.nasbench201.space import NasBench201, Size

__all__ = ["NasBench201", "Size"]
