"""Readouts: what a graph is, of its nodes; one file per idea."""
