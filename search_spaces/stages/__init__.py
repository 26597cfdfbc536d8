"""The space `stages`: see `space`."""

from search_spaces.stages.space import Size, Stages

__all__ = ["Size", "Stages"]
