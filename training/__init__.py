"""Training: data, recipes, the fit loop, evaluators, cost and export."""
