"""Compressors: smaller models out of trained ones."""
