"""Models that Frigate uploads: checked, bounded, served like others, and refused by name where they are not taken."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest

from tests.doors.clients.conftest import Doors
from tests.doors.clients.test_frigate import Plugin, tensors

pytestmark = pytest.mark.clients


def upload(doors: Doors, model: Path, name: str = "") -> dict[str, object]:
    plugin = Plugin(doors.frigate, model, name)
    try:
        return plugin.upload()
    finally:
        plugin.close()


def refusal(doors: Doors, model: Path, name: str = "") -> str:
    said = upload(doors, model, name)
    assert (said["model_saved"], said["model_loaded"]) == (False, False)
    return str(said["message"])


def unload(doors: Doors, name: str) -> None:
    with doors.server.client() as client:
        client.unload(name)


def test_a_model_that_is_not_there_is_uploaded_and_works(
    doors: Doors, zoo: Path, pictures: Path, tmp_path: Path
) -> None:
    model = tmp_path / "from-frigate.onnx"
    shutil.copy(zoo / "detector.onnx", model)
    plugin = Plugin(doors.frigate, model)
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
    assert "another model 'from-frigate' is served" in refusal(doors, model)
    second = tmp_path / "second.onnx"
    shutil.copy(zoo / "detector.onnx", second)
    assert "RESOURCE_UNAVAILABLE: 1 uploaded models are served, from-frigate;" in refusal(doors, second)
    assert "frigate_uploads" in refusal(doors, second)
    unload(doors, "from-frigate")


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_what_is_refused(doors: Doors, zoo: Path, tmp_path: Path) -> None:
    assert "MODEL_REJECTED" in refusal(doors, write(tmp_path / "garbage.onnx", b"no model"))
    assert "1 to 8388608 are taken (option frigate_upload_mb)" in refusal(
        doors, write(tmp_path / "large.onnx", bytes(9 << 20))
    )
    assert "the model has 0 bytes" in refusal(doors, write(tmp_path / "empty.onnx", b""))
    for name in ("model.tflite", "a b.onnx", "..onnx", "x@file.onnx", "-o.onnx", "../../elsewhere.onnx", "/tmp/x.onnx"):
        assert "letters, digits" in refusal(doors, zoo / "detector.onnx", name)
    detector = (zoo / "detector.onnx").read_bytes()
    assert "another model 'classifier' is served" in refusal(doors, write(tmp_path / "classifier.onnx", detector))
    small = onnx.load(zoo / "detector.onnx")
    outside = write(tmp_path / "outside.onnx", b"")
    onnx.save(small, outside, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert "weights.bin" in refusal(doors, outside)
    assert doors.server.process.poll() is None


def test_a_model_that_is_no_detector_is_not_kept(doors: Doors, tmp_path: Path) -> None:
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 4])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "numbers.onnx")
    assert "numbers.onnx is no detector (its task is tensor)" in refusal(doors, tmp_path / "numbers.onnx")
    with doors.server.client() as client:
        assert "numbers" not in [found["name"] for found in client.models()]
