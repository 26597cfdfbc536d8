"""Torch layers that several spaces are made of, and the stems of convolutional networks."""
