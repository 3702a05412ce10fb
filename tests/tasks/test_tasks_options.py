"""What a request may ask, what it may not, and what it is told then."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_infer.errors import BadInput, ConfigError
from stages.tasks.classify import Classify
from stages.tasks.detect import Detect
from stages.tasks.options import DetectOptions, SegmentOptions
from stages.tasks.segment import Segment
from stages.tasks.tensor import Tensors
from tests.tasks import samples

DETECT = Detect(samples.spec("detect", "yolov8"))
SEGMENT = Segment(samples.spec("segment", "yolov8", {"masks": np.zeros((2, 4, 4), np.float32)}))
CLASSIFY = Classify(samples.spec("classify", "classifier"))


def test_without_options_the_defaults_hold() -> None:
    assert DETECT.options(b"") == DETECT.options(samples.encode()) == DetectOptions()


def test_the_parameters_of_the_model_are_its_defaults() -> None:
    task = Detect(samples.spec("detect", "yolov8", parameters={"confidence": 0.6, "kpt_shape": [3, 2]}))
    assert task.options(b"").confidence == 0.6
    assert task.options(samples.encode(iou=0.1)).confidence == 0.6
    assert task.options(samples.encode(confidence=0.1)).confidence == 0.1


def test_defaults_out_of_range_are_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"'sample'.*confidence|'sample'.*<= 1"):
        Detect(samples.spec("detect", "yolov8", parameters={"confidence": 7}))


def test_classes_may_be_named_or_numbered() -> None:
    assert DETECT.options(samples.encode(class_filter=["class3", 1])).class_filter == (3, 1)


def test_a_model_without_names_takes_any_number_and_no_name() -> None:
    task = Detect(samples.spec("detect", "yolov8", names=()))
    assert task.options(samples.encode(class_filter=[900])).class_filter == (900,)
    with pytest.raises(BadInput, match="no class names"):
        task.options(samples.encode(class_filter=["cat"]))


def test_every_option_of_segmentation_is_read() -> None:
    given = {
        "decode": "fast",
        "color": "rgb",
        "confidence": 0.5,
        "iou": 0.6,
        "class_filter": [0],
        "max_detections": 3,
        "max_candidates": 4,
        "class_agnostic": True,
        "mask_decode_mode": "tradeoff",
        "tradeoff_factor": 0.7,
        "mask_format": "rle",
    }
    options = SEGMENT.options(samples.encode(**given))
    assert msgspec.structs.asdict(options) == {**given, "class_filter": (0,)}
    assert set(given) == set(SegmentOptions.__struct_fields__)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"confidance": 0.3}, "did you mean 'confidence'"),
        ({"mask_decode_mode": "fast"}, "unknown option 'mask_decode_mode'.*known are decode, color, confidence, iou"),
        ({"confidence": 1.01}, "option confidence: expected a number from 0 to 1"),
        ({"confidence": -0.01}, "option confidence"),
        ({"confidence": float("nan")}, "option confidence"),
        ({"iou": float("inf")}, "option iou"),
        ({"iou": "0.5"}, "option iou.*got a text"),
        ({"max_detections": 0}, "option max_detections"),
        ({"max_detections": 2.5}, "option max_detections"),
        ({"max_candidates": -1}, "option max_candidates"),
        ({"class_agnostic": 1}, "option class_agnostic"),
        ({"class_filter": []}, "option class_filter"),
        ({"class_filter": "class1"}, "option class_filter"),
        ({"class_filter": ["klass1"]}, "no class 'klass1'; did you mean 'class1'"),
        ({"class_filter": ["zebra"]}, "no class 'zebra'$"),
        ({"class_filter": [5]}, "class 5 is not among 0 to 4"),
        ({"class_filter": [-1]}, "option class_filter"),
        ({"class_filter": [None]}, "option class_filter"),
    ],
    ids=str,
)
def test_wrong_options_are_named(wrong: dict[str, Any], told: str) -> None:
    for _ in range(2):  # the error is the same when it comes again
        with pytest.raises(BadInput, match=told):
            DETECT.options(samples.encode(**wrong))


def test_a_wrong_choice_is_told_the_right_ones() -> None:
    with pytest.raises(
        BadInput, match=r"option mask_decode_mode: expected one of accurate, fast, tradeoff, got 'slow'"
    ):
        SEGMENT.options(samples.encode(mask_decode_mode="slow"))


def test_classification_has_options_of_its_own() -> None:
    assert CLASSIFY.options(samples.encode(top=2, confidence=0.5)).top == 2
    with pytest.raises(BadInput, match="known are decode, color, top, confidence"):
        CLASSIFY.options(samples.encode(iou=0.5))


def test_the_tensor_task_takes_no_options() -> None:
    task = Tensors(samples.spec("tensor", "tensor", preprocess={}))
    task.options(samples.encode())
    with pytest.raises(BadInput, match="takes no options"):
        task.options(samples.encode(confidence=0.5))


@pytest.mark.parametrize(
    "encoded",
    [b"\xc1", b"\x81", b"\x80\x80", b"\x90", b"\xc0", b"\x81\x01\x02", b"\x81\xa1\xff\x01", b"\x91" * 5000],
    ids=lambda encoded: encoded[:4].hex(),
)
def test_anything_but_a_map_of_texts_is_refused(encoded: bytes) -> None:
    with pytest.raises(BadInput, match="not a MessagePack map"):
        DETECT.options(encoded)


@given(st.binary(max_size=60))
def test_no_bytes_do_anything_but_be_read_or_refused(encoded: bytes) -> None:
    with contextlib.suppress(BadInput):
        assert isinstance(SEGMENT.options(encoded), SegmentOptions)


def test_repeated_options_are_read_once() -> None:
    encoded = samples.encode(confidence=0.125)
    assert DETECT.options(encoded) is DETECT.options(bytes(bytearray(encoded)))


def test_long_options_are_read_too() -> None:
    encoded = samples.encode(class_filter=["class3"] * 500)
    assert DETECT.options(encoded).class_filter == (3,) * 500


def test_a_long_unknown_name_is_not_repeated_in_full() -> None:
    with pytest.raises(BadInput) as caught:
        DETECT.options(samples.encode(**{"x" * 5000: 1}))
    assert len(str(caught.value)) < 300
