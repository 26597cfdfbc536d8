"""Zero-cost proxies: one file per proxy."""
