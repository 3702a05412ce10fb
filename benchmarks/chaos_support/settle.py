"""When the storm is over: is everything free again?"""

from __future__ import annotations

import time

from benchmarks.chaos_support.restarts import SuccessiveServers
from benchmarks.chaos_support.tally import taken_slots
from parallel_infer import Client
from parallel_infer.errors import InferError
from parallel_infer.tools.local_server import LocalServer


def drain(server: LocalServer | SuccessiveServers) -> dict[str, int]:
    """Slots that are still taken when all jobs have their reply; {} as soon as there are none."""
    deadline = time.monotonic() + 15.0
    taken = {"no status": 1}
    with Client(server.address, timeout=5.0) as client:
        while taken and time.monotonic() < deadline:
            time.sleep(0.05)
            try:
                taken = taken_slots(client.status())
            except InferError as error:
                taken = {error.code: 1}
    return taken
