"""Requests as they travel."""

from __future__ import annotations

import msgspec

from parallel_infer import protocol


def test_a_plain_job_has_no_field_that_an_older_server_refuses() -> None:
    """Servers refuse unknown fields, so one that came later is sent only where it says something."""
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(protocol.Infer(id=1, model="m")))
    first = {"type", "v", "id", "model", "kind", "tensors", "slot", "timeout", "priority", "options", "format"}
    assert set(sent) == first | {"source", "drop", "client"}
