"""Figures of what is stored: `figure.py` says what one is, `kinds/` makes them, two renderers draw them."""
