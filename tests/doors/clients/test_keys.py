"""Clients of a server with keys: each shows its token in the way that docs/clients.md names."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.docs.pages import Page
from tests.doors.clients import environments
from tests.engine.serving import Server, running, short_folder

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.timeout(900)]
refusal = pytest.importorskip("tritonclient.utils").InferenceServerException


class Guarded(NamedTuple):
    http: str
    grpc: str
    token: str


@pytest.fixture(scope="module")
def guarded(_adopt_orphans: None) -> Iterator[Guarded]:
    folder = short_folder()
    keys = ["keys", "new", "camera", "--dir", str(folder / "keys"), "--out", str(folder / "camera.key")]
    subprocess.run([sys.executable, "-m", "parallel_infer", *keys], check=True, capture_output=True)
    lines = (folder / "camera.key").read_text().splitlines()
    token = next(line.partition("= ")[2] for line in lines if line.startswith("token"))
    models = [f"--model={name}=zoo:{name}" for name in ("detector", "classifier", "segmenter", "pose")]
    doors = ("--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--alias", "coco/3=detector")
    bind = ("--bind", f"ipc://{folder}/server", "--keys", str(folder / "keys"))
    with running(Server(folder, *bind, *doors, *models)) as server:
        found = dict(address.split("://") for address in server.addresses)
        yield Guarded(found["http"], found["grpc"], token)


def picture(module: Any, pictures: Path) -> list[Any]:
    image = module.InferInput("image", [1, 1], "BYTES")
    image.set_data_from_numpy(np.array([[(pictures / "coffee.png").read_bytes()]], object))
    return [image]


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_tritonclient(guarded: Guarded, pictures: Path, kind: str) -> None:
    module = pytest.importorskip(f"tritonclient.{kind}")
    headers = {
        "http": {"Authorization": f"Bearer {guarded.token}"},
        "grpc": {"authorization": f"Bearer {guarded.token}"},
    }
    with module.InferenceServerClient(getattr(guarded, kind)) as client:
        with pytest.raises(refusal, match="asks for a key"):
            client.infer("detector.picture", picture(module, pictures))
        result = client.infer("detector.picture", picture(module, pictures), headers=headers[kind])
    assert result.as_numpy("num_detections").item() >= 1


def test_kserve(guarded: Guarded, pictures: Path, tmp_path: Path) -> None:
    arguments = (guarded.http, guarded.grpc, str(pictures / "coffee.png"), guarded.token)
    told = environments.kserve().told("kserve_client.py", tmp_path, *arguments)
    for client in ("rest", "grpc"):
        assert told[client]["model"] is True
        assert len(told[client]["boxes"]) >= 1
        assert "unknown option" in told[client]["refused"]


@pytest.mark.parametrize("environment", [environments.roboflow, environments.roboflow_before_1])
def test_inference_sdk(guarded: Guarded, pictures: Path, tmp_path: Path, environment: Any) -> None:
    told = environment().told("roboflow_client.py", tmp_path, guarded.http, str(pictures), guarded.token)
    for version in ("1", "0"):
        assert told[version]["one"] == told[version]["async"] == ["cup"]
    assert told["1"]["name"] == "parallel-infer"
    listed = told["1"]["models"]  # before 1.0 the client shows no key when it asks for these
    assert listed == {} if environment is environments.roboflow_before_1 else listed["coco/3"] == "object-detection"


@pytest.mark.parametrize("program", ["curl", "perf_analyzer"])
def test_programs(guarded: Guarded, pictures: Path, tmp_path: Path, program: str) -> None:
    header = f'-H "Authorization: Bearer {guarded.token}"'
    if program == "curl":
        picture, address = pictures / "coffee.png", f"http://{guarded.http}/infer/detector"
        printed = environments.OURS.shell(f"curl -sS {header} --data-binary @{picture} {address}", tmp_path)
        assert '"class":"cup"' in printed
    else:
        few = "--measurement-mode count_windows --measurement-request-count 10 -s 9999"
        measure = f"perf_analyzer {header} -u {guarded.http} -m classifier {few}"
        assert "throughput: " in environments.perf_analyzer().shell(measure, tmp_path)


def test_the_page_tells_of_each() -> None:
    rows = Page.read("docs/clients.md").section("With keys").rows("Client", "Where the token goes")
    named = " ".join(row[0] for row in rows)
    assert all(client in named for client in ("curl", "tritonclient", "KServe", "inference-sdk", "perf_analyzer"))


def test_who_shows_no_key_hears_of_no_model(guarded: Guarded) -> None:
    def status(path: str, *arguments: str) -> str:
        address = f"http://{guarded.http}{path}"
        ran = subprocess.run(
            ["curl", "-s", "-w", " %{http_code}", *arguments, address], capture_output=True, text=True, check=False
        )
        return ran.stdout

    assert status("/model/registry") == '{"models":[]} 200'
    assert status("/model/registry?api_key=wrong").endswith(" 401")
    assert status("/model/registry", "-H", "Authorization: Bearer wrong").endswith(" 401")
    assert "detector/1" in status(f"/model/registry?api_key={guarded.token}")
    name = json.loads(status("/info").removesuffix(" 200"))  # which inference-sdk asks without its key
    assert (name["name"], name["version"]) == ("parallel-infer", "not told without a key")
    with_key = json.loads(status(f"/info?api_key={guarded.token}").removesuffix(" 200"))
    assert with_key["version"] == metadata.version("parallel-infer")
    assert status("/info?api_key=wrong").endswith(" 401")
    for path in ("/v2", "/openapi.json", "/docs", "/metrics", "/v2/models/detector"):
        assert status(path).endswith(" 401")
