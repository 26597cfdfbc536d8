"""Surrogate models: one file per model."""
