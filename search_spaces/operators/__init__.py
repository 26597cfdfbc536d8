"""Operators: a folder per role, a file per operator; see `operator` for what one is."""
