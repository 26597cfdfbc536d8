"""The space `activation`: choices in `space`, the functions in `units`, the layers in `layer`."""

from search_spaces.activation.space import ActivationSpace

__all__ = ["ActivationSpace"]
