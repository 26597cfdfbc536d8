"""Predictors: guesses of a metric without the full evaluation."""
