"""Reading what clients send. Every byte of it is untrusted; what is wrong becomes a BadInput that says what."""

from __future__ import annotations

from typing import Any

import msgspec

from parallel_infer import protocol
from parallel_infer.errors import BadInput
from parallel_infer.gateway.pending import Caller
from parallel_infer.messages import ModelOpened, PayloadKind

MAX_HEADER = 65536  # bytes
MAX_OPTIONS = 4096  # bytes
_KINDS = {"picture": PayloadKind.PICTURE, "frame": PayloadKind.FRAME, "tensors": PayloadKind.TENSORS}
_decode = msgspec.msgpack.Decoder(protocol.Request).decode
_decode_id = msgspec.msgpack.Decoder(protocol.RequestIdOnly).decode


def read_request(frames: list[Any], enveloped: int, caller: Caller) -> protocol.Request:
    """The request in a client's frames `[client, (empty), header, payload?]`; fills in `caller.request`."""
    if not 2 <= len(frames) - enveloped <= 3:
        raise BadInput(f"a message has a header and at most one payload; {len(frames) - 1 - enveloped} frames came")
    header = frames[1 + enveloped].buffer
    if len(header) > MAX_HEADER:
        raise BadInput(f"the header has {len(header)} bytes; at most {MAX_HEADER} are read")
    try:
        request: protocol.Request = _decode(header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        caller.request = _id_of(header)
        raise BadInput(f"malformed header: {error}") from None
    caller.request = request.id
    return request


def _id_of(header: Any) -> int:
    try:
        return _decode_id(header).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0


def admitted_kind(request: protocol.Infer) -> PayloadKind:
    """What the payload is. Raises BadInput where the header contradicts itself."""
    if len(request.options) > MAX_OPTIONS:
        raise BadInput(f"the options have {len(request.options)} bytes; at most {MAX_OPTIONS} are read")
    kind = _KINDS[request.kind]
    if kind != PayloadKind.PICTURE and not request.tensors:
        raise BadInput(f"a payload of kind {request.kind!r} needs its tensors described: [[name, dtype, shape], ...]")
    return kind


def model_facts(opened: ModelOpened) -> dict[str, Any]:
    """What a client may know of a model."""
    plan, spec = opened.plan, opened.plan.spec
    return {
        "name": plan.name,
        "version": plan.version,
        "task": spec.task,
        "family": spec.family,
        "classes": list(spec.names),
        "inputs": [[tensor.name, tensor.dtype, list(tensor.shape)] for tensor in spec.inputs],
        "outputs": [[tensor.name, tensor.dtype, list(tensor.shape)] for tensor in spec.outputs],
        "max_batch_size": plan.max_batch,
        "instances": plan.instances,
        "provider": opened.provider,
        "queue_size": plan.queue_size,
        "rows": plan.rows.slots,
        "evidence": list(spec.evidence),
        "warnings": list(spec.warnings),
    }
