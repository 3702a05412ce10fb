"""Shared memory: segments and the rings in them."""
