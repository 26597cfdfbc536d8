"""Searches that model what was measured: surrogates, Gaussian processes, Parzen estimators."""
