"""Measuring a server under load, and what a synchronous loop would do on the same machine with the same model."""
