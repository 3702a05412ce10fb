"""Fans and chains through a whole server with the shipped models: the same numbers as asked one by one."""

from __future__ import annotations

import base64
import csv
import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from parallel_infer import Answer, Client
from parallel_infer.cli import main
from parallel_infer.errors import BadInput, DeadlineExceeded, InferError, UnknownModel
from tests.doors.door_server import Doors, ask, free_port
from tests.engine.serving import Server, StartRefused, eventually

CHAINS = {
    "kinds": "detector(confidence=0.3) > classifier(top=3)",
    "persons": "detector(class_filter=person, confidence=0.5) > pose(margin=0.1), shapes, classifier(max_objects=1)",
    "shapes": "segmenter > classifier(mask=true, top=1)",
}


@pytest.fixture(scope="module")
def doors(_adopt_orphans: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """A server with an HTTP and a gRPC door."""
    pytest.importorskip("aiohttp", reason="the HTTP door needs the extra http")
    pytest.importorskip("grpc", reason="the gRPC door needs the extra grpc")
    folder = tmp_path_factory.mktemp("chains")
    models = [f"--model={name}=zoo:{name}" for name in ("detector", "classifier", "pose", "segmenter")]
    config = folder / "server.toml"
    write_chains(config, CHAINS)
    http, grpc = (f"127.0.0.1:{free_port()}" for _ in range(2))
    ways_in = ("--bind", "tcp://127.0.0.1:0", "--http", http, "--grpc", grpc, "--alias", "seen/3=kinds")
    server = Server(folder, *ways_in, *models, "--config", str(config))
    try:
        server.wait_until_ready()
        yield Doors(server, http, grpc, "", "")
        server.check_clean_end()
    finally:
        server.close()


def write_chains(config: Path, chains: dict[str, str]) -> None:
    config.write_text("".join(f'[chain.{name}]\nsteps = "{steps}"\n' for name, steps in chains.items()))


@pytest.fixture(scope="module")
def server(doors: Doors) -> Server:
    return doors.server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    with server.client() as found:
        yield found


@pytest.fixture(scope="module")
def person(pictures: Path) -> np.ndarray:
    """One person, 512x512."""
    found = cv2.imread(str(pictures / "astronaut.png"))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def street(person: np.ndarray) -> np.ndarray:
    """Three times the same person, in all corners but the lower left one."""
    row = np.concatenate((person, person), axis=1)
    return np.concatenate((row, np.concatenate((np.full_like(person, 114), person), axis=1)))


def as_jpeg(frame: np.ndarray) -> bytes:
    done, encoded = cv2.imencode(".jpg", frame)
    assert done
    return encoded.tobytes()


def same(one: Any, other: Any) -> bool:
    return one.arrays.keys() == other.arrays.keys() and all(
        np.array_equal(array, other.arrays[name]) for name, array in one.arrays.items()
    )


def answer(found: Answer | InferError) -> Answer:
    assert isinstance(found, Answer), found
    return found


def test_a_fan_says_what_each_model_says_alone(client: Client, street: np.ndarray) -> None:
    names = ["detector", "pose", "classifier"]
    for picture in (street, as_jpeg(street)):
        fan = client.infer(names, picture)
        assert (fan.task, fan.model, fan.width, fan.height) == ("fan", "detector+pose+classifier", 1024, 1024)
        assert list(fan.parts) == names
        for name in names:
            assert same(answer(fan.parts[name]), client.infer(name, picture))
    many = client.infer_many("detector+pose", [street] * 4)
    assert [list(found.parts) for found in many if isinstance(found, Answer)] == [["detector", "pose"]] * 4


def test_a_child_says_what_it_says_of_the_same_crop_cut_out_by_hand(client: Client, street: np.ndarray) -> None:
    jpeg = as_jpeg(street)
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    for picture, frame in ((street, street), (jpeg, pixels)):
        chain = client.infer("kinds", picture)
        assert len(chain) >= 2
        for box, children in zip(chain.boxes, chain.children, strict=True):
            left, top = np.floor(box[:2]).astype(int)
            right, bottom = np.ceil(box[2:]).astype(int)
            alone = client.infer("classifier", np.ascontiguousarray(frame[top:bottom, left:right]), top=3)
            child = answer(children["classifier"])
            assert child.classes.tolist() == alone.classes.tolist()
            np.testing.assert_allclose(child.scores, alone.scores, atol=2e-2 if picture is jpeg else 1e-6)


def test_frames_in_another_order_of_channels_have_the_same_children(client: Client, street: np.ndarray) -> None:
    one = client.infer("kinds", street)
    other = client.infer("kinds", np.ascontiguousarray(street[..., ::-1]), color="rgb")
    assert same(one, other)
    for children, others in zip(one.children, other.children, strict=True):
        assert same(answer(children["classifier"]), answer(others["classifier"]))


def test_children_are_told_in_pixels_of_the_whole_picture(
    client: Client, street: np.ndarray, person: np.ndarray
) -> None:
    chain = client.infer("persons", street)
    alone = client.infer("pose", person).keypoints
    assert len(chain) == 3
    assert alone is not None
    for box, children in zip(chain.boxes, chain.children, strict=True):
        corner = np.round(box[:2] / 512) * 512
        pose, shapes = answer(children["pose"]), answer(children["shapes"])
        assert (pose.width, pose.height) == (1024, 1024)
        assert pose.keypoints is not None
        np.testing.assert_allclose(pose.keypoints[0, :5, :2], alone[0, :5, :2] + corner, atol=15)
        assert shapes.masks is not None
        outline = shapes.masks[0][0]
        np.testing.assert_allclose(outline.min(0), box[:2], atol=40)
        assert (outline.max(0) <= box[2:] + 1).all()
        assert answer(shapes.children[0]["classifier"]).task == "classify"  # a chain below a chain


def test_the_map_has_the_same_as_the_arrays(client: Client, street: np.ndarray) -> None:
    found = client.infer("persons", street).to_dict()
    prediction = found["predictions"][0]
    assert prediction["children"].keys() == {"pose", "shapes", "classifier"}
    shape = prediction["children"]["shapes"]["predictions"][0]
    assert shape["children"]["classifier"]["top"]
    fan = client.infer("detector+kinds", street).to_dict()
    assert fan["parts"].keys() == {"detector", "kinds"}
    assert all("children" in prediction for prediction in fan["parts"]["kinds"]["predictions"])


def test_what_is_left_out_is_counted(client: Client, street: np.ndarray) -> None:
    chain = client.infer("persons", street)
    assert len(chain) == 3
    assert chain.left_out == {"classifier": 2}
    assert ["classifier" in children for children in chain.children].count(True) == 1
    best = int(np.argmax(chain.scores))
    assert "classifier" in chain.children[best]
    assert chain.to_dict()["left_out"] == {"classifier": 2}


def test_a_picture_is_decoded_once_for_all_models_and_objects(client: Client, street: np.ndarray) -> None:
    def counts() -> tuple[int, int]:
        models = client.status()["models"].values()
        return sum(model["decoded"] for model in models), sum(model["reused"] for model in models)

    picture, before = small(street), counts()
    fans = client.infer_many("detector+pose", [picture] * 32, timeout=300.0)
    assert [len(found.parts) for found in fans if isinstance(found, Answer)] == [2] * 32
    decoded, reused = counts()
    assert (decoded - before[0], reused - before[1]) == (32, 32)
    chains = client.infer_many("kinds", [picture] * 16, timeout=300.0)
    assert all(found.children for found in chains if isinstance(found, Answer))
    assert counts()[0] - decoded == 16


def test_mistakes_are_named(client: Client, street: np.ndarray) -> None:
    with pytest.raises(UnknownModel, match="no model 'plates' is served; served are: classifier, detector, kinds"):
        client.infer(["detector", "plates"], street)
    with pytest.raises(BadInput, match="names no model, or one twice"):
        client.infer(["detector", "detector"], street)
    with pytest.raises(BadInput, match="unknown option 'confidnce'; did you mean 'confidence'"):
        client.infer("kinds", street, confidnce=1)
    with pytest.raises(BadInput, match="confidence: expected a number from 0 to 1"):
        client.infer("kinds", street, confidence=7)
    with pytest.raises(BadInput, match="cuts objects out of the picture, and tensors have no pixels"):
        client.infer("kinds", {"input": np.zeros((3, 4), np.float32)})
    with pytest.raises(BadInput, match="detector: not a picture but text"):
        client.infer(["detector", "pose"], b"no picture")
    with pytest.raises(DeadlineExceeded):
        client.infer("kinds", street, timeout=0.001)
    with pytest.raises(BadInput, match="'kinds' is the name of a chain"):
        client.load("kinds", "zoo:classifier")


def test_chains_are_listed_as_models(client: Client) -> None:
    listed = {model["name"]: model for model in client.models()}
    assert {name: listed[name]["chain"] for name in CHAINS} == CHAINS
    assert listed["kinds"]["classes"] == listed["detector"]["classes"]
    status = client.status()
    assert [ring["leaked"] for ring in status["gateway"]["ingress"]] == [0] * len(status["gateway"]["ingress"])


# --- every way in -----------------------------------------------------------------------------------------------------


def small(frame: np.ndarray) -> bytes:
    """A JPEG that doors hand on as it is, without memory that the server lends them."""
    done, encoded = cv2.imencode(".jpg", cv2.resize(frame, (320, 320)), [cv2.IMWRITE_JPEG_QUALITY, 30])
    assert done
    assert len(encoded) < 16384
    return encoded.tobytes()


def numbers(result: Any) -> Any:
    """A result map without what is another one each time."""
    if isinstance(result, dict):
        return {k: numbers(v) for k, v in result.items() if k not in ("inference_id", "detection_id", "time")}
    return [numbers(item) for item in result] if isinstance(result, list) else result


@pytest.mark.parametrize("name", ["kinds", "detector+classifier"])
def test_plain_http_and_json(doors: Doors, client: Client, street: np.ndarray, name: str) -> None:
    picture = small(street)
    expected = numbers(client.infer(name, picture).to_dict())
    status, found = ask(doors, f"/infer/{name}", picture)
    assert (status, numbers(found)) == (200, expected)
    status, drawn = ask(doors, f"/infer/{name}?format=image", picture)
    assert status == 200
    assert not np.array_equal(cv2.imdecode(np.frombuffer(drawn, np.uint8), cv2.IMREAD_COLOR), street)
    status, found = ask(doors, f"/infer/{name}?confidnce=1", picture)
    assert (status, "did you mean 'confidence'" in found["error"]) == (400, True)


@pytest.mark.parametrize("name", ["kinds", "kinds.picture", "detector+classifier", "detector+classifier.picture"])
def test_the_open_inference_protocol(doors: Doors, client: Client, street: np.ndarray, name: str) -> None:
    picture = small(street)
    status, metadata = ask(doors, f"/v2/models/{name}")
    assert status == 200
    assert [port["name"] for port in metadata["inputs"]] == ["image"]
    assert "answer" in [port["name"] for port in metadata["outputs"]]
    assert ask(doors, f"/v2/models/{name}/ready")[0] == 200
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1, 1], "data": [base64.b64encode(picture).decode()]}
    request = {"inputs": [tensor], "outputs": [{"name": "answer"}]}
    status, found = ask(doors, f"/v2/models/{name}/infer", json.dumps(request).encode())
    assert status == 200, found
    told = json.loads(found["outputs"][0]["data"][0])
    assert numbers(told) == numbers(client.infer(name.removesuffix(".picture"), picture).to_dict())


def test_names_that_nobody_serves_are_told_at_every_door(doors: Doors, street: np.ndarray) -> None:
    picture = small(street)
    for path in ("/infer/detector+plates", "/v2/models/detector+plates/infer", "/infer/detector+detector"):
        body = b'{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1, 1], "data": ["AA=="]}]}'
        status, found = ask(doors, path, body if path.endswith("/infer") else picture)
        assert (status, "no model" in str(found)) == (404, True), found


def test_grpc(doors: Doors, client: Client, street: np.ndarray) -> None:
    triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
    picture = small(street)
    with triton.InferenceServerClient(doors.grpc) as asked:
        tensor = triton.InferInput("image", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[picture]], np.object_))
        found = asked.infer("kinds.picture", [tensor], outputs=[triton.InferRequestedOutput("answer")])
        told = json.loads(found.as_numpy("answer")[0, 0])
    assert numbers(told) == numbers(client.infer("kinds", picture).to_dict())


def test_roboflow(doors: Doors, street: np.ndarray) -> None:
    image = {"type": "base64", "value": base64.b64encode(small(street)).decode()}
    asked = {"model_id": "seen/3", "image": image, "confidence": 0.5}
    status, found = ask(doors, "/infer/object_detection", json.dumps(asked).encode(), Content_Type="application/json")
    assert status == 200, found
    assert found["predictions"]
    assert all("top" in prediction["children"]["classifier"] for prediction in found["predictions"])
    assert "kinds" in {entry["model_id"] for entry in ask(doors, "/model/registry")[1]["models"]}


def test_the_command_line(server: Server, tmp_path: Path, street: np.ndarray) -> None:
    picture = tmp_path / "street.png"
    cv2.imwrite(str(picture), street)
    given = ["infer", "--server", server.address, "persons", str(picture)]
    rows = list(csv.DictReader(io.StringIO(CliRunner().invoke(main, [*given, "--csv"]).output)))
    objects = [(row["model"], row["object"]) for row in rows]
    assert [place for model, place in objects if model == "persons"] == ["0", "1", "2"]
    assert [place for model, place in objects if model == "pose"] == ["0.0", "1.0", "2.0"]
    assert {place for model, place in objects if model == "classifier"} >= {"0", "0.0", "1.0", "2.0"}
    line = json.loads(CliRunner().invoke(main, [*given, "--json"]).output)
    assert line["predictions"][0]["children"]["pose"]["predictions"]
    table = CliRunner().invoke(main, given).output
    assert "0, person: pose: 1 found: person" in table
    assert "classifier was not asked about 2 more" in table
    fan = ["infer", "--server", server.address, "detector+classifier", str(picture), "--csv"]
    rows = list(csv.DictReader(io.StringIO(CliRunner().invoke(main, fan).output)))
    assert {row["model"] for row in rows} == {"detector", "classifier"}


def test_the_example(server: Server, tmp_path: Path, street: np.ndarray) -> None:
    picture, broken = tmp_path / "street.png", tmp_path / "broken.png"
    cv2.imwrite(str(picture), street)
    broken.write_bytes(b"no picture")
    example = Path(__file__).resolve().parents[2] / "examples" / "cut_out.py"
    command = [sys.executable, str(example), "persons", str(picture), str(broken), "--address", server.address]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines = ran.stdout.splitlines()
    assert (ran.returncode, lines[0]) == (1, f"{picture}: 3 found")
    assert lines[1].startswith("  person at [")
    assert "pose: person" in lines[1]
    assert lines[4:] == ["  classifier was not asked about 2 more"]
    assert "BAD_INPUT: not a picture" in ran.stderr


# --- while it runs ----------------------------------------------------------------------------------------------------


def listed(client: Client) -> dict[str, str]:
    return {model["name"]: model["chain"] for model in client.models() if model["chain"]}


def test_a_chain_is_added_changed_and_removed_while_the_server_runs(
    doors: Doors, client: Client, street: np.ndarray
) -> None:
    picture = small(street)
    with pytest.raises(UnknownModel):
        client.infer("new", picture)
    assert client.load_chain("new", "detector(confidence=0.3) > classifier(top=2)")["became"] == "new"
    assert len(answer(client.infer("new", picture).children[0]["classifier"])) == 2
    found = ask(doors, "/infer/new", picture)[1]
    assert found["predictions"][0]["children"]["classifier"]["top"]
    told = json.dumps({"parameters": {"chain": "detector(confidence=0.3) > pose"}}).encode()
    assert ask(doors, "/v2/repository/models/new/load", told) == (200, {})
    assert client.infer("new", picture).children[0].keys() == {"pose"}
    assert ask(doors, "/v2/models/new/ready")[0] == 200
    assert listed(client) == {**CHAINS, "new": "detector(confidence=0.3) > pose"}
    with pytest.raises(BadInput, match="did you mean 'person'"):
        client.load_chain("new", "detector(class_filter=perso) > pose")
    with pytest.raises(BadInput, match="'classifier': option top: expected a whole number from 1"):
        client.load_chain("new", "detector > classifier(top=0)")
    status, said = ask(doors, "/v2/repository/models/new/load", b'{"parameters": {"chain": "detector > nobody"}}')
    assert (status, "chain 'new': no model 'nobody' is served" in said["error"]) == (404, True)
    assert ask(doors, "/v2/repository/models/new/load", b'{"parameters": {"chain": 7}}')[0] == 400
    status, said = ask(doors, "/v2/repository/models/new/load", b'{"parameters": {"chian": "detector > pose"}}')
    assert (status, "unknown parameter 'chian'; did you mean 'chain'" in said["error"]) == (400, True)
    assert ask(doors, "/v2/repository/models/new.picture/unload", b"")[0] == 200
    assert listed(client) == CHAINS
    assert ask(doors, "/infer/new", picture)[0] == 404


def test_a_chain_is_added_over_grpc_and_by_the_page(doors: Doors, client: Client) -> None:
    grpc = pytest.importorskip("grpc", reason="the gRPC door needs the extra grpc")
    from parallel_infer.doors.grpc.messages import message
    from parallel_infer.doors.grpc.servicer import SERVICE

    request = message("inference.RepositoryModelLoadRequest")(model_name="new")
    request.parameters["chain"].string_param = "detector > pose"
    with grpc.insecure_channel(doors.grpc) as channel:
        channel.unary_unary(f"/{SERVICE}/RepositoryModelLoad")(request.SerializeToString(), timeout=20)
    assert listed(client) == {**CHAINS, "new": "detector > pose"}
    told = json.dumps({"name": "new", "steps": "detector > pose, classifier"}).encode()
    assert ask(doors, "/page/load", told, Content_Type="application/json")[0] == 200
    assert listed(client)["new"] == "detector > pose, classifier"
    assert client.unload("new") == {"name": "new", "warnings": []}


def test_a_chain_whose_models_are_away_can_be_unloaded(doors: Doors, client: Client, zoo: Path) -> None:
    client.load("away", f"{zoo}/classifier.onnx")
    for name in ("new", "gone"):
        client.load_chain(name, "detector > away")
    client.unload("away")
    for name in ("new.picture", "gone"):
        assert ask(doors, f"/v2/repository/models/{name}/unload", b"") == (200, {})
    assert listed(client) == CHAINS
    status, said = ask(doors, "/v2/repository/models/gone/unload", b"")
    assert (status, "no model 'gone' is served" in said["error"]) == (404, True)


def test_at_sighup_the_chains_are_those_of_the_file(server: Server, client: Client) -> None:
    config = server.folder / "server.toml"
    write_chains(config, {"kinds": CHAINS["kinds"], "shapes": "segmenter > pose", "bad": "classifier > pose"})
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: "configuration taken over" in server.log.read_text())
    became = "chain persons: removed; chain kinds: unchanged; chain shapes: changed (its steps); chain bad: refused"
    assert became in server.log.read_text()
    eventually(lambda: "chain 'bad': model 'classifier' does classify" in server.log.read_text())
    eventually(lambda: listed(client) == {"kinds": CHAINS["kinds"], "shapes": "segmenter > pose"})
    assert "take a restart" not in server.log.read_text()
    for name in ("shapes", "persons"):
        client.load_chain(name, CHAINS[name])
    assert listed(client) == CHAINS


def test_what_a_chain_found_is_drawn(client: Client, street: np.ndarray) -> None:
    chain = client.infer("kinds", street)
    plain = client.infer("detector", street, confidence=0.3)
    assert not np.array_equal(chain.draw(street), plain.draw(street))  # the class stands in the label
    fan = client.infer("detector+pose", street)
    whole, parts = fan.draw(street), fan.parts
    for name in parts:  # each is to be seen
        fan.parts = {other: part for other, part in parts.items() if other != name}
        assert not np.array_equal(fan.draw(street), whole)


def test_a_chain_that_cannot_be_is_refused_at_the_start(tmp_path: Path) -> None:
    chain = "--chain=x=detector(class_filter=perso) > detector"
    server = Server(tmp_path, "--bind", f"ipc://{tmp_path}/door", "--model=detector=zoo:detector", chain)
    with pytest.raises(StartRefused, match="chain 'x': class_filter: .* has no class 'perso'; did you mean 'person'"):
        server.wait_until_ready()
