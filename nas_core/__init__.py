"""Contracts and pure functions of `nas`: standard library, numpy and pydantic only."""
