"""What the workers did and when, noted for as long as somebody wants to know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parallel_infer.ipc.messages import Turn, WorkSpan

if TYPE_CHECKING:
    from parallel_infer.dispatcher.workers import Lease

MOST = 50_000  # leases, and turns of the loop, that are kept


class Recording:
    """One trace under way: asked for by `peer` under the number `query`, until a time."""

    def __init__(self, peer: bytes, query: int, until: float) -> None:
        self.peer = peer
        self.query = query
        self.until = until
        self.work: list[WorkSpan] = []
        self.turns: list[Turn] = []
        self.complete = True

    def returned(self, lease: Lease, started: float, seconds: float) -> None:
        """A worker returned a lease; what it had begun at `started` took it `seconds`."""
        if len(self.work) >= MOST:
            self.complete = False
            return
        worker = lease.worker
        self.work.append(
            WorkSpan(
                worker.name.decode().rpartition(".")[0],
                worker.stage,
                lease.served.key,
                started,
                seconds,
                tuple(job.admit.job for job in lease.jobs),
                tuple(job.admit.received for job in lease.jobs),
            )
        )

    def turned(self, started: float, ended: float) -> None:
        """The dispatcher took in what had come and handed out what there was."""
        if len(self.turns) >= MOST:
            self.complete = False
        elif started:
            self.turns.append(Turn(started, ended - started))
