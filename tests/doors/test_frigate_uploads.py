"""Models that Frigate uploads: checked, bounded, served like others, and refused by name where they are not taken."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.doors.clients.test_frigate import Plugin, tensors
from tests.engine.serving import Server


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> None:
    """Instead of that of all tests: the shared server is looked at when it has ended."""


def serving(folder: Path, *arguments: str) -> Server:
    return Server(
        folder,
        *("--bind", f"ipc://{folder}/server", "--frigate-bind", f"ipc://{folder}/frigate"),
        *("--model", "classifier=zoo:classifier", *arguments),
    )


@pytest.fixture(scope="module")
def server(_adopt_orphans: None) -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="pi-", dir="/tmp"))
    found = serving(folder, "--frigate-uploads", "1", "--frigate-upload-mb", "8")
    try:
        found.wait_until_ready()
        yield found
        found.check_clean_end()
    finally:
        found.close()
        shutil.rmtree(folder, ignore_errors=True)


def upload(server: Server, model: Path, name: str = "") -> dict[str, object]:
    plugin = Plugin(f"ipc://{server.folder}/frigate", model, name)
    try:
        return plugin.upload()
    finally:
        plugin.close()


def refusal(server: Server, model: Path, name: str = "") -> str:
    said = upload(server, model, name)
    assert (said["model_saved"], said["model_loaded"]) == (False, False)
    return str(said["message"])


def unload(server: Server, name: str) -> None:
    with server.client() as client:
        client.unload(name)


def test_a_model_that_is_not_there_is_uploaded_and_works(
    server: Server, zoo: Path, pictures: Path, tmp_path: Path
) -> None:
    model = tmp_path / "from-frigate.onnx"
    shutil.copy(zoo / "detector.onnx", model)
    plugin = Plugin(f"ipc://{server.folder}/frigate", model)
    try:
        assert plugin.available() == {"model_available": False, "model_loaded": False}
        assert plugin.ready()
        assert plugin.detect(tensors(pictures / "coffee.png")["float"])[0, 0] == 41
        assert plugin.available() == {"model_available": True, "model_loaded": True}
        assert plugin.upload() == {"model_saved": True, "model_loaded": True}  # the same once more
    finally:
        plugin.close()
    changed = onnx.load(model)
    changed.doc_string = "another"
    onnx.save(changed, model)
    assert "another model 'from-frigate' is served" in refusal(server, model)
    second = tmp_path / "second.onnx"
    shutil.copy(zoo / "detector.onnx", second)
    assert "RESOURCE_UNAVAILABLE: 1 uploaded models are served, from-frigate;" in refusal(server, second)
    assert "frigate_uploads" in refusal(server, second)
    unload(server, "from-frigate")
    assert upload(server, second)["model_loaded"] is True
    unload(server, "second")


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_what_is_refused(server: Server, zoo: Path, tmp_path: Path) -> None:
    assert "MODEL_REJECTED" in refusal(server, write(tmp_path / "garbage.onnx", b"no model"))
    assert "1 to 8388608 are taken (option frigate_upload_mb)" in refusal(
        server, write(tmp_path / "large.onnx", bytes(9 << 20))
    )
    assert "the model has 0 bytes" in refusal(server, write(tmp_path / "empty.onnx", b""))
    for name in ("model.tflite", "a b.onnx", "..onnx", "x@file.onnx", "-o.onnx", "../../elsewhere.onnx", "/tmp/x.onnx"):
        assert "letters, digits" in refusal(server, zoo / "detector.onnx", name)
    detector = (zoo / "detector.onnx").read_bytes()
    assert "another model 'classifier' is served" in refusal(server, write(tmp_path / "classifier.onnx", detector))
    small = onnx.load(zoo / "detector.onnx")
    outside = write(tmp_path / "outside.onnx", b"")
    onnx.save(small, outside, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert "weights.bin" in refusal(server, outside)
    assert server.process.poll() is None


def test_a_model_that_is_no_detector_is_not_kept(server: Server, tmp_path: Path) -> None:
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 4])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "numbers.onnx")
    assert "numbers.onnx is no detector (its task is tensor)" in refusal(server, tmp_path / "numbers.onnx")
    with server.client() as client:
        assert [found["name"] for found in client.models()] == ["classifier"]


def test_nothing_is_taken_unasked(tmp_path: Path, zoo: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="pi-", dir="/tmp"))
    server = serving(folder)
    try:
        server.wait_until_ready()
        assert "frigate_uploads" in refusal(server, write(tmp_path / "new.onnx", b"x"))
        server.check_clean_end()
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)


def test_rows_of_nothing_are_zeros(server: Server) -> None:
    plugin = Plugin(f"ipc://{server.folder}/frigate", Path("nobody.onnx"))
    try:
        assert not plugin.detect(np.zeros((1, 3, 32, 32), np.float32)).any()
    finally:
        plugin.close()
