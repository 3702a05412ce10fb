"""Antialiased resizing against Pillow's own (the reference of torchvision and of most classifiers)."""

from __future__ import annotations

import math
import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.preprocess import Preprocess, Preprocessor
from stages.resample import Resampler, Span
from tests.pictures.picture_samples import photo

METHODS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def halftone(width, height):
    """Black and white dots of a fine pattern: whoever skips pixels sees another one."""
    y, x = np.mgrid[:height, :width]
    pattern = np.where((x * 5 + y * 3) % 7 < 2 + 3 * x / width, 255, 0).astype(np.uint8)
    return np.dstack([pattern, pattern // 2, 255 - pattern])


def written(frame, **wishes):
    preprocess = Preprocess(input="images", color="bgr", **wishes)
    preprocessor = Preprocessor(preprocess, "uint8", "nhwc")
    row = np.full(preprocessor.shape, 99, np.uint8)
    return row, preprocessor.write(frame, row)


def theirs(frame, size, method):
    """Across first, then down, as Pillow does: newer releases turn that round for a few shapes."""
    narrow = Image.fromarray(frame).resize((size[0], frame.shape[0]), METHODS[method])
    return np.asarray(narrow.resize(size, METHODS[method]))


def assert_same(row, reference, given=math.inf):
    """Pillow's grey levels; one beside them where a sum is half a level and only its exact order tells.

    Of few values, `given` or made, one such sum is more than a hundredth: a line that grows is repeated with it.
    """
    gaps = np.abs(row.astype(int) - reference)
    assert gaps.max() <= 1
    assert gaps.mean() <= 0.01 or min(gaps.size, given) < 1000


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", [photo, halftone])
@pytest.mark.parametrize("size", [(224, 224), (320, 160), (33, 57), (1, 1)])
@pytest.mark.parametrize("picture", [(1280, 720), (451, 300), (97, 640), (20, 15), (3000, 9), (9, 6000), (1, 1)])
def test_stretched_as_pillow_does(method, make, size, picture):
    frame = make(*picture)
    row, geometry = written(frame, width=size[0], height=size[1], resize="stretch", filter=method)
    assert_same(row, theirs(frame, size, method))
    assert geometry == (*picture, size[0] / picture[0], size[1] / picture[1], 0.0, 0.0)


def cropped_after(frame, side, fraction, method):
    """torchvision's Resize and CenterCrop, on a picture: their integers, written plainly."""
    height, width = frame.shape[:2]
    short = math.floor(side / fraction)
    size = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    return theirs(frame, size, method)[top : top + side, left : left + side], size, (left, top)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", [photo, halftone])
@pytest.mark.parametrize(("side", "fraction"), [(224, 0.875), (224, 1.0), (299, 0.9), (64, 0.5)])
@pytest.mark.parametrize("picture", [(1280, 720), (451, 300), (300, 452), (250, 250), (101, 640)])
def test_cropped_as_torchvision_does(method, make, side, fraction, picture):
    frame = make(*picture)
    row, geometry = written(frame, width=side, height=side, resize="crop", crop_fraction=fraction, filter=method)
    reference, size, start = cropped_after(frame, side, fraction, method)
    assert_same(row, reference)
    corner = geometry.points_to_frame(np.zeros((1, 2), np.float32))[0]
    np.testing.assert_allclose(corner, np.array(start) * picture / np.array(size), atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_letterboxed_with_antialiasing(method):
    row, _ = written(halftone(640, 320), width=160, height=160, resize="letterbox", filter=method, pad=7)
    assert_same(row[40:120], theirs(halftone(640, 320), (160, 80), method))
    assert (row[:40] == 7).all()
    assert (row[120:] == 7).all()


@pytest.mark.parametrize("method", METHODS)
def test_gray_frames_are_filtered_alike(method):
    gray = halftone(500, 333)[..., 0]
    row, _ = written(gray, width=100, height=70, resize="stretch", filter=method)
    assert_same(row, theirs(np.dstack([gray] * 3), (100, 70), method))


SIDES = st.integers(1, 700)


@example(24, 1, 20, 17, "bilinear")
@given(SIDES, SIDES, st.integers(1, 150), st.integers(1, 150), st.sampled_from(list(METHODS)))
@settings(max_examples=60, deadline=None)
def test_any_size_to_any_size(width, height, across, down, method):
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    frame = cv2.blur(frame, (3, 3)).reshape(frame.shape)
    target = np.zeros((down, across, 3), np.uint8)
    Resampler(method).resize(frame, Span(0, width), Span(0, height), target)
    assert_same(target, theirs(frame, (across, down), method), frame.size)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("picture", [(256, 256), (300, 256), (256, 300), (257, 256)])
def test_what_is_only_cropped_is_not_filtered(method, picture, monkeypatch):
    frame = halftone(*picture)
    left, top = (round((side - 224) / 2) for side in picture)
    crop = frame[top : top + 224, left : left + 224]
    whole = theirs(frame, picture, method)
    np.testing.assert_array_equal(whole, frame)  # nor does Pillow
    monkeypatch.setattr(np, "matmul", None)
    row, _ = written(frame, width=224, height=224, resize="crop", crop_fraction=0.875, filter=method)
    np.testing.assert_array_equal(row, crop)


def test_a_flat_picture_stays_flat():
    """Weights sum to 1, at the edges too."""
    for method in METHODS:
        row, _ = written(np.full((311, 517, 3), 201, np.uint8), width=90, height=80, resize="crop", filter=method)
        assert (row == 201).all()


def resized(resampler, frame, across, down):
    target = np.zeros((down, across, 3), np.uint8)
    resampler.resize(frame, Span(0, frame.shape[1]), Span(0, frame.shape[0]), target)
    return target


@pytest.mark.parametrize("method", METHODS)
def test_sizes_in_turns_do_not_disturb_each_other(method):
    """One of them needs more memory than is there at first; one grows, in doubles."""
    resampler = Resampler(method)
    wishes = [(photo(64, 48), 20, 10), (photo(900, 300), 2, 2), (photo(31, 17), 40, 50), (halftone(64, 48), 20, 10)]
    for frame, across, down in wishes * 2:
        assert_same(resized(resampler, frame, across, down), theirs(frame, (across, down), method))


def test_models_of_one_filter_may_share_its_resampler():
    made = []

    def shared(kernel):
        made[:] = made or [Resampler(kernel)]
        return made[0]

    frame = photo(451, 300)
    wishes = [
        Preprocess(input="images", width=side, height=side, resize="crop", filter="bicubic") for side in (224, 96, 320)
    ]
    alone = [Preprocessor(wish, "uint8", "nhwc") for wish in wishes]
    together = [Preprocessor(wish, "uint8", "nhwc", shared) for wish in wishes]
    for one, other in [*zip(alone, together, strict=True)] * 2:
        rows = np.zeros((2, *one.shape), np.uint8)
        assert one.write(frame, rows[0]) == other.write(frame, rows[1])
        np.testing.assert_array_equal(rows[0], rows[1])


def test_memory_stays_with_the_resampler():
    """The second picture of a size computes no weights and takes no memory."""
    resampler = Resampler("bicubic")
    frame, target = photo(640, 480), np.zeros((224, 224, 3), np.uint8)
    other = frame[::-1].copy()
    resampler.resize(frame, Span(0, 640), Span(0, 480), target)
    tracemalloc.start()
    try:
        resampler.resize(other, Span(0, 640), Span(0, 480), target)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 224 * 224  # a few objects; the weights of one direction alone take more
