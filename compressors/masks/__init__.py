"""Unstructured compression: weights become exactly 0 and stay so; shapes, and the time on dense hardware, stay as they
were. A family is one file; `masking.py` is what they share, `kept.py` the training with masks."""
