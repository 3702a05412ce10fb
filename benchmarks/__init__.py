"""Benchmarks: scripts that print the machine, the command and the figures."""
