"""Instances, threads and largest batch of models, chosen by measuring at their first load on a machine."""
