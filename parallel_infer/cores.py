"""For programs that divide a machine with a server: how many cores it would count here."""

from parallel_infer.machine.cores import usable_cores

__all__ = ["usable_cores"]
