"""The supervisor: starts, watches, restarts and stops every process of a server; touches no job."""

from parallel_infer.supervisor.serve import Announce, serve

__all__ = ["Announce", "serve"]
