"""Comparing strategies: every (strategy, seed) is a child study of a bench, and the database gives the ranking."""
