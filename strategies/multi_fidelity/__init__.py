"""Brackets of budgets around any strategy, and early stopping of single trainings."""
