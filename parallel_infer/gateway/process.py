"""The gateway's process: doors outside, two links inside, and a loop that admits and replies."""

from __future__ import annotations

import os
import time
from typing import Any

import msgspec

from parallel_infer.gateway.core import Core
from parallel_infer.gateway.doors import PublicDoors
from parallel_infer.gateway.ingress import Ingress
from parallel_infer.gateway.lending import Lending
from parallel_infer.ipc.channel import AnswerInlet, Link, Watch, new_context
from parallel_infer.ipc.messages import Drained, Left, ToGateway
from parallel_infer.machine.descriptors import raise_limit
from parallel_infer.process.child import Child
from parallel_infer.process.options import GatewayOptions
from parallel_infer.shm.segment import lent_segments

_LOOKS = 16  # at most so many times everything is taken in before the clock is looked at


class GatewayProcess:
    """Carries messages between clients, the other processes and the core."""

    def __init__(self, child: Child, options: GatewayOptions) -> None:
        self._child = child
        self._context = new_context()
        self._link: Link[ToGateway] = Link(self._context, options.dispatcher, child.name, ToGateway)
        self._inlet: AnswerInlet[ToGateway] = AnswerInlet(self._context, options.answers, ToGateway)
        self._watch = Watch()
        self._watch.add(self._link.socket)
        self._watch.add(self._inlet.socket)
        self._doors = PublicDoors(self._context, options, self._watch)
        self._lending = Lending(
            lambda name: f"{lent_segments(options.segments, options.epoch)}{name}", options.lent_memory
        )
        self._core = Core(self._link, child, self._doors, Ingress(options.ingress), self._lending, options)

    def run_forever(self) -> None:
        """Sleep until something is there; take answers first, since they free what requests need."""
        core = self._core
        while not core.has_left():
            timer = core.next_timer()
            self._take_in(self._watch.wait(None if timer is None else timer - time.monotonic()))
            now = time.monotonic()
            if timer is not None and timer <= now:  # what has come by now counts before what is late by now
                for _ in range(_LOOKS):
                    if not (there := self._watch.wait(0)):
                        break
                    self._take_in(there)
                core.on_timer(now)
            core.send_synthetic()
            self._link.flush()

    def _take_in(self, there: set[Any]) -> None:
        core = self._core
        if self._inlet.socket in there:
            for message, payloads in self._inlet.drain():
                core.take(message, payloads)
        if self._link.socket in there:
            for message in self._link.drain():
                core.take(message)
        core.send_synthetic()  # before clients take the slots that just got free
        self._doors.take_in(there, core)

    def close(self) -> Left:
        """Give up what has no reply yet, close the doors, and wait until each client has taken its replies."""
        for _ in range(_LOOKS):
            self._doors.take_rest(self._core)
        self._doors.settle()
        left = self._core.give_up()
        self._child.tell(Drained())
        until = self._core.until
        handover = self._doors.close(until)
        self._lending.close()
        self._link.close()
        self._inlet.close()
        handover.outlast(self._context.term, until)
        unread = handover.wait(until)
        self._doors.release()
        return msgspec.structs.replace(left, unread=unread)


def main(child: Child, encoded: bytes) -> None:
    """Entry point of the process."""
    os.umask(0o077)  # a socket's file is there from the moment it is bound
    raise_limit()  # every client takes a descriptor
    gateway = GatewayProcess(child, msgspec.msgpack.decode(encoded, type=GatewayOptions))
    gateway.run_forever()
    child.tell(gateway.close())
