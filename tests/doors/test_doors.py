"""The doors of a real server, asked by real clients: tritonclient over HTTP and gRPC, HTTP by hand, Frigate's and
imagezmq's frames."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
import zmq

from parallel_infer import Client
from parallel_infer.errors import InferError
from tests.doors.door_server import TIMEOUT, ask, start
from tests.doors.door_server import Doors as DoorAddresses
from tests.engine.serving import Server, eventually, free_port, running, short_folder

pytest.importorskip("aiohttp", reason="the HTTP door needs the extra http")
pytest.importorskip("grpc", reason="the gRPC door needs the extra grpc")
triton_http = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
triton_grpc = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
InferenceServerException = pytest.importorskip("tritonclient.utils").InferenceServerException


class Doors(DoorAddresses):
    """The same, with tritonclient's two clients."""

    def triton(self, kind: str) -> Any:
        module, address = (triton_http, self.http) if kind == "http" else (triton_grpc, self.grpc)
        limits = {"network_timeout": TIMEOUT, "connection_timeout": TIMEOUT} if kind == "http" else {}
        return module, module.InferenceServerClient(address, **limits)


def serving(folder: Path, *arguments: str) -> Doors:
    return Doors(*start(folder, "--alias", "coco/3=detector", "--model", "classifier=zoo:classifier", *arguments))


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> None:
    """Instead of that of all tests: the shared server takes more memory as tests use more of it, and is looked at when
    it has ended."""


@pytest.fixture(scope="module")
def doors(_adopt_orphans: None) -> Iterator[Doors]:
    found = serving(short_folder())
    with running(found.server):
        yield found


def picture_of(pictures: Path, name: str = "coffee.png") -> bytes:
    return (pictures / name).read_bytes()


def expected_objects(expected: dict[str, Any], name: str) -> list[str]:
    return [found["name"] for found in expected[name]["detect"]]


def test_names_of_models_and_of_the_doors_own_paths_do_not_mix(doors: Doors, pictures: Path) -> None:
    picture = picture_of(pictures)
    with Client(f"ipc://{doors.server.folder}/door") as client:
        with pytest.raises(InferError, match="'detector@file' ends as the names do"):
            client.load("detector@file", "zoo:classifier")
        assert ask(doors, "/infer/detector", picture)[0] == 200  # the door knows now what is served
        client.load("classification", "zoo:classifier", instances=1)  # which is a route of Roboflow's, too
        status, answer = ask(doors, "/infer/classification", picture)
        assert (status, answer.get("top", answer)) == (200, "espresso")
        encoded = base64.b64encode(picture).decode()
        plain = json.dumps({"image": encoded, "top": 1}).encode()
        assert len(ask(doors, "/infer/classification", plain)[1]["predictions"]) == 1
        theirs = {"model_id": "classifier", "image": {"type": "base64", "value": encoded}}
        assert ask(doors, "/infer/classification", json.dumps(theirs).encode())[1]["top"] == "espresso"
        client.unload("classification")


# --- Open Inference Protocol ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_the_files_own_tensors_give_what_the_graph_gives(doors: Doors, zoo: Path, kind: str) -> None:
    module, client = doors.triton(kind)
    values = np.random.default_rng(1).normal(size=(2, 3, 224, 224)).astype(np.float32)  # no picture's
    tensor = module.InferInput("images", list(values.shape), "FP32")
    tensor.set_data_from_numpy(values)
    session = onnxruntime.InferenceSession(zoo / "classifier.onnx", providers=["CPUExecutionProvider"])
    name = session.get_outputs()[0].name
    if session.get_inputs()[0].name != "images":
        tensor = module.InferInput(session.get_inputs()[0].name, list(values.shape), "FP32")
        tensor.set_data_from_numpy(values)
    (wanted,) = session.run(None, {session.get_inputs()[0].name: values})
    np.testing.assert_allclose(client.infer("classifier", [tensor]).as_numpy(name), wanted, atol=1e-5)


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_pictures_go_through_the_pipeline(doors: Doors, pictures: Path, expected: dict[str, Any], kind: str) -> None:
    module, client = doors.triton(kind)
    sent = [picture_of(pictures, "coffee.png"), picture_of(pictures, "astronaut.png")]
    image = module.InferInput("image", [2, 1], "BYTES")
    image.set_data_from_numpy(np.array([[data] for data in sent], object))
    result = client.infer("detector.picture", [image], request_id="7", parameters={"confidence": 0.5})
    counts = result.as_numpy("num_detections")
    answers = [json.loads(text) for text in result.as_numpy("answer").reshape(-1)]
    assert [len(answer["predictions"]) for answer in answers] == counts.reshape(-1).tolist()
    assert counts.min() >= 1
    assert result.as_numpy("boxes").shape == (2, counts.max(), 4)
    assert result.as_numpy("scores").max() > 0.5
    asked = [module.InferRequestedOutput("scores", class_count=1)]  # and no classes, which its names are made of
    best = client.infer("detector.picture", [image], outputs=asked, parameters={"confidence": 0.5}).as_numpy("scores")
    named = [max(answer["predictions"], key=lambda found: found["confidence"])["class"] for answer in answers]
    assert [text.decode().rpartition(":")[2] for text in best.reshape(-1)] == named
    image.set_data_from_numpy(np.array([[sent[0]], [b"no picture"]], object))
    with pytest.raises(InferenceServerException, match="picture 1: "):
        client.infer("detector.picture", [image])


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_what_clients_ask_of_server_and_models(doors: Doors, kind: str) -> None:
    _, client = doors.triton(kind)
    told = {} if kind == "http" else {"as_json": True}
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("detector")
    metadata = client.get_model_metadata("detector", **told)
    assert [int(size) for size in metadata["inputs"][0]["shape"]] == [-1, 3, 416, 416]
    config = client.get_model_config("detector", **told)
    config = config.get("config", config)
    assert int(config["max_batch_size"]) >= 1
    assert "names" in config["parameters"]["metadata"]["string_value"]
    index = client.get_model_repository_index(**told)
    names = {model["name"] for model in (index if kind == "http" else index["models"])}
    assert {"detector", "detector.picture", "classifier"} <= names
    assert not [name for name in names if "@" in name]
    with pytest.raises(InferenceServerException, match="no model 'nobody' is served"):
        client.get_model_metadata("nobody")
    with pytest.raises(InferenceServerException, match="no version '9'"):
        client.get_model_metadata("detector", "9")


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_many_at_a_time_get_each_their_own(doors: Doors, pictures: Path, kind: str) -> None:
    module, _ = doors.triton(kind)
    frames = {}
    for name in ("coffee.png", "astronaut.png", "chelsea.png"):
        image = module.InferInput("image", [1, 1], "BYTES")
        image.set_data_from_numpy(np.array([[picture_of(pictures, name)]], object))
        frames[name] = image

    def sizes(name: str) -> tuple[int, int]:
        _, client = doors.triton(kind)
        size = json.loads(client.infer("classifier.picture", [frames[name]]).as_numpy("answer").item())["image"]
        return size["width"], size["height"]

    order = list(frames) * 8
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(sizes, order))
    alone = {name: sizes(name) for name in frames}
    assert found == [alone[name] for name in order]


def test_a_long_error_fits_a_calls_headers(doors: Doors) -> None:
    _, client = doors.triton("grpc")
    for letter in ("n", "\u00fc"):
        with pytest.raises(InferenceServerException, match=f"no model '{letter}+ ...$") as refused:
            client.get_model_metadata(letter * 20_000)
        assert refused.value.status() == "StatusCode.NOT_FOUND"


def test_health_of_a_service_that_is_not_there(doors: Doors) -> None:
    import grpc

    with grpc.insecure_channel(doors.grpc) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"\n\x1e" + b"inference.GRPCInferenceService", timeout=TIMEOUT) == b"\x08\x01"
        with pytest.raises(grpc.RpcError) as refused:
            check(b"\n\x05other", timeout=TIMEOUT)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_stream_goes_on_after_a_bad_request(doors: Doors, pictures: Path) -> None:
    module, client = doors.triton("grpc")
    replies: list[tuple[Any, Any]] = []
    client.start_stream(lambda result, error: replies.append((result, error)))
    for data in (picture_of(pictures), b"no picture", picture_of(pictures)):
        image = module.InferInput("image", [1, 1], "BYTES")
        image.set_data_from_numpy(np.array([[data]], object))
        client.async_stream_infer("detector.picture", [image])
    eventually(lambda: len(replies) == 3)
    client.stop_stream()
    assert sorted(error is None for _, error in replies) == [False, True, True]


# --- HTTP by hand -----------------------------------------------------------------------------------------------------


def test_a_picture_may_be_the_body_a_form_or_base64(doors: Doors, pictures: Path) -> None:
    data = picture_of(pictures)
    status, plain = ask(doors, "/infer/detector?confidence=0.5", data, Content_Type="image/png")
    assert status == 200
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + data + b"\r\n--b--\r\n"
    _, by_form = ask(doors, "/infer/detector?confidence=0.5", form, Content_Type="multipart/form-data; boundary=b")
    encoded = json.dumps({"image": base64.b64encode(data).decode(), "confidence": 0.5}).encode()
    _, by_json = ask(doors, "/infer/detector", encoded, Content_Type="application/json")
    for other in (by_form, by_json):
        assert [found["class"] for found in other["predictions"]] == [found["class"] for found in plain["predictions"]]
    status, drawn = ask(doors, "/infer/detector?format=image", data, Content_Type="image/png")
    assert cv2.imdecode(np.frombuffer(drawn, np.uint8), cv2.IMREAD_COLOR).shape[:2] == (400, 600)


def form_of(*parts: tuple[str, bytes]) -> bytes:
    return b"".join(b"--b\r\n%s\r\n\r\n%s\r\n" % (head.encode(), data) for head, data in parts) + b"--b--\r\n"


def test_a_forms_fields_are_options_and_it_has_one_picture(doors: Doors, pictures: Path) -> None:
    picture = ('Content-Disposition: form-data; name="file"; filename="a.png"', picture_of(pictures))

    def field(name: str, value: bytes) -> tuple[str, bytes]:
        return f'Content-Disposition: form-data; name="{name}"', value

    def send(*parts: tuple[str, bytes], path: str = "/infer/detector") -> tuple[int, Any]:
        return ask(doors, path, form_of(*parts), Content_Type="multipart/form-data; boundary=b")

    for path in ("/infer/detector?api_key=k", "/coco/3?api_key=k"):
        status, answer = send(field("confidence", b"0.99"), picture, field("api_key", b"k"), path=path)
        assert (status, answer["predictions"]) == (200, [])
        for other in (picture, field("image", picture[1])):
            status, error = send(picture, other, path=path)
            assert (status, "one" in error["error"]) == (400, True)
    status, drawn = send(picture, field("format", b"image"), field("note", b"mine"))
    assert (status, drawn[:2]) == (200, b"\xff\xd8")
    status, error = send(picture, field("confidance", b"0.99"))
    assert (status, "unknown option 'confidance'" in error["error"]) == (400, True)


def test_roboflows_requests_get_roboflows_answers(doors: Doors, pictures: Path) -> None:
    status, registry = ask(doors, "/model/registry?api_key=k")
    known = {entry["model_id"]: entry["task_type"] for entry in registry["models"]}
    assert known["coco/3"] == known["detector/1"] == "object-detection"
    image = {"type": "base64", "value": base64.b64encode(picture_of(pictures)).decode()}
    asked = {"api_key": "k", "model_id": "coco/3", "image": [image], "confidence": 0.5, "unknown": 1}
    status, answers = ask(doors, "/infer/object_detection", json.dumps(asked).encode())
    assert status == 200
    assert [found["class"] for found in answers[0]["predictions"]] == ["cup"]
    status, error = ask(doors, "/infer/classification", json.dumps(asked).encode())
    assert (status, error["error"]) == (400, error["message"])
    assert "object_detection" in error["error"]
    bad = asked | {"image": [image, {"type": "base64", "value": "AAAA"}]}
    status, error = ask(doors, "/infer/object_detection", json.dumps(bad).encode())
    assert (status, error["error"].partition(":")[0]) == (400, "picture 1")
    for kind, text in (("url", "fetches nothing"), ("numpy", "pickled")):
        status, error = ask(
            doors, "/infer/object_detection", json.dumps(asked | {"image": {"type": kind, "value": "x"}}).encode()
        )
        assert status == 400
        assert text in error["message"]
    zero = base64.b64encode(picture_of(pictures))
    status, answer = ask(doors, "/coco/3?confidence=50&overlap=30&api_key=k", zero, Content_Type="application/json")
    assert (status, len(answer["predictions"])) == (200, 1)


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "text"),
    [
        ("/infer/nobody", b"x", {}, 404, "no model 'nobody'"),
        ("/infer/..%2f..%2fetc", b"x", {}, 404, "no model"),
        ("/nothing/here/at/all", None, {}, 404, "there is nothing at"),
        ("/v2/models/detector/infer", None, {}, 405, "GET is not possible"),
        ("/infer/detector", b"", {}, 400, "the body is empty"),
        ("/infer/detector", b"hello", {}, 400, "not a picture"),
        ("/infer/detector?confidence=2", b"hello", {}, 400, "confidence"),
        ("/infer/detector?iou=0.5&iou=0.6", b"hello", {}, 400, "'iou' is given 2 times in the query"),
        ("/infer/detector?format=json&format=image", b"hello", {}, 400, "'format' is given 2 times"),
        ("/infer/detector?confidense=0.5", b"hello", {}, 400, "confidense"),
        ("/infer/detector?iou=0.5", b'{"image": "aGVsbG8=", "iou": 0.6}', {}, 400, "in the query and in the body"),
        (
            "/infer/detector",
            b'{"image": "aGVsbG8=", "iou": 0.6, "iou": 0.5}',
            {},
            400,
            "'iou' is given twice in the JSON",
        ),
        (
            *("/infer/object_detection", b'{"model_id": "detector", "image": {"type": "base64", "type": "url"}}', {}),
            *(400, "'type' is given twice"),
        ),
        ("/v2/repository/index", b'{"ready": true, "ready": false}', {}, 400, "'ready' is given twice"),
        ("/page/load", b'{"name": "a", "path": "a", "name": "b"}', {}, 400, "'name' is given twice"),
        ("/detector/1?overlap=30&overlap=40", b"aGVsbG8=", {}, 400, "'overlap' is given 2 times"),
        ("/detector/1?confidense=40", b"aGVsbG8=", {}, 400, "did you mean 'confidence'"),
        ("/v2/models/detector/infer?timeout=1", b"{}", {}, 400, "'timeout' is in the query"),
        ("/v2/models/detector/infer?priority=1&priority=2", b"{}", {}, 400, "given 2 times"),
        ("/infer/detector?timeout=no", b"hello", {}, 400, "timeout is 'no'"),
        ("/detector/99", b"aGVsbG8=", {}, 404, "no model 'detector/99'"),
        ("/infer/detector", b"--x", {"Content_Type": "multipart/form-data; boundary=\xff"}, 400, "another one"),
        ("/infer/detector?priority=1000", b"hello", {}, 400, "priority"),
        ("/infer/detector", b"hello", {"Content_Encoding": "br"}, 415, "Content-Encoding 'br'"),
        ("/infer/detector", b"hello", {"Content_Encoding": "zstd"}, 415, "gzip and deflate"),
        ("/infer/detector", b"hello", {"Content_Encoding": "gzip"}, 400, "cannot be read"),
        ("/infer/detector", gzip.compress(b"hello")[:-20], {"Content_Encoding": "gzip"}, 400, "its end is missing"),
        ("/infer/detector", zlib.compress(b"hello")[:-4], {"Content_Encoding": "deflate"}, 400, "its end is missing"),
        ("/infer/detector", b"hello", {"Origin": "http://evil.example"}, 403, "another site"),
        ("/infer/detector", b"hello", {"Host": "evil.example"}, 403, "evil.example"),
        ("/v2/models/detector/infer", b"{", {}, 400, "JSON cannot be read"),
        ("/v2/models/detector/infer", b'{"inputs": [{"name": "x"}]}', {}, 400, "datatype"),
        ("/v2/repository/models/nobody/unload", b"", {}, 404, "no model 'nobody'"),
    ],
)
def test_what_is_wrong_is_refused_by_name(
    doors: Doors, path: str, body: bytes | None, headers: dict[str, str], status: int, text: str
) -> None:
    found, error = ask(doors, path, body, **headers)
    assert (found, error["error"]) == (status, error["message"])
    assert text in error["error"]
    assert "$." not in error["error"]
    assert ask(doors, "/healthz") == (200, {"live": True})


def test_a_body_too_large_is_refused_by_its_length(doors: Doors) -> None:
    host, port = doors.http.split(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT) as connection:
        connection.sendall(b"POST /infer/detector HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 900000000\r\n\r\n")
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"max_payload_mb" in answer


def test_the_last_inference_is_when_it_was(doors: Doors, pictures: Path) -> None:
    def last() -> int:
        ((statistics,),) = ask(doors, "/v2/models/detector.picture/stats")[1].values()
        return int(statistics["last_inference"])

    before = round(time.time() * 1000) - 1000
    ask(doors, "/infer/detector", picture_of(pictures))
    found = last()
    assert before < found < time.time() * 1000 + 1000
    assert last() == found
    ask(doors, "/infer/detector", picture_of(pictures))
    assert last() > found


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_requests_are_counted_and_their_rows(doors: Doors, pictures: Path, kind: str) -> None:
    module, client = doors.triton(kind)

    def counts() -> tuple[int, int, int]:
        options = {"as_json": True} if kind == "grpc" else {}
        (stats,) = client.get_inference_statistics("classifier.picture", **options)["model_stats"]
        requests = {int(stats["inference_stats"][name]["count"]) for name in ("success", "queue", "compute_infer")}
        assert len(requests) == 1
        return requests.pop(), int(stats["inference_count"]), int(stats["execution_count"])

    ask(doors, "/infer/classifier", picture_of(pictures))  # all counts are above 0, which gRPC leaves out
    before = counts()
    for count in (1, 3):
        image = module.InferInput("image", [count, 1], "BYTES")
        image.set_data_from_numpy(np.array([[picture_of(pictures)]] * count, object))
        client.infer("classifier.picture", [image])
    asked, rows, batches = (after - earlier for after, earlier in zip(counts(), before, strict=True))
    assert (asked, rows) == (2, 4)
    assert 2 <= batches <= 4
    client.close()


def test_health_and_metrics(doors: Doors) -> None:
    status, ready = ask(doors, "/readyz")
    assert (status, ready["ready"]) == (200, True)
    status, page = ask(doors, "/metrics")
    assert status == 200
    assert b"# TYPE" in page


# --- Frigate and imagezmq ---------------------------------------------------------------------------------------------


def asking(address: str, *requests: list[bytes]) -> list[list[bytes]]:
    context = zmq.Context()
    connection = context.socket(zmq.REQ)
    connection.linger = 0
    connection.rcvtimeo = int(TIMEOUT * 1000)
    connection.connect(address)
    try:
        replies = []
        for frames in requests:
            connection.send_multipart(frames)
            replies.append(connection.recv_multipart())
        return replies
    finally:
        connection.close()
        context.term()


def test_frigates_plugin_gets_its_rows(doors: Doors, pictures: Path) -> None:
    frame = cv2.imread(str(pictures / "coffee.png"))
    tensor = np.ascontiguousarray(cv2.resize(frame, (416, 416))[:, :, ::-1].transpose(2, 0, 1)[None], np.float32) / 255
    there = json.dumps({"model_request": True, "model_name": "detector.onnx"}).encode()
    missing = json.dumps({"model_request": True, "model_name": "other.onnx"}).encode()
    header = json.dumps({"shape": list(tensor.shape), "dtype": "float32", "model_type": "yologeneric"}).encode()
    first, second, rows, wrong, upload = asking(
        doors.frigate,
        [missing],
        [there],
        [header, tensor.tobytes()],
        [header, b"short"],
        [json.dumps({"model_data": True, "model_name": "x.onnx"}).encode(), b"x"],
    )
    assert json.loads(first[0]) == {"model_available": False, "model_loaded": False}
    assert json.loads(second[0]) == {"model_available": True, "model_loaded": True}
    found = np.frombuffer(rows[1], np.float32).reshape(20, 6)
    assert found[0, 0] == 41  # a cup
    assert found[0, 1] > 0.4
    assert (found[:, 2:] <= 1).all()
    assert "error" in json.loads(wrong[0])
    assert not np.frombuffer(wrong[1], np.float32).any()
    assert json.loads(upload[0])["model_saved"] is False
    assert "option frigate_uploads" in json.loads(upload[0])["message"]


def test_imagezmqs_frames_are_answered(doors: Doors, pictures: Path) -> None:
    frame = cv2.imread(str(pictures / "coffee.png"))
    raw = json.dumps({"msg": "cam1", "dtype": "uint8", "shape": list(frame.shape)}).encode()
    jpeg = cv2.imencode(".jpg", frame)[1].tobytes()
    bad = json.dumps({"msg": 1, "dtype": "uint8", "shape": [2, 2, 5]}).encode()
    replies = asking(
        doors.imagezmq, [raw, frame.tobytes()], [b'{"msg": {"any": "json"}}', jpeg], [bad, bytes(20)], [b"{", b""]
    )
    cup, also_cup, wrong, no_json = (json.loads(reply[0]) for reply in replies)
    assert [found["class"] for found in cup["predictions"]][:1] == ["cup"]
    assert [found["class"] for found in also_cup["predictions"]][:1] == ["cup"]
    assert wrong["code"] == no_json["code"] == "BAD_INPUT"


# --- a door's life ----------------------------------------------------------------------------------------------------


def test_a_door_that_dies_is_replaced_and_others_do_not_notice(doors: Doors, pictures: Path) -> None:
    old = doors.server.child("http")
    old.kill()

    def back() -> bool:
        try:
            return ask(doors, "/healthz")[0] == 200 and doors.server.child("http").pid != old.pid
        except (OSError, StopIteration, KeyError, IndexError):
            return False

    eventually(back)
    status, _ = ask(doors, "/infer/detector", picture_of(pictures), Content_Type="image/png")
    assert status == 200


def test_with_keys_a_token_lets_in(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> None:
    from click.testing import CliRunner

    from parallel_infer.cli import main

    folder = short_folder()
    tokens = {}
    for name, further in (("camera", []), ("boss", ["--manage"])):
        made = CliRunner().invoke(
            main, ["keys", "new", name, *further, "--dir", str(folder / "keys"), "--out", str(folder / f"{name}.key")]
        )
        assert made.exit_code == 0
        lines = (folder / f"{name}.key").read_text().splitlines()
        tokens[name] = next(line.partition("= ")[2] for line in lines if line.startswith("token"))
    http, grpc = (f"127.0.0.1:{free_port()}" for _ in range(2))
    bind = ("--bind", f"ipc://{folder}/door", "--http", http, "--grpc", grpc, "--keys", str(folder / "keys"))
    cameras = f"ipc://{folder}/cameras"  # for this user alone, and so beside keys
    bind += ("--imagezmq-bind", cameras)
    found = Doors(Server(folder, *bind, "--model", "classifier=zoo:classifier"), http, grpc, "", cameras)
    with running(found.server):
        data = picture_of(pictures)
        with zmq.Context() as context, context.socket(zmq.REQ) as sender:
            sender.connect(cameras)
            sender.send_multipart([b'{"msg": "door"}', data])
            assert sender.poll(TIMEOUT * 1000)
            assert json.loads(sender.recv())["predictions"]
        assert ask(found, "/healthz")[0] == 200
        assert ask(found, "/infer/classifier", data, Content_Type="image/png")[0] == 401
        assert ask(found, "/infer/classifier", data, Content_Type="image/png", Authorization="Bearer no")[0] == 401
        bearer = f"Bearer {tokens['camera']}"
        assert ask(found, "/infer/classifier", data, Content_Type="image/png", Authorization=bearer)[0] == 200
        assert ask(found, f"/infer/classifier?api_key={tokens['camera']}", data, Content_Type="image/png")[0] == 200
        unload = "/v2/repository/models/classifier/unload"
        assert ask(found, unload, b"", Authorization=bearer)[0] == 403
        assert ask(found, unload, b"", Authorization=f"Bearer {tokens['boss']}")[0] == 200
        client = triton_grpc.InferenceServerClient(found.grpc)
        with pytest.raises(InferenceServerException, match="asks for a key"):
            client.is_server_live()
        assert client.is_server_live(headers={"authorization": bearer})
        client.close()
