"""Live streams whose newer frames replace older ones: what a member has to see as one stream of one client. Pure."""

from __future__ import annotations

from collections.abc import Hashable

import msgspec

from parallel_infer.protocol import MAX_SOURCE
from parallel_infer.router.jobs import Job
from parallel_infer.router.members import Member

_MOST = 4096  # names that are remembered


class Streams:
    """A frame goes where the one before it still is, since only there it can take its place.

    To a member all clients of the router are one. A second client's stream of the same name gets another name there.
    """

    def __init__(self) -> None:
        self._owners: dict[str, Hashable] = {}  # by name
        self._newest: dict[str, Job] = {}  # frame under way, by name

    def enter(self, job: Job) -> None:
        """A frame that replaces older ones has come."""
        client, name = job.requester.client, job.request.source
        if self._owners.setdefault(name, client) != client:
            name = f"{name[: MAX_SOURCE - 24]}@{client.hex()[:20]}"
            self._owners[name] = client
            job.request = msgspec.structs.replace(job.request, source=name)
        if len(self._owners) > _MOST:
            self._owners = {name: self._owners[name] for name in self._newest}

    def member_of(self, job: Job) -> Member | None:
        """Who has the frame before this one, and takes more; it becomes the newest."""
        if job.request.drop != "latest":
            return None
        before = self._newest.get(job.request.source)
        self._newest[job.request.source] = job
        if before is None or before is job or before.request.model != job.request.model:
            return None
        for member in before.attempts.values():
            if member.takes_jobs and not member.stuck and member not in job.tried and job.size <= member.max_payload:
                return member
        return None

    def leave(self, job: Job) -> None:
        """A frame has its reply."""
        if self._newest.get(job.request.source) is job:
            del self._newest[job.request.source]
