"""Studies: the store, the search loop, resume and verification."""
