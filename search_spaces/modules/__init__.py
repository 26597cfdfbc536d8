"""Torch layers that search spaces are made of."""
