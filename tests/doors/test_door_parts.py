"""The pure parts of doors: web pages, aliases, answers as tensors, Frigate's and imagezmq's frames, forms, options."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any, ClassVar, NamedTuple

import msgspec
import numpy as np
import pytest
import zmq

from parallel_infer.answers.answer import Answer
from parallel_infer.config.addresses import check_addresses
from parallel_infer.config.schema import ServerConfig
from parallel_infer.doors.access import WebPages, is_of_this_machine
from parallel_infer.doors.answers import picture_outputs
from parallel_infer.doors.frigate import Frigate, frame_of, rows_of
from parallel_infer.doors.gateway_link import option_of
from parallel_infer.doors.grpc.servicer import Call
from parallel_infer.doors.http.pictures import form_parts
from parallel_infer.doors.http.roboflow import Aliases
from parallel_infer.doors.imagezmq import ImageZmq
from parallel_infer.doors.model_view import ModelView, Port, configuration, metadata, repository_index
from parallel_infer.doors.tokens import Tokens
from parallel_infer.errors import BadInput, ConfigError, Unauthorized

DETECTOR = ModelView(
    name="d",
    version=2,
    task="detect",
    family="yolov8",
    classes=("cat", "dog"),
    inputs=(Port("images", "float32", (-1, 3, 32, 64)),),
    outputs=(Port("output0", "float32", (-1, 6, 42)),),
    row=(32, 64),
    max_batch_size=8,
)


def answer(count: int) -> Answer:
    boxes = np.arange(4 * count, dtype=np.float32).reshape(count, 4)
    scores = np.linspace(0.3, 0.9, count, dtype=np.float32)
    arrays = {"boxes": boxes, "scores": scores, "classes": np.arange(count, dtype=np.int64) % 2}
    return Answer("detect", "d", arrays, {0: "cat", 1: "dog"}, width=64, height=32)


@pytest.mark.parametrize(
    ("method", "headers", "allowed"),
    [
        ("GET", {"Host": "localhost:8000"}, True),
        ("POST", {"Host": "127.0.0.1:8000"}, True),
        ("POST", {"Host": "[::1]:8000", "Origin": "http://[::1]:8000", "Sec-Fetch-Site": "same-origin"}, True),
        ("GET", {"Host": "localhost.:8000"}, True),
        ("POST", {"Host": "LOCALHOST.", "Origin": "http://localhost."}, True),
        ("GET", {"Host": "evil.example."}, False),
        ("GET", {"Host": "evil.example"}, False),
        ("POST", {"Host": "127.0.0.1:8000", "Origin": "http://evil.example"}, False),
        ("POST", {"Host": "127.0.0.1:8000", "Origin": "null"}, False),
        ("POST", {"Host": "127.0.0.1:8000", "Sec-Fetch-Site": "cross-site"}, False),
        ("POST", {"Host": "127.0.0.1:8000", "Origin": "http://127.0.0.1:9000"}, False),
    ],
)
def test_pages_of_other_sites_stay_outside(method: str, headers: dict[str, str], allowed: bool) -> None:
    pages = WebPages(["127.0.0.1"])
    if allowed:
        pages.check(method, headers)
    else:
        with pytest.raises(Unauthorized):
            pages.check(method, headers)


@pytest.mark.parametrize("bound", ["0.0.0.0", "[::]"])
@pytest.mark.parametrize(
    ("host", "ours"),
    [
        *((host, True) for host in ("box.lan:8000", "192.168.1.7:8000", "[fe80::1]:8000", "camera", "Box.Local.", "")),
        *((host, True) for host in ("localhost:8000", "proxy.example:443", "server.default.svc")),
        *((host, False) for host in ("evil.example", "127.0.0.1.evil.example:8000", "192.168.1.7.nip.example", "a.b")),
    ],
)
def test_a_door_at_every_address_takes_names_that_no_stranger_owns(bound: str, host: str, ours: bool) -> None:
    pages = WebPages([bound], ["proxy.example"])
    for method in ("GET", "POST"):
        if ours:
            pages.check(method, {"Host": host})
        else:
            with pytest.raises(Unauthorized, match="http_hosts"):
                pages.check(method, {"Host": host})
    with pytest.raises(Unauthorized):
        pages.check("POST", {"Host": host, "Origin": "http://evil.example"})


def test_aliases_and_versions_lead_to_models() -> None:
    aliases = Aliases({"coco/3": "d", "gone/1": "nothing"})
    assert [aliases.model_of(name, ["d"]) for name in ("coco/3", "d/1", "d")] == ["d", "d", "d"]
    assert [aliases.model_of(name, ["d"]) for name in ("d/2", "d/01")] == ["d/2", "d/01"]  # there is no such version
    assert aliases.model_of("d/1", ["d", "d/1"]) == "d/1"  # a model that is called so
    assert aliases.identifiers(["d"]) == {"d/1": "d", "d": "d", "coco/3": "d"}


def test_a_model_is_described_under_both_names() -> None:
    file, picture = metadata(DETECTOR, picture=False), metadata(DETECTOR, picture=True)
    assert file["inputs"] == [{"name": "images", "datatype": "FP32", "shape": [-1, 3, 32, 64]}]
    assert picture["name"] == "d.picture"
    assert picture["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1, 1]}]
    assert [output["name"] for output in picture["outputs"]] == [
        "num_detections",
        "boxes",
        "scores",
        "classes",
        "answer",
    ]
    config = configuration(DETECTOR, picture=False)
    assert (config["max_batch_size"], config["input"][0]["dims"]) == (8, [3, 32, 64])
    assert config["input"][0]["format"] == "FORMAT_NCHW"
    told = eval(config["parameters"]["metadata"]["string_value"], {})
    assert told["imgsz"] == "[32, 64]"
    assert told["names"] == "{0: 'cat', 1: 'dog'}"


def test_the_index_tells_every_models_state() -> None:
    models, states = {"d": DETECTOR, "n": msgspec.structs.replace(DETECTOR, name="n", row=(0, 0))}, {"n": "dead"}
    states |= {"later": "loading", "d": "degraded"}
    found = [(row["name"], row["version"], row["state"]) for row in repository_index(models, states, False)]
    ready = [("d", "2", "READY"), ("d.picture", "2", "READY")]
    assert found == [*ready, ("later", "", "LOADING"), ("n", "2", "UNAVAILABLE")]
    assert [row["name"] for row in repository_index(models, states, True)] == ["d", "d.picture"]


def test_a_file_with_a_fixed_batch_shows_it_among_its_dimensions() -> None:
    fixed = ModelView(
        name="p",
        version=1,
        task="tensor",
        family="tensor",
        inputs=(Port("x", "float32", (1, 4)),),
        outputs=(Port("y", "float32", (1, 2)),),
    )
    config = configuration(fixed, picture=False)
    assert (config["max_batch_size"], config["input"][0]["dims"]) == (0, [1, 4])
    assert fixed.file_model == "p"
    assert not fixed.takes_pictures


def test_answers_are_padded_to_the_longest() -> None:
    ports = DETECTOR.served(picture=True)[1]
    outputs = picture_outputs(ports, [answer(3), answer(0)])
    assert outputs["num_detections"].tolist() == [[3], [0]]
    assert outputs["boxes"].shape == (2, 3, 4)
    assert outputs["classes"].tolist() == [[0, 1, 0], [-1, -1, -1]]
    assert outputs["scores"][1].tolist() == [0, 0, 0]
    assert len(outputs["answer"]) == 2
    assert picture_outputs(ports, [answer(0)])["boxes"].shape == (1, 1, 4)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_frigates_pixels_become_a_frame(dtype: str) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    sent = rgb[None] if dtype == "uint8" else (rgb.transpose(2, 0, 1)[None] / np.float32(255)).astype(np.float32)
    frame = frame_of({"shape": list(sent.shape), "dtype": dtype}, memoryview(sent.tobytes()))
    np.testing.assert_array_equal(frame, rgb[:, :, ::-1])


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({}, b""),
        ({"shape": [1, 3, 2, 2], "dtype": "float64"}, bytes(96)),
        ({"shape": [1, 3, 2, 2], "dtype": "float32"}, bytes(47)),
        ({"shape": [1, 4, 2, 2], "dtype": "uint8"}, bytes(16)),
        ({"shape": [2, 3, 2, 2], "dtype": "uint8"}, bytes(24)),
        ({"shape": [1, 3, 2, True], "dtype": "uint8"}, bytes(6)),
        ({"shape": [1, 3, 2, 2], "dtype": "float32"}, np.full(12, np.nan, np.float32).tobytes()),
    ],
)
def test_what_frigate_does_not_send_is_refused(header: dict[str, Any], data: bytes) -> None:
    with pytest.raises(BadInput):
        frame_of(header, memoryview(data))


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ({"model_request": "false", "model_name": "d.onnx"}, "model_request is 'false'; true or false is needed"),
        ({"model_data": 1, "model_name": "d.onnx"}, "model_data is '1'"),
        ({"model_request": True, "model_name": ["d.onnx"]}, "model_name is"),
    ],
)
def test_frigates_questions_are_true_or_false(header: dict[str, Any], told: str) -> None:
    reply = asyncio.run(Frigate(None, None).respond(b"c", [zmq.Frame(json.dumps(header).encode())]))  # type: ignore[arg-type]
    assert told in json.loads(reply.frames[0])["error"]


def test_frigates_rows_are_twenty_best_first_as_fractions_y_first() -> None:
    rows = rows_of(answer(3), 64, 32)
    assert rows.shape == (20, 6)
    assert rows.dtype == np.float32
    assert rows[:3, 0].tolist() == [0, 1, 0]
    assert (np.diff(rows[:3, 1]) < 0).all()
    np.testing.assert_allclose(rows[0, 2:], [9 / 32, 8 / 64, 11 / 32, 10 / 64])
    assert not rows[3:].any()


def test_forms_are_read_by_their_parts() -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n\x00\r\n\xff\r\n--b--\r\n'
    assert form_parts("multipart/form-data; boundary=b", memoryview(body)) == {"file": b"\x00\r\n\xff"}
    for broken in (body[:-9], b"", body.replace(b'name="file"', b"")):
        with pytest.raises(BadInput):
            form_parts("multipart/form-data; boundary=b", memoryview(broken))
    with pytest.raises(BadInput, match="boundary"):
        form_parts("multipart/form-data", memoryview(body))
    with pytest.raises(BadInput, match="boundary"):
        form_parts(
            "multipart/form-data; boundary=\udcff\udcfe", memoryview(body)
        )  # bytes of a header that are no UTF-8


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Disposition: form-data; name=file; filename=a.jpg",  # as .NET's HttpClient writes it
        b'content-disposition:form-data;name="file"',
        b'Content-Type: image/png; name="photo.png"\r\nContent-Disposition: form-data; name="file"',
        b'Content-Disposition: form-data; filename="a; name=\\"b\\".png"; name="file"',
        b'Content-Disposition: form-data; filename="; name="; name="file"',
        'Content-Disposition: form-data; name="file"; filename="stra\u00dfe.jpg"'.encode(),
    ],
)
def test_the_name_of_a_part_is_that_of_its_disposition(head: bytes) -> None:
    body = b"--b\r\n" + head + b"\r\n\r\nabc\r\n--b--\r\n"
    assert form_parts("multipart/form-data; boundary=b", memoryview(body)) == {"file": b"abc"}


def test_a_token_that_is_no_text_is_a_strangers() -> None:
    class Book:
        def by_token(self, digest: str) -> None:
            return None

    assert asyncio.run(Tokens(Book()).holder("\udcff\udcfe")) is None  # as headers that are no UTF-8 come


def test_a_token_is_looked_up_once_a_second_and_beside_the_event_loop() -> None:
    class Holder(NamedTuple):
        name: str
        manages: bool

    class Book:
        client: Holder | None = Holder("camera", False)
        looks: ClassVar[list[threading.Thread]] = []

        def by_token(self, digest: str) -> Holder | None:
            self.looks.append(threading.current_thread())
            return self.client

    now = [100.0]
    book = Book()
    tokens = Tokens(book, lambda: now[0])

    async def names(count: int) -> list[str | None]:
        holders = [await tokens.holder("token") for _ in range(count)]
        return [holder and holder.name for holder in holders]

    assert asyncio.run(names(100)) == ["camera"] * 100
    assert len(book.looks) == 1
    assert book.looks[0] is not threading.main_thread()
    book.client = None
    now[0] += 1.0
    assert asyncio.run(names(2)) == [None, None]  # a stranger, who may have a key by now, is always looked up
    assert len(book.looks) == 3


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("confidence", "0.5", 0.5),
        ("max_detections", "7", 7),
        ("class_agnostic", "true", True),
        ("class_filter", "cat, 3", ["cat", 3]),
        ("class_filter", "\u00b2,7", ["\u00b2", 7]),
        ("class_filter", ["9" * 5000], ["9" * 5000]),
        ("mask_decode_mode", "fast", "fast"),
        ("confidence", 0.25, 0.25),
    ],
)
def test_options_may_come_as_texts(name: str, text: Any, value: Any) -> None:
    assert option_of(name, text) == value


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "::ffff:127.0.0.1", ""])
def test_without_keys_this_machine_manages(peer: str) -> None:
    assert is_of_this_machine(peer)


@pytest.mark.parametrize("peer", ["192.168.1.7", "fe80::1%eth0", "::ffff:10.0.0.1", "unix", "evil", "0.0.0.0", "::"])
def test_without_keys_no_other_machine_manages(peer: str) -> None:
    assert not is_of_this_machine(peer)


def test_somebody_elsewhere_may_not_manage_an_insecure_server() -> None:
    """Documented of our own wire; a door must be no way around it."""

    class Context:
        def __init__(self, peer: str) -> None:
            self._peer = peer

        def peer(self) -> str:
            return self._peer

    assert Call(Context("ipv4:127.0.0.1:40000"), None).manages
    assert Call(Context("ipv6:%5B::1%5D:40000"), None).manages
    assert not Call(Context("ipv4:192.168.1.7:40000"), None).manages


@pytest.mark.parametrize("network", ["camera", "10.0.0.300", "10.0.0.1/8", ""])
def test_what_is_no_network_is_refused_by_name(network: str) -> None:
    with pytest.raises(ConfigError, match=r"keyless_from is .*expected 10\.0\.0\.7"):
        check_addresses(ServerConfig(keyless_from=[network]))


@pytest.mark.parametrize("door", ["frigate_bind", "imagezmq_bind"])
def test_doors_whose_clients_show_no_key_are_refused_beside_keys_where_nobody_says_who_may(door: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot be used with keys.*--keyless-from"):
        check_addresses(ServerConfig(keys="folder", **{door: ["tcp://127.0.0.1:5558"]}))
    with pytest.raises(ConfigError, match=r"cannot be used with keys"):  # it has no file, and is open to everybody
        check_addresses(ServerConfig(keys="folder", keyless_from=["10.0.0.7"], **{door: ["ipc://@cameras"]}))
    check_addresses(ServerConfig(keys="folder", **{door: ["ipc:///tmp/cameras"]}))
    check_addresses(ServerConfig(keys="folder", keyless_from=["10.0.0.7"], **{door: ["tcp://0.0.0.0:5558"]}))
    check_addresses(ServerConfig(**{door: ["tcp://127.0.0.1:5558"]}))
    with pytest.raises(ConfigError, match=r"can be reached from other machines"):
        check_addresses(ServerConfig(**{door: ["tcp://0.0.0.0:5558"]}))


@pytest.mark.parametrize("door", [lambda: ImageZmq(None), lambda: Frigate(None, None)], ids=["imagezmq", "frigate"])  # type: ignore[arg-type]
def test_a_header_that_is_too_long_is_called_so(door: Any) -> None:
    header = zmq.Frame(json.dumps({"msg": "x" * 70_000}).encode())
    reply = asyncio.run(door().respond(b"camera", [header, zmq.Frame(b"")]))
    assert "up to 65536" in str(reply.error)
    assert b"up to 65536" in reply.frames[0]
