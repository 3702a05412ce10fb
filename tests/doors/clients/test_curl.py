"""curl in the ways in which people use it, and supervision on the answers of `POST /infer/NAME`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import cv2
import pytest

from tests.doors.clients.conftest import Doors

pytestmark = pytest.mark.clients


def curl(*arguments: str, stdin: bytes = b"") -> tuple[int, bytes]:
    """Status and body."""
    ran = subprocess.run(
        ["curl", "-sS", "-w", "\n%{http_code}", *arguments], input=stdin, capture_output=True, check=True
    )
    body, _, status = ran.stdout.rpartition(b"\n")
    return int(status), body


def classes(answer: tuple[int, bytes]) -> list[str]:
    assert answer[0] == 200, answer
    return [found["class"] for found in json.loads(answer[1])["predictions"]]


@pytest.fixture(scope="module")
def large(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of more than 2 MB, for which curl asks with Expect: 100-continue before it sends."""
    path = tmp_path_factory.mktemp("curl") / "a; name=b, large.png"
    picture = cv2.resize(cv2.imread(str(pictures / "coffee.png")), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_PNG_COMPRESSION, 0])
    assert path.stat().st_size > 2 << 20
    return path


@pytest.mark.parametrize(
    "how",
    [
        ["--data-binary", "@FILE"],
        ["--data-binary", "@FILE", "-H", "Content-Type: image/png"],
        ["-T", "FILE", "-X", "POST"],
        ["-T", "-", "-X", "POST"],  # chunked
        ["-F", "file=@FILE"],
        ["-F", "file=@FILE;type=image/png;filename=x.png", "-F", "note=hello"],
        ["--compressed", "--data-binary", "@FILE"],
        ["--http1.0", "--data-binary", "@FILE"],
    ],
    ids=" ".join,
)
def test_every_way_to_send_a_picture(doors: Doors, large: Path, how: list[str]) -> None:
    arguments = [word.replace("@FILE", f'@"{large}"' if "-F" in how else f"@{large}") for word in how]
    arguments = [str(large) if word == "FILE" else word for word in arguments]
    stdin = large.read_bytes() if "-" in how else b""
    assert "cup" in classes(curl(*arguments, f"http://{doors.http}/infer/detector?confidence=0.3", stdin=stdin))


def test_json_and_packed_bodies(doors: Doors, pictures: Path, tmp_path: Path) -> None:
    script = f"""
    printf '{{"image": "%s", "confidence": 0.3}}' "$(base64 -w0 {pictures}/coffee.png)" >body.json
    gzip -k body.json
    curl -sS http://{doors.http}/infer/detector -H 'Content-Type: application/json' -d @body.json
    echo
    curl -sS http://{doors.http}/infer/detector -H 'Content-Encoding: gzip' --data-binary @body.json.gz
    """
    ran = subprocess.run(["bash", "-ec", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    for line in ran.stdout.splitlines():
        assert "cup" in [found["class"] for found in json.loads(line)["predictions"]]


def test_refusals(doors: Doors) -> None:
    base = f"http://{doors.http}"
    for arguments, status, words in (
        (["-d", "@/dev/null", f"{base}/infer/detector"], 400, "the body is empty"),
        (["-X", "PUT", "-d", "x", f"{base}/infer/detector"], 405, "PUT is not possible"),
        (["-d", "url=http://127.0.0.1/x.jpg", f"{base}/infer/detector"], 400, "not a picture"),
        (["-F", "nothing=1", f"{base}/infer/detector"], 400, "has no part 'file'"),
        (["--path-as-is", "-d", "x", f"{base}/infer/../../etc/passwd"], 404, ""),
        ([f"{base}/infer/detector"], 405, "GET is not possible"),
    ):
        found, body = curl(*arguments)
        assert (found, words in json.loads(body)["error"]) == (status, True), (arguments, body)


def test_supervision_reads_plain_answers(doors: Doors, pictures: Path) -> None:
    supervision: Any = pytest.importorskip("supervision", reason="supervision is not installed")
    picture = f"@{pictures / 'astronaut.png'}"
    answers = {
        model: json.loads(curl("--data-binary", picture, f"http://{doors.http}/infer/{model}")[1])
        for model in ("detector", "segmenter", "pose")
    }
    boxes = supervision.Detections.from_inference(answers["detector"])
    assert boxes.data["class_name"][0] == "person"
    masks = supervision.Detections.from_inference(answers["segmenter"])
    assert masks.mask.shape == (len(masks), 512, 512)
    assert masks.mask.any()
    points = supervision.KeyPoints.from_inference(answers["pose"])
    assert points.xy.shape == (1, 17, 2)
