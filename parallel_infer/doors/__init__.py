"""Doors: other protocols that lead to the gateway, each a process of its own and a client of the gateway.

`tensors`, `model_view`, `answers` and `access` are pure; `service` turns requests of the Open Inference Protocol into
jobs over a `GatewayLink`. A folder or file below speaks one protocol.
"""
