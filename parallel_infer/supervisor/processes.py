"""Everything of one run on this machine, from its first segment to its last process; `supervisor.core` decides."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from parallel_infer.config.schema import ServerConfig
from parallel_infer.ipc.channel import AnswerLink, Link, Watch, new_context
from parallel_infer.ipc.messages import ToSupervisor
from parallel_infer.shm.ring import Ring
from parallel_infer.supervisor.child_processes import ChildProcesses
from parallel_infer.supervisor.child_specs import ChildSpecs
from parallel_infer.supervisor.core import Core, State
from parallel_infer.supervisor.model_resources import ModelResources
from parallel_infer.supervisor.outside import Outside
from parallel_infer.supervisor.plan import Plan
from parallel_infer.supervisor.run import Run
from parallel_infer.supervisor.service_manager import ServiceManager


class ProcessSupervisor:
    """Brings the core what happens, and does what it tells; `wake` is a descriptor that ends a sleep."""

    def __init__(self, config: ServerConfig, plan: Plan, run: Run, manager: ServiceManager, wake: int) -> None:
        self._plan = plan
        self._manager = manager
        self._ingress: list[Ring] = []
        self._context = new_context()
        lent = run.mark.segment_name("lent")
        specs = ChildSpecs(config, run.folder, lent)
        self._link: Link[ToSupervisor] = Link(self._context, specs.dispatcher, "supervisor", ToSupervisor)
        self._gateway = AnswerLink(self._context, specs.answers)
        self._watch = Watch()
        self._watch.add(self._link.socket)
        self._watch.add(wake)
        self._processes = ChildProcesses(self._watch)
        self._resources = ModelResources(config, run.store, self._watch, lent)
        outside = Outside(self._link, self._gateway, self._processes, self._resources)
        self.core = Core(config, plan, specs, outside)

    def start(self) -> None:
        """Create every segment, then start every process. Raises ConfigError when memory is short."""
        for spec in self._plan.ingress:
            self._ingress.append(Ring.create(spec))
        self.core.start()

    def run_until(self, done: Callable[[], bool]) -> None:
        """Take in what happens until `done`."""
        while not done():
            self._flush()
            timer = self._next_timer()
            self._take_in(self._watch.wait(None if timer is None else timer - time.monotonic()))
            now = time.monotonic()
            if timer is not None:  # what has come by now counts before what is late by now
                self._take_in(self._watch.wait(0))
            self.core.on_timer(now)
            self._manager.beat(now, self.core.is_fine)
        self._flush()

    def stop(self) -> None:
        """End every process and remove every segment; whatever happened before."""
        until = self.core.stop()
        self._flush()
        self._resources.end_probes()
        self._processes.end(until)
        self._link.close()
        self._gateway.close()
        self._context.destroy(linger=0)
        for ring in self._ingress:
            ring.close()
            ring.unlink()
        self._resources.remove_all()

    def _next_timer(self) -> float | None:
        times = [self.core.next_timer(), None if self.core.state == State.STARTING else self._manager.due]
        return min((time for time in times if time is not None), default=None)

    def _take_in(self, there: set[Any]) -> None:
        core = self.core
        if self._link.socket in there:
            for message in self._link.drain():
                core.take(message)
        for descriptor in there:
            self._processes.deliver(descriptor, core)
        for request, found in self._resources.found(there):
            core.probed(request, found)

    def _flush(self) -> None:
        self._link.flush()
        self._gateway.flush()
