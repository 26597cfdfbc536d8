"""The space `nasnet`: choices in `space`, layers in `network`."""

from search_spaces.nasnet.space import NASNet, Size

__all__ = ["NASNet", "Size"]
