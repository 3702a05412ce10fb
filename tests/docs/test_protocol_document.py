"""docs/protocol.md against the code: every field, range, default, code, key and limit, and one real exchange."""

from __future__ import annotations

import json
import re
import typing
from typing import Any

import msgpack  # type: ignore[import-untyped]
import msgspec
import numpy as np
import pytest
import zmq
from msgspec import Struct, inspect

from parallel_infer import protocol
from parallel_infer.config.schema import ServerConfig
from parallel_infer.errors import InferError, error_for
from parallel_infer.ipc.messages import TIMES
from parallel_infer.limits import MAX_HEADER, MAX_OPTIONS
from parallel_infer.tools.local_server import LocalServer
from stages.pipeline import TASKS
from stages.tasks.options import (
    ClassifyOptions,
    DetectOptions,
    MapOptions,
    PictureOptions,
    SegmentOptions,
    SemanticOptions,
    TextOptions,
)
from tests.docs.conftest import MODELS
from tests.docs.hexdump import dump, undump
from tests.docs.pages import Page

PAGE = Page.read("docs/protocol.md")
REQUESTS: tuple[type[Struct], ...] = typing.get_args(protocol.Request)
REPLIES: tuple[type[Struct], ...] = typing.get_args(protocol.Reply)
COMMON = ["v", "type", "id"]
HEAD = ("Field", "Type", "Range", "Default", "Meaning")
EXCHANGE = PAGE.section("One exchange, byte by byte")


def tag(kind: type[Struct]) -> str:
    return str(kind.__struct_config__.tag)


def own_fields(kind: type[Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    return {field.name: field for field in msgspec.structs.fields(kind) if field.name not in COMMON}


def bounds(kind: Any) -> set[str]:
    """Every limit in a type, and every choice, as the document writes them."""
    found: set[str] = set()
    match kind:
        case inspect.IntType() | inspect.FloatType():
            found = {f"{limit:.15g}" for limit in (kind.gt, kind.ge, kind.le) if limit is not None}
            if isinstance(kind, inspect.IntType):
                found = {str(limit) for limit in (kind.gt, kind.ge, kind.le) if limit is not None}
        case inspect.StrType() | inspect.DictType():
            found = {str(limit) for limit in (kind.min_length, kind.max_length) if limit is not None}
        case inspect.LiteralType():
            found = {f"`{value}`" for value in kind.values}
        case inspect.VarTupleType():
            found = {str(limit) for limit in (kind.min_length, kind.max_length) if limit is not None}
        case inspect.UnionType():
            found = set().union(*(bounds(one) for one in kind.types if not isinstance(one, inspect.StructType)))
    return found


def numbers(text: str) -> set[str]:
    return set(re.findall(r"-?\d+(?:\.\d+)?|`\w+`", text))


def written(default: Any) -> str:
    """A default as the document writes it."""
    if default is None:
        return "`nil`"
    if default is msgspec.UNSET:  # of a switch that is sent only where it is on
        return "`false`"
    if isinstance(default, msgspec.Raw):
        default = msgspec.msgpack.decode(default)
    return f"`{json.dumps(default)}`"


def default_of(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return ""
    return written(field.default_factory() if field.default is msgspec.NODEFAULT else field.default)


def test_every_request_and_every_reply_has_its_section() -> None:
    requests_, replies = PAGE.section("Requests"), PAGE.section("Replies")

    assert re.findall(r"^### (\w+)$", requests_.text, re.MULTILINE) == [tag(kind) for kind in REQUESTS]
    assert re.findall(r"^### (\w+)$", replies.text, re.MULTILINE) == [tag(kind) for kind in REPLIES]


def test_fields_of_all_requests() -> None:
    text = PAGE.section("Requests").text.partition("\n### ")[0]
    rows = {row[0].strip("`"): row for row in Page(PAGE.path, text).rows(*HEAD)}
    numbers_ = next(field for field in msgspec.structs.fields(protocol.Models) if field.name == "id")

    assert list(rows) == COMMON
    assert bounds(inspect.type_info(numbers_.type)) <= numbers(rows["id"][2])
    assert rows["v"][2] == str(protocol.VERSION)


@pytest.mark.parametrize("kind", REQUESTS, ids=tag)
def test_fields_of_a_request(kind: type[Struct]) -> None:
    section, fields = PAGE.section("Requests").section(tag(kind)), own_fields(kind)
    if not fields:
        assert "No further fields" in section.text
        return
    rows = {row[0].strip("`"): row for row in section.rows(*HEAD)}
    types = typing.get_type_hints(kind, include_extras=True)

    assert list(rows) == list(fields)
    for name, (_, _, limits, default, meaning) in rows.items():
        assert default == default_of(fields[name]), name
        assert bounds(inspect.type_info(types[name])) <= numbers(limits), name
        assert meaning


@pytest.mark.parametrize("kind", [protocol.Tensor, protocol.LentSlot])
def test_fields_of_what_travels_as_a_list(kind: type[Struct]) -> None:
    section = PAGE.section("Requests").section("infer").text
    types = typing.get_type_hints(kind, include_extras=True)

    for field in msgspec.structs.fields(kind):
        assert f"`{field.name}`" in section
        assert bounds(inspect.type_info(types[field.name])) <= numbers(section), field.name
    assert bounds(inspect.type_info(protocol.Dimension)) <= numbers(section)


@pytest.mark.parametrize("kind", REPLIES, ids=tag)
def test_fields_of_a_reply(kind: type[Struct]) -> None:
    documented = PAGE.section("Replies").section(tag(kind)).column("Field", "Type", "Meaning")

    assert sorted(documented) == sorted(own_fields(kind))


def test_keys_of_an_answer_as_arrays() -> None:
    rows = {
        row[0].strip("`"): row for row in PAGE.section("Answers as arrays").rows("Key", "Type", "Default", "Meaning")
    }
    fields = {field.name: field for field in msgspec.structs.fields(protocol.AnswerBody)}

    assert list(rows) == list(fields)
    assert {name: row[2] for name, row in rows.items()} == {name: default_of(field) for name, field in fields.items()}


def test_arrays_of_every_task() -> None:
    rows = PAGE.section("Answers as arrays").rows("Task", "Array", "dtype", "Shape", "Meaning")

    assert {row[0] for row in rows} == set(TASKS)


def test_error_codes() -> None:
    documented = PAGE.section("Errors").column("Code", "When", "Send again?")
    of_the_wire = [kind for kind in InferError.__subclasses__() if kind.__module__ == InferError.__module__]
    known = {kind.code for kind in of_the_wire} | {InferError.code}

    assert len(documented) == len(set(documented))
    assert set(documented) == known
    assert all(error_for(code, "").code == code for code in documented)


def test_timing_keys() -> None:
    assert PAGE.section("Timing").column("Key", "From, to") == [*TIMES, "total"]


def test_options_of_the_tasks() -> None:
    rows = PAGE.section("Options").rows("Option", "Tasks", "Range", "Default", "Meaning")
    kinds: dict[str, type[Struct]] = {"detect": DetectOptions, "keypoints": DetectOptions, "obb": DetectOptions}
    kinds |= {"segment": SegmentOptions, "classify": ClassifyOptions}
    kinds |= {"semantic": SemanticOptions, "map": MapOptions, "embedding": PictureOptions}
    kinds |= {"text": TextOptions, "tensor": PictureOptions}
    for task, kind in kinds.items():
        own = {row[0].strip("`"): row for row in rows if task in row[1].split(", ")}
        types = typing.get_type_hints(kind, include_extras=True)
        assert sorted(own) == sorted(kind.__struct_fields__)
        for field in msgspec.structs.fields(kind):
            assert own[field.name][3] == default_of(field), field.name
            assert bounds(inspect.type_info(types[field.name])) <= numbers(own[field.name][2]), field.name


def test_limits() -> None:
    rows = {row[0]: row for row in PAGE.section("Limits").rows("What", "Limit", "Option")}
    defaults = ServerConfig()

    assert rows["header"][1].startswith(f"{MAX_HEADER} ")
    assert rows["`options`"][1].startswith(f"{MAX_OPTIONS} ")
    for what, limit, option in rows.values():
        if option and what != "one frame of a message":
            assert re.match(
                rf"{getattr(defaults, option.strip('`')):g}\b|{getattr(defaults, option.strip('`'))}\b", limit
            )


def test_exchange_reads_as_the_document_says() -> None:
    header, reply = undump(EXCHANGE.marked("request header bytes")), undump(EXCHANGE.marked("reply header bytes"))
    payload = undump(EXCHANGE.marked("reply payload bytes"))
    request = msgspec.msgpack.decode(header, type=protocol.Request)
    answer = msgspec.msgpack.decode(reply, type=protocol.Reply)
    body = msgspec.msgpack.decode(answer.answer, type=protocol.AnswerBody)

    assert msgpack.unpackb(header) == json.loads(EXCHANGE.marked("request header"))
    assert isinstance(request, protocol.Infer)
    assert answer.id == request.id
    assert isinstance(answer, protocol.Answer)
    assert list(answer.timing) == [*TIMES, "total"]
    assert msgspec.json.decode(EXCHANGE.marked("reply answer"), type=protocol.AnswerBody) == body
    said = json.loads(EXCHANGE.marked("reply arrays"))
    scores, classes = np.frombuffer(payload, "<f4", 2), np.frombuffer(payload, "<i8", 2, 8)
    assert [tensor.name for tensor in body.arrays] == ["scores", "classes"]
    np.testing.assert_allclose(scores, said["scores"], atol=1e-6)
    assert classes.tolist() == said["classes"]


def test_dump_of_other_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        undump(dump(b"some bytes").replace("73", "74", 1))


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.REQ])
def test_exchange_can_be_had_again(server: LocalServer, kind: int) -> None:
    """The printed request, sent by plain sockets, gets the printed answer."""
    request = [undump(EXCHANGE.marked(f"request {part} bytes")) for part in ("header", "payload")]
    with zmq.Context() as context, context.socket(kind) as socket:
        socket.linger = 0
        socket.rcvtimeo = 10_000
        socket.connect(server.address)
        socket.send_multipart(request)
        reply, payload = socket.recv_multipart()

    answer = msgpack.unpackb(reply, strict_map_key=False)
    printed = msgpack.unpackb(undump(EXCHANGE.marked("reply header bytes")), strict_map_key=False)
    assert answer.keys() == printed.keys()
    assert answer["timing"].keys() == printed["timing"].keys()
    assert answer["answer"]["arrays"] == printed["answer"]["arrays"]
    # The two best of a gray square are as good as equal: another processor may swap them, but not change them much.
    scores = np.frombuffer(undump(EXCHANGE.marked("reply payload bytes")), "<f4", 2)
    np.testing.assert_allclose(np.frombuffer(payload, "<f4", 2), scores, rtol=0.2)


def test_client_in_one_look(server: LocalServer, pictures: Any) -> None:
    (code,) = PAGE.section("At a glance").blocks("python")
    code = code.replace("tcp://127.0.0.1:5555", server.address).replace("picture.jpg", str(pictures / "astronaut.png"))
    names: dict[str, Any] = {}
    try:
        exec(code, names)
    finally:
        names["context"].destroy(linger=0)

    assert names["arrays"]["boxes"].shape[1:] == (4,)
    assert len(names["arrays"]["scores"]) == len(names["arrays"]["classes"]) > 0


def test_results_have_the_documented_keys(server: LocalServer) -> None:
    documented = PAGE.section("models").column("Key", "Meaning")
    results = {}
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.rcvtimeo = 10_000
        socket.connect(server.address)
        for kind in ("models", "status", "ready"):
            socket.send(msgpack.packb({"v": 1, "type": kind, "id": 1}))
            results[kind] = msgpack.unpackb(socket.recv())["result"]

    assert all(list(model) == documented for model in results["models"])
    ready = dict.fromkeys(MODELS, "ready")
    assert results["ready"] == {"ready": True, "models": ready, "states": ready}
    status = PAGE.section("status")
    assert sorted(results["status"]) == sorted(status.column("Key", "What it holds"))
    assert results["status"]["gateway"].keys() <= set(re.findall(r"`(\w+)`", status.text))
    for worker in results["status"]["workers"].values():
        assert worker.keys() <= set(re.findall(r"`(\w+)`", status.text))
