"""The space `graphgym`: choices in `space`, what networks cost in `costs`, layers in `network`."""

from search_spaces.graphgym.space import GraphGym, GraphGymSize

__all__ = ["GraphGym", "GraphGymSize"]
