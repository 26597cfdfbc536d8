"""Evaluators: what turns a proposal into metrics; one file per kind."""
