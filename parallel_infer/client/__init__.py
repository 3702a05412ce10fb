"""The client: what a program uses to talk to a server. The only package besides the server's that imports zmq."""

from __future__ import annotations

from parallel_infer.client.asynchronous import AsyncClient
from parallel_infer.client.blocking import Client
from parallel_infer.client.futures import InferFuture
from parallel_infer.keys.client import Key

__all__ = ["AsyncClient", "Client", "InferFuture", "Key"]
