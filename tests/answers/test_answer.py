"""Answers: from the wire, as arrays with their meaning, and as the map that other tools read."""

from __future__ import annotations

import subprocess
import sys
import uuid

import msgspec
import numpy as np
import pytest
import supervision

from parallel_infer.answers.answer import Answer, rotated_corners
from parallel_infer.errors import InferError
from parallel_infer.protocol import Answer as WireAnswer
from parallel_infer.protocol import AnswerBody, Tensor

NAMES = {0: "person", 16: "dog"}
BOXES = np.array([[10, 20, 30, 60], [0, 0, 100, 80]], np.float32)
OBJECTS = {"boxes": BOXES, "scores": np.array([0.9, 0.5], np.float32), "classes": np.array([16, 0], np.int64)}
SQUARE = np.array([[0, 0], [10, 0], [10, 10], [0, 10]], np.float32)


def wire(task, arrays, **facts):
    """An answer as it comes over the wire."""
    tensors = tuple(Tensor(name, array.dtype.name, array.shape) for name, array in arrays.items())
    body = AnswerBody(task=task, model="m", width=100, height=80, names=NAMES, arrays=tensors)
    payload = b"".join(array.tobytes() for array in arrays.values())
    return WireAnswer(id=1, answer=msgspec.Raw(msgspec.msgpack.encode(body)), **facts), payload


def answer(task, **arrays):
    return Answer.from_wire(*wire(task, arrays, timing={"infer": 0.25, "decode": 0.5}, batch=4))


def test_from_wire():
    found = answer("detect", **OBJECTS)
    assert (found.task, found.model, found.width, found.height, found.batch_size) == ("detect", "m", 100, 80, 4)
    assert found.timing == {"infer": 0.25, "decode": 0.5}
    np.testing.assert_array_equal(found.boxes, BOXES)
    assert (found.boxes.dtype, found.scores.dtype, found.classes.dtype) == (np.float32, np.float32, np.int64)
    assert found.names == ["dog", "person"]
    assert (found.masks, found.rle, found.keypoints, found.angles, found.top) == (None, None, None, None, None)
    assert (len(found), bool(found), found.tensors) == (2, True, {})


def test_arrays_are_views_of_the_payload():
    header, payload = wire("detect", OBJECTS)
    memory = np.frombuffer(bytearray(payload), np.uint8)
    found = Answer.from_wire(header, memory.data)
    assert np.shares_memory(found.boxes, memory)
    assert np.shares_memory(found.classes, memory)


def test_nothing_found():
    found = answer("detect", boxes=BOXES[:0], scores=OBJECTS["scores"][:0], classes=OBJECTS["classes"][:0])
    assert (len(found), found.boxes.shape, found.names, bool(found)) == (0, (0, 4), [], True)
    assert found.to_dict()["predictions"] == []
    assert len(supervision.Detections.from_inference(found.to_dict())) == 0


@pytest.mark.parametrize(
    "tensor", [Tensor("a", "float32", (100,)), Tensor("a", "object", (1,)), Tensor("a", "no type", (1,))]
)
def test_reply_that_does_not_fit(tensor):
    body = AnswerBody(task="tensor", model="m", arrays=(tensor,))
    with pytest.raises(InferError, match="cannot be read"):
        Answer.from_wire(WireAnswer(id=1, answer=msgspec.Raw(msgspec.msgpack.encode(body))), b"12345678")


def test_detections_as_a_map():
    result = answer("detect", **OBJECTS).to_dict()
    assert result["image"] == {"width": 100, "height": 80}
    assert result["time"] == 0.75
    assert set(result) == {"inference_id", "time", "image", "predictions"}
    first = result["predictions"][0]
    identifiers = {result["inference_id"], *(found.pop("detection_id") for found in result["predictions"])}
    assert len(identifiers) == 3
    assert {uuid.UUID(identifier).version for identifier in identifiers} == {4}
    assert first.pop("confidence") == pytest.approx(0.9)
    assert first == {"x": 20.0, "y": 40.0, "width": 20.0, "height": 40.0, "class": "dog", "class_id": 16}


def test_supervision_reads_detections():
    read = supervision.Detections.from_inference(answer("detect", **OBJECTS).to_dict())
    np.testing.assert_allclose(read.xyxy, BOXES)
    np.testing.assert_allclose(read.confidence, [0.9, 0.5], rtol=1e-6)
    assert read.class_id.tolist() == [16, 0]
    assert read.data["class_name"].tolist() == ["dog", "person"]


def segments(rings, objects):
    sizes = np.array([len(ring) for ring in rings], np.int32)
    points = np.concatenate(rings) if rings else np.zeros((0, 2), np.float32)
    return {"mask_points": points, "mask_rings": sizes, "mask_objects": np.array(objects, np.int32)}


def test_masks_are_polygons_by_area():
    found = answer("segment", **OBJECTS, **segments([SQUARE, 5 * SQUARE, 2 * SQUARE], [2, 1]))
    assert [[ring.max() for ring in rings] for rings in found.masks] == [[50, 10], [20]]
    read = supervision.Detections.from_inference(found.to_dict())
    assert read.mask.shape == (2, 80, 100)
    assert read.mask[1].sum() == pytest.approx(20 * 20, rel=0.15)
    assert found.to_dict()["predictions"][0]["mask_format"] == "polygon"


@pytest.mark.parametrize("rings", [([SQUARE], [1, 0]), ([SQUARE, SQUARE[:2]], [1, 1])])
def test_object_without_a_mask_has_no_points(rings):
    predictions = answer("segment", **OBJECTS, **segments(*rings)).to_dict()["predictions"]
    assert ["points" in prediction for prediction in predictions] == [True, False]


def test_masks_as_run_lengths():
    masks = np.zeros((2, 80, 100), bool)
    masks[0, 10:20, 30:50] = masks[1, 5:70, 1:2] = True
    counts = [supervision.mask_to_rle(mask, compressed=True).encode() for mask in masks]
    arrays = {
        "mask_rle": np.frombuffer(b"".join(counts), np.uint8),
        "mask_rle_sizes": np.array([len(count) for count in counts], np.int32),
    }
    found = answer("segment", **OBJECTS, **arrays)
    assert found.rle[0] == {"size": [80, 100], "counts": counts[0].decode()}
    np.testing.assert_array_equal(supervision.Detections.from_inference(found.to_dict()).mask, masks)


def test_supervision_reads_keypoints():
    keypoints = np.random.default_rng(0).random((2, 17, 3), np.float32)
    found = answer("keypoints", **OBJECTS, keypoints=keypoints)
    result = found.to_dict()
    assert [point["class"] for point in result["predictions"][0]["keypoints"]][5] == "left_shoulder"
    read = supervision.KeyPoints.from_inference(result)
    np.testing.assert_allclose(read.xy, keypoints[:, :, :2], rtol=1e-6)
    np.testing.assert_allclose(read.keypoint_confidence, keypoints[:, :, 2], rtol=1e-6)


def test_keypoints_of_another_skeleton_have_numbers():
    result = answer("keypoints", **OBJECTS, keypoints=np.ones((2, 3, 3), np.float32)).to_dict()
    assert [point["class"] for point in result["predictions"][0]["keypoints"]] == ["0", "1", "2"]


def test_rotated_boxes():
    angles = np.array([np.pi / 2, 0], np.float32)
    found = answer("obb", **OBJECTS, angles=angles)
    first = found.to_dict()["predictions"][0]
    assert first["rotation"] == pytest.approx(np.pi / 2)
    assert (first["width"], first["height"]) == (20, 40)
    corners = {(round(point["x"], 3), round(point["y"], 3)) for point in first["points"]}
    assert corners == {(0, 30), (40, 30), (40, 50), (0, 50)}  # turned by a quarter, 40 wide and 20 high
    assert found.corners.shape == (2, 4, 2)


def test_rotated_corners_are_a_rectangle_in_order():
    corners = rotated_corners(np.array([[0, 0, 6, 2]], np.float32), np.array([0.3], np.float32))[0]
    sides = np.linalg.norm(corners - np.roll(corners, -1, 0), axis=1)
    assert sorted(sides.round(4).tolist()) == [2, 2, 6, 6]
    assert sides[0] == pytest.approx(sides[2])
    down = (corners[0] + corners[1] - corners[2] - corners[3]) / 2
    assert np.degrees(np.arctan2(down[1], down[0])) == pytest.approx(np.degrees(0.3), abs=1e-3)


def test_classification():
    found = answer("classify", scores=OBJECTS["scores"], classes=OBJECTS["classes"])
    assert found.top == "dog"
    result = found.to_dict()
    assert [row["class"] for row in result["predictions"]] == ["dog", "person"]
    assert (result["top"], result["confidence"]) == ("dog", pytest.approx(0.9))


def test_classification_of_nothing():
    found = answer("classify", scores=OBJECTS["scores"][:0], classes=OBJECTS["classes"][:0])
    assert found.top is None
    assert (found.to_dict()["top"], found.to_dict()["confidence"]) == ("", 0.0)


def test_multi_label():
    several = np.array([1], np.uint8)
    result = answer("classify", scores=OBJECTS["scores"], classes=OBJECTS["classes"], multi_label=several).to_dict()
    assert result["predicted_classes"] == ["dog", "person"]
    assert result["predictions"]["dog"] == {"confidence": pytest.approx(0.9), "class_id": 16}
    assert "top" not in result


def test_tensors():
    found = answer("tensor", scores=np.arange(4, dtype=np.int32), other=np.ones((2, 2), np.float16))
    assert set(found.tensors) == {"scores", "other"}
    assert (len(found), found.boxes.shape) == (0, (0, 4))
    assert found.to_dict()["outputs"] == {"scores": [0, 1, 2, 3], "other": [[1, 1], [1, 1]]}


def test_class_without_a_name_is_its_number():
    assert answer("detect", **OBJECTS | {"classes": np.array([3, 0])}).names == ["3", "person"]


def test_maps_are_plain():
    """Every map goes over JSON and MessagePack as it is."""
    masks = segments([SQUARE, SQUARE], [1, 1])
    found = answer("segment", **OBJECTS, **masks, angles=np.zeros(2, np.float32), keypoints=np.ones((2, 2, 3), "f4"))
    assert msgspec.json.decode(msgspec.json.encode(found.to_dict()))["image"] == {"width": 100, "height": 80}


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("parallel_infer", ("zmq", "numpy", "onnxruntime", "cv2")),
        ("parallel_infer.answers.answer", ("zmq", "onnxruntime", "cv2")),
        ("parallel_infer.client", ("onnxruntime", "onnx", "cv2")),
    ],
)
def test_imports_stay_cheap(module, absent):
    check = f"import sys, {module}; print([name for name in {absent!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_public_names():
    import parallel_infer

    assert parallel_infer.Answer is Answer
    assert set(parallel_infer.__all__) <= set(dir(parallel_infer))
    with pytest.raises(AttributeError, match="Nothing"):
        parallel_infer.Nothing  # noqa: B018
