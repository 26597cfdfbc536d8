"""Strategies that live outside of this program."""
