"""Relation operators: states of edges, by the nodes at their ends; one file per idea."""
