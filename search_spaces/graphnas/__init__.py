"""The spaces of GraphNAS: whole networks layer by layer in `macro`, and cells in `micro`."""
