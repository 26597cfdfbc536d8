"""Rewirings: another graph to compute on; one file per idea."""
