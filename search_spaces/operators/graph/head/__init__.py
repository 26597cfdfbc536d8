"""Heads: from node states to what the task asks for; one file per idea."""
