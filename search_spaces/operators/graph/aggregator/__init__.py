"""Aggregators: many values to one, of neighbours and of a graph alike; one file per idea."""
