"""A client that does what Frigate's ZeroMQ detector plugin does, frame by frame."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import zmq

from tests.docs.pages import Page
from tests.doors.clients.conftest import Doors

pytestmark = pytest.mark.clients
_MOST_LATE = 50
NOTHING = np.zeros((20, 6), np.float32)


class Plugin:
    """Frigate's side: a REQ socket that is made anew after each request that took too long.

    The order of frames is that of the plugin: availability, upload where the model is not there, inferences. Frigate
    waits 200 ms for an inference and 30 s for a model; how busy this machine is must not decide here, so it is patient.
    """

    def __init__(self, endpoint: str, model: Path, name: str = "", patience: int = 60_000) -> None:
        self._endpoint = endpoint
        self._model = model
        self._name = name or model.name  # the plugin takes the file's
        self._patience = patience  # ms
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] | None = None
        self.resets = -1
        self.late = 0
        self._connect()

    def _connect(self) -> None:
        if self._socket is not None:
            self._socket.close(0)
        self._socket = self._context.socket(zmq.REQ)
        self._socket.rcvtimeo = self._socket.sndtimeo = self._patience
        self._socket.connect(self._endpoint)
        self.resets += 1

    def _ask(self, *frames: bytes) -> list[bytes]:
        assert self._socket is not None
        self._socket.send_multipart(frames)
        return self._socket.recv_multipart()

    def available(self) -> dict[str, Any]:
        (reply,) = self._ask(json.dumps({"model_request": True, "model_name": self._name}).encode())
        return dict(json.loads(reply))

    def upload(self) -> dict[str, Any]:
        header = json.dumps({"model_data": True, "model_name": self._name}).encode()
        (reply,) = self._ask(header, self._model.read_bytes())
        return dict(json.loads(reply))

    def ready(self) -> bool:
        """What the plugin does before its first inference."""
        said = self.available()
        if said["model_available"]:
            return bool(said["model_loaded"])
        said = self.upload()
        return bool(said["model_saved"] and said["model_loaded"])

    def detect(self, tensor: Any) -> Any:
        header = {"shape": list(tensor.shape), "dtype": tensor.dtype.name, "model_type": "yologeneric"}
        try:
            frames = self._ask(json.dumps(header).encode(), tensor.tobytes(order="C"))
        except zmq.Again:
            self._connect()
            return NOTHING
        said = json.loads(frames[0])
        assert len(frames) == 2
        if said.get("error", "").startswith("DEADLINE_EXCEEDED") and self.late < _MOST_LATE:
            self.late += 1  # of a busy machine; Frigate goes on with the next frame
            return self.detect(tensor)
        return np.frombuffer(frames[1], np.dtype(said["dtype"])).reshape(said["shape"])

    def close(self) -> None:
        assert self._socket is not None
        self._socket.close(0)
        self._context.term()


@pytest.fixture
def plugin(doors: Doors, zoo: Path) -> Iterator[Plugin]:
    found = Plugin(doors.frigate, zoo / "detector.onnx")
    yield found
    found.close()


def tensors(picture: Path) -> dict[str, Any]:
    """A picture as Frigate prepares it under each of its input_dtype: float, float_denorm, int."""
    rgb = cv2.cvtColor(cv2.resize(cv2.imread(str(picture)), (416, 416)), cv2.COLOR_BGR2RGB)
    planes = np.ascontiguousarray(rgb.transpose(2, 0, 1)[None])
    return {"float": planes.astype(np.float32) / 255, "float_denorm": planes.astype(np.float32), "int": rgb[None]}


@pytest.mark.parametrize("dtype", ["float", "float_denorm", "int"])
def test_the_plugin_at_work(plugin: Plugin, pictures: Path, dtype: str) -> None:
    assert plugin.ready()
    for _ in range(2):
        rows = plugin.detect(tensors(pictures / "coffee.png")[dtype])
        assert rows.shape == (20, 6)
        kind, score, top, left, bottom, right = rows[0].tolist()
        assert kind == 41  # a cup
        assert 0.4 <= score <= 1
        assert 0 <= top < bottom <= 1
        assert 0 <= left < right <= 1
        assert rows[:, 1].tolist() == sorted(rows[:, 1].tolist(), reverse=True)
    assert plugin.resets == 0


def test_a_plugin_that_lost_patience_comes_back(doors: Doors, zoo: Path, pictures: Path) -> None:
    plugin = Plugin(doors.frigate, zoo / "detector.onnx")
    try:
        assert plugin.ready()
        hurried = Plugin(doors.frigate, zoo / "detector.onnx", patience=0)
        try:
            assert hurried.detect(tensors(pictures / "coffee.png")["int"]).tolist() == NOTHING.tolist()
            assert hurried.resets == 1
        finally:
            hurried.close()
        assert plugin.ready()  # asked again and again, it is the same
        assert plugin.detect(tensors(pictures / "coffee.png")["int"])[0, 0] == 41
    finally:
        plugin.close()


def test_a_model_that_is_no_detector_or_not_there(doors: Doors, zoo: Path) -> None:
    for name in ("classifier.onnx", "nobody.onnx"):
        plugin = Plugin(doors.frigate, zoo / name)
        try:
            assert plugin.available() == {"model_available": False, "model_loaded": False}
        finally:
            plugin.close()


def test_the_configuration_in_the_documents_is_of_a_model_that_is_served(plugin: Plugin) -> None:
    (text,) = Page.read("docs/frigate.md").section("Frigate").blocks("yaml")
    fields = dict(re.findall(r"^\s+(\w+): (\S+)$", text, re.MULTILINE))
    assert fields["type"] == "zmq"
    assert Path(fields["path"]).name == "detector.onnx"
    shape = (1, 3, int(fields["height"]), int(fields["width"]))
    assert (fields["input_tensor"], fields["input_dtype"]) == ("nchw", "float")
    assert plugin.ready()
    assert plugin.detect(np.zeros(shape, np.float32)).tolist() == NOTHING.tolist()
    (start,) = Page.read("docs/clients.md").section("Frigate").blocks("yaml")
    assert fields["endpoint"] in start
