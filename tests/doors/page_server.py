"""A server with the page, and a model of each task."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import zmq

from tests.engine.serving import Server, free_port, running, short_folder
from tests.families.tiny_graphs import CELLS, tiny, zeros

VIEWERS = 4
EVIL = "<img src=x onerror=\"document.title='broken'\">"
SERVER = """
bind = ["ipc://{folder}/door"]
http = ["{http}"]
page_viewers = 4
threads = 1
alone_threads = 1
max_batch_size = 1
decode_workers = 1
postprocess_workers = 1
shared_memory_mb = 64
max_payload_mb = 8
[models.detector]
path = "zoo:detector"
[models.classifier]
path = "zoo:classifier"
"""


def model(outputs: dict[str, Any], path: Path, **metadata: str) -> str:
    path.write_bytes(tiny(outputs, metadata=metadata).SerializeToString())
    return str(path)


def small_models(folder: Path) -> dict[str, str]:
    """A model of each task that the zoo does not have, which says the same of every picture; one has an evil name."""
    halves = np.full((3, 16, 16), -1, np.float32)
    halves[0, :, :8] = halves[2, :, 8:] = 1
    turned = zeros(4 + 2 + 1, CELLS)
    turned[:, 5] = [32, 32, 30, 10, 0.1, 0.9, 0.5]  # centre, size, two classes, angle
    line = np.full((5, 3), 0.05, np.float32)
    line[[0, 1, 2, 3, 4], [1, 1, 0, 2, 0]] = 0.9
    names = repr({0: "sky", 1: "road", 2: "<b>car</b>"})
    return {
        "classes": model({"logits": halves}, folder / "classes.onnx", names=names),
        "depth": model({"depth": np.linspace(0, 1, 4096, dtype=np.float32).reshape(64, 64)}, folder / "depth.onnx"),
        "turned": model(
            {"output0": turned}, folder / "turned.onnx", task="obb", names="{0: 'ship', 1: 'plane'}", imgsz="[64, 64]"
        ),
        "reader": model({"output": line}, folder / "reader.onnx", character="o\nk"),
        EVIL: model({"image_embeds": np.arange(1, 9, dtype=np.float32)}, folder / "evil.onnx"),
    }


class Served(NamedTuple):
    server: Server
    address: str

    def camera(self, name: str, jpeg: bytes) -> Any:
        """One frame as imagezmq's senders send it; the reply."""
        with zmq.Context() as context, context.socket(zmq.REQ) as socket:
            socket.linger = 0
            socket.rcvtimeo = 60_000
            socket.connect(f"ipc://{self.server.folder}/cameras")
            socket.send_multipart([json.dumps({"msg": name}).encode(), jpeg])
            return json.loads(socket.recv())

    def infer(self, name: str, picture: Path, query: str = "") -> Any:
        request = urllib.request.Request(f"{self.address}/infer/{quote(name)}?{query}", data=picture.read_bytes())
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


@contextlib.contextmanager
def serving(toml: str, port: int, *arguments: str) -> Iterator[Served]:
    folder = short_folder()
    (folder / "server.toml").write_text(toml.format(folder=folder, http=f"127.0.0.1:{port}"))
    with running(Server(folder, "--config", str(folder / "server.toml"), *arguments)) as server:
        yield Served(server, f"http://127.0.0.1:{port}")


@contextlib.contextmanager
def serving_every_task(folder: Path) -> Iterator[Served]:
    """A server of the zoo and the small models, which are written into `folder`."""
    cameras = 'imagezmq_bind = ["ipc://{folder}/cameras"]\n'
    more = "[models.segmenter]\npath = 'zoo:segmenter'\n[models.pose]\npath = 'zoo:pose'\n"
    more += "[chain]\nkinds = 'detector(class_filter=cup) > classifier(top=1)'\n"
    for name, path in small_models(folder).items():
        more += f"[models.{json.dumps(name)}]\npath = {json.dumps(path)}\n"
    with serving(cameras + SERVER + more.replace("{", "{{").replace("}", "}}"), free_port()) as found:
        yield found
