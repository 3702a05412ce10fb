"""The shipped models give their reference answers from pictures that went through decoding and preprocessing."""

from __future__ import annotations

import ast

import cv2
import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest

from stages.pictures import Decoder, PictureLimits
from stages.preprocess import Preprocess, Preprocessor
from stages.recognise import describe

NAMES = ["astronaut.png", "chelsea.png", "coffee.png"]


def session_of(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def run(zoo, pictures):
    """A model on a picture: its first output, the geometry, and the class names."""
    sessions = {}

    def run(model, preprocess, picture):
        if model not in sessions:
            properties = onnx.load(zoo / model, load_external_data=False).metadata_props
            names = next(entry.value for entry in properties if entry.key == "names")
            sessions[model] = session_of(zoo / model), ast.literal_eval(names)
        session, names = sessions[model]
        preprocessor = Preprocessor(preprocess, "float32", "nchw")
        rows = np.empty((1, *preprocessor.shape), np.float32)
        frame, geometry = Decoder(PictureLimits()).decode((pictures / picture).read_bytes())
        geometry = preprocessor.write(frame, rows[0], geometry)
        return session.run(None, {preprocess.input: rows})[0][0], geometry, names

    return run


@pytest.mark.parametrize("picture", NAMES)
def test_detector(run, expected, picture):
    """Every expected box is among the predictions, with its class and score, in pixels of the picture."""
    output, geometry, names = run(
        "detector.onnx", Preprocess(input="images", width=416, height=416, resize="stretch"), picture
    )
    assert [geometry.width, geometry.height] == expected[picture]["size"]
    centre, half, scores = output[:2].T, output[2:4].T / 2, output[4:]
    boxes = geometry.boxes_to_frame(np.hstack([centre - half, centre + half]))
    for found in expected[picture]["detect"]:
        number = next(number for number, name in names.items() if name == found["name"])
        likely = np.abs(scores[number] - found["score"]) <= 0.005
        assert np.abs(boxes[likely] - found["xyxy"]).max(axis=1).min() <= 0.1


def top_of_classifier(zoo, frame, **changes):
    """The classifier's best three classes with their scores, prepared as its file says, with some `changes`."""
    spec = describe("classifier", zoo / "classifier.onnx")
    preprocess = msgspec.structs.replace(msgspec.convert(spec.preprocess, Preprocess), **changes)
    preprocessor = Preprocessor(preprocess, "float32", "nchw")
    rows = np.empty((1, *preprocessor.shape), np.float32)
    preprocessor.write(frame, rows[0])
    scores = session_of(zoo / "classifier.onnx").run(None, {preprocess.input: rows})[0][0]
    return [(spec.names[number], float(scores[number])) for number in np.argsort(scores)[::-1][:3]]


@pytest.mark.parametrize("picture", NAMES)
def test_the_filter_of_the_classifier_changes_little_about_photographs(zoo, pictures, expected, picture):
    frame, _ = Decoder(PictureLimits()).decode((pictures / picture).read_bytes())
    found, known = top_of_classifier(zoo, frame), expected[picture]["classify"]
    assert [name for name, _ in found] == [name for name, _ in known]
    assert max(abs(score - other) for (_, score), (_, other) in zip(found, known, strict=True)) <= 0.03


def printed(frame, factor):
    """The picture as a newspaper prints it: enlarged, with dots of an ordered pattern (Bayer, 4 x 4) for gray."""
    gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    gray = cv2.resize(gray, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    bayer = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]])
    thresholds = np.tile((bayer + 0.5) * 16, (gray.shape[0] // 4 + 1, gray.shape[1] // 4 + 1))
    dots = np.where(gray > thresholds[: gray.shape[0], : gray.shape[1]], 255, 0).astype(np.uint8)
    return np.dstack([dots] * 3)


def test_a_fine_pattern_is_averaged_as_the_makers_do(zoo, pictures):
    """Without antialiasing the dots themselves are seen, as a window screen."""
    frame, _ = Decoder(PictureLimits()).decode((pictures / "chelsea.png").read_bytes())
    name, score = top_of_classifier(zoo, printed(frame, 3))[0]
    assert name == "Egyptian Mau"
    assert 0.45 < score < 0.6
    assert top_of_classifier(zoo, printed(frame, 3), filter="linear")[0][0] == "window screen"


@pytest.mark.parametrize("picture", NAMES)
def test_classifier(run, expected, picture):
    """The centre square of 7/8 of the shorter side, resized: this reading of `crop` reproduces the numbers."""
    preprocess = Preprocess(
        input="images",
        width=224,
        height=224,
        resize="crop",
        crop_fraction=0.875,
        mean=(127.0, 127.0, 127.0),
        std=(128.0, 128.0, 128.0),
    )
    scores, _, names = run("classifier.onnx", preprocess, picture)
    best = np.argsort(scores)[::-1][:3]
    assert [names[number] for number in best] == [name for name, _ in expected[picture]["classify"]]
    assert np.abs(scores[best] - [score for _, score in expected[picture]["classify"]]).max() <= 0.001
