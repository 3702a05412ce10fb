"""The shipped models give their reference answers from pictures that went through decoding and preprocessing."""

from __future__ import annotations

import ast

import numpy as np
import onnx
import onnxruntime
import pytest

from stages.pictures import Decoder, PictureLimits
from stages.preprocess import Preprocess, Preprocessor

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
