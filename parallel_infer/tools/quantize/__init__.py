"""Copies of models in 8-bit integers."""
