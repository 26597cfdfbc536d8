"""Node operators, one file per idea."""
