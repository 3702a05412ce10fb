"""The supervisor: starts, watches, restarts and stops every process of a server; touches no job."""
