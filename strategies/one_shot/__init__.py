"""One-shot strategies: one file per strategy, listed in `strategies`. What they share: `weights`, `alphas`."""
