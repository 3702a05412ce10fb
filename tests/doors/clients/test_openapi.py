"""What /openapi.json says is what the server does: a client made from the document gets what it was promised."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from parallel_infer.doors.http.reference.document import document
from tests.doors.clients.conftest import Doors

pytestmark = pytest.mark.clients
DOCUMENT = document("", keys=False)
READS = sorted(path for path, methods in DOCUMENT["paths"].items() if "get" in methods)
JSON = "application/json"


def ask(doors: Doors, path: str, body: bytes | None = None, method: str | None = None, **headers: str) -> Any:
    """Status, headers and body."""
    request = urllib.request.Request(f"http://{doors.http}{path}", body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def conforms(path: str, method: str, status: int, kind: str, body: bytes) -> None:
    """Whether the document promised this answer."""
    responses = DOCUMENT["paths"][path][method]["responses"]
    response = responses[str(status)]
    if "$ref" in response:
        response = DOCUMENT["components"]["responses"][response["$ref"].rpartition("/")[2]]
    schema = response["content"][kind.partition(";")[0]]["schema"]
    if kind == JSON:
        whole = {**schema, "components": DOCUMENT["components"]}
        jsonschema.Draft202012Validator(whole).validate(json.loads(body))


@pytest.mark.parametrize("path", READS)
def test_whatever_can_be_read(doors: Doors, path: str) -> None:
    filled = path.format(model="detector", version="1")
    status, headers, body = ask(doors, filled)
    assert status == 200
    conforms(path, "get", status, headers["Content-Type"], body)
    status, also, nothing = ask(doors, filled, method="HEAD")
    assert (status, nothing, also["Content-Type"]) == (200, b"", headers["Content-Type"])


@pytest.mark.parametrize("name", ["coffee.png", "astronaut.png"])
@pytest.mark.parametrize("model", ["detector", "segmenter", "pose", "classifier"])
def test_answers_about_pictures(doors: Doors, pictures: Path, model: str, name: str) -> None:
    picture = (pictures / name).read_bytes()
    status, headers, body = ask(doors, f"/infer/{model}?confidence=0.3", picture, **{"Content-Type": "image/png"})
    assert status == 200
    conforms("/infer/{model}", "post", status, headers["Content-Type"], body)


def test_answers_of_roboflows_api_and_of_the_protocol(doors: Doors, pictures: Path) -> None:
    encoded = base64.b64encode((pictures / "coffee.png").read_bytes()).decode()
    image = {"type": "base64", "value": encoded}
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1, 1], "data": [encoded]}
    for path, filled, sent in (
        ("/infer/object_detection", "", {"model_id": "coco/3", "image": [image]}),
        ("/v2/models/{model}/infer", "/v2/models/detector.picture/infer", {"inputs": [tensor], "id": "1"}),
        ("/v2/repository/index", "", {}),
        ("/model/add", "", {"model_id": "coco/3"}),
    ):
        operation = DOCUMENT["paths"][path]["post"]
        if "requestBody" in operation:
            schema = operation["requestBody"]["content"][JSON]["schema"]
            jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(sent)
        status, headers, body = ask(doors, filled or path, json.dumps(sent).encode())
        assert status == 200, body
        conforms(path, "post", status, headers["Content-Type"], body)


def test_refusals(doors: Doors) -> None:
    for path, filled, body, status in (
        ("/infer/{model}", "/infer/nobody", b"x", 404),
        ("/infer/{model}", "/infer/detector", b"no picture", 400),
        ("/v2/models/{model}/infer", "/v2/models/detector/infer", b"{", 400),
        ("/{project}/{number}", "/coco/3", b"!", 400),
    ):
        found, headers, answer = ask(doors, filled, body)
        assert found == status
        conforms(path, "post", status, headers["Content-Type"], answer)


def test_the_first_page_has_a_head(doors: Doors) -> None:
    status, headers, body = ask(doors, "/", method="HEAD")
    assert (status, headers["Content-Type"].partition(";")[0], body) == (200, "text/html", b"")


def test_the_page_may_not_run_or_fetch_anything(doors: Doors) -> None:
    _, headers, body = ask(doors, "/docs")
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert b"/infer/{model}" in body
