"""Metrics, rates, histograms and traces: what is seen of a server from outside."""
