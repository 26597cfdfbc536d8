"""Diffusion: masked any-order diffusion over a space's tokens, and continuous diffusion on operation matrices."""
