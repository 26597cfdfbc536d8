"""The space `moe`: choices in `space`, feed-forward layers in `layers`, backbones in files of their own, listed in
`backbones`."""

from search_spaces.moe.space import Moe, Size

__all__ = ["Moe", "Size"]
