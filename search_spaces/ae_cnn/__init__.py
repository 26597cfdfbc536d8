"""The space `ae-cnn`: choices in `space`, layers in `network`."""

from search_spaces.ae_cnn.space import AeCnn, Size

__all__ = ["AeCnn", "Size"]
