"""Reading what clients send. Every byte of it is untrusted; what is wrong becomes a BadInput that says what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import msgspec

from parallel_infer import protocol
from parallel_infer.errors import BadInput
from parallel_infer.gateway.pending import Requester
from parallel_infer.ipc.messages import ModelOpened, PayloadKind
from parallel_infer.limits import MAX_HEADER, MAX_OPTIONS, header_too_large, options_too_large
from parallel_infer.model_spec import ModelSpec
from parallel_infer.wrong_fields import explained

_LONGEST_READ = 16 << 20  # bytes of a header whose id is looked for
_KINDS = {"picture": PayloadKind.PICTURE, "frame": PayloadKind.FRAME, "tensors": PayloadKind.TENSORS}
_decode = msgspec.msgpack.Decoder(protocol.Request).decode
_decode_id = msgspec.msgpack.Decoder(protocol.RequestIdOnly).decode
_REQUESTS: tuple[type[msgspec.Struct], ...] = get_args(protocol.Request)


def read_request(frames: Sequence[Any], requester: Requester) -> protocol.Request:
    """The request in a client's frames `[header, payload?]`; fills in `requester.request`. Raises BadInput."""
    if not frames:
        raise BadInput("a message has a header and at most one payload; none came")
    header = frames[0].buffer
    if len(frames) > 2:
        requester.request = _id_of(header)
        raise BadInput(f"a message has a header and at most one payload; {len(frames)} frames came")
    if len(header) > MAX_HEADER:
        requester.request = _id_of(header)
        raise BadInput(header_too_large(len(header)))
    try:
        request: protocol.Request = _decode(header)
    except msgspec.ValidationError as error:
        requester.request = _id_of(header)
        raise BadInput(f"wrong request: {explained(error, *_REQUESTS)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        requester.request = _id_of(header)
        raise BadInput(f"malformed header: {error}") from None
    requester.request = request.id
    return request


def _id_of(header: Any) -> int:
    """The id in a header that is wrong otherwise; 0 where it cannot be told.

    What is not needed is skipped, so that the size costs no memory, but at worst 4 ms for a megabyte.
    """
    if len(header) > _LONGEST_READ:
        return 0
    try:
        return _decode_id(header).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0


def admitted_kind(request: protocol.Infer) -> PayloadKind:
    """What the payload is. Raises BadInput where the header contradicts itself."""
    if len(request.options) > MAX_OPTIONS:
        raise BadInput(options_too_large(len(request.options)))
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
        "digest": spec.digest,
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
        "thresholds": thresholds(spec),
        "evidence": list(spec.evidence),
        "warnings": list(spec.warnings),
        "chain": "",
    }


def chain_facts(name: str, opened: ModelOpened, steps: str, _: Sequence[str]) -> dict[str, Any]:
    """What a client may know of a chain: that of its first model, and its steps."""
    inside = {"family": "chain", "digest": "", "inputs": [], "outputs": [], "evidence": [], "warnings": []}
    return {**model_facts(opened), **inside, "name": name, "chain": steps}


def chain_detail(name: str, opened: ModelOpened, steps: str, models: Sequence[str]) -> dict[str, Any]:
    """The same for a door: it has no tensors of its own."""
    inside = {
        "family": "chain",
        "digest": "",
        "inputs": [],
        "outputs": [],
        "properties": {},
        "path": "",
        "models": models,
    }
    return {**model_detail(opened), **inside, "name": name, "chain": steps}


def model_detail(opened: ModelOpened) -> dict[str, Any]:
    """What a door needs to know of a model (`parallel_infer.doors.model_view.ModelView`), or a router."""
    plan, spec = opened.plan, opened.plan.spec
    preprocess, keypoints = spec.preprocess, spec.parameters.get("kpt_shape") or (0,)
    return {
        "name": plan.name,
        "version": plan.version,
        "task": spec.task,
        "family": spec.family,
        "classes": spec.names,
        "inputs": msgspec.to_builtins(spec.file.inputs),
        "outputs": msgspec.to_builtins(spec.file.outputs),
        "row": (preprocess["height"], preprocess["width"]) if preprocess else (0, 0),
        "keypoints": keypoints[0],
        "properties": spec.file.properties,
        "max_batch_size": plan.max_batch,
        "instances": plan.instances,
        "thresholds": thresholds(spec),
        "digest": spec.digest,
        "chain": "",
    }


def thresholds(spec: ModelSpec) -> dict[str, float]:
    """What the model reports from, and which boxes it takes for one, where a request says nothing else."""
    return {name: spec.parameters[name] for name in ("confidence", "iou") if name in spec.parameters}
