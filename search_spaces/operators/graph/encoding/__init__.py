"""Encodings: what is known of a node by its place in the graph; one file per idea."""
