"""From frame to row: the numbers the model was trained on, and a geometry that leads back."""

from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel_infer.errors import BadInput, ConfigError
from parallel_infer.model_spec import TensorSpec
from stages.geometry import Geometry
from stages.pictures import Decoder, PictureLimits
from stages.preprocess import Preprocess, Preprocessor, constants
from tests.pictures.picture_samples import ZOO, bounds, encoded, exif, jpeg_with, photo, segment

IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
NUMBERS = [
    {},
    {"std": (1.0, 1.0, 1.0)},
    {"mean": (127.0, 127.0, 127.0), "std": (128.0, 128.0, 128.0)},
    {"mean": (127.5, 127.5, 127.5), "std": (1.0, 1.0, 1.0)},
    IMAGENET,
]
LAYOUTS = ["nchw", "nhwc"]


def wish(width=64, height=48, resize="stretch", **others) -> Preprocess:
    return Preprocess(input="images", width=width, height=height, resize=resize, **others)


def written(preprocess, frame, dtype="uint8", layout="nhwc"):
    preprocessor = Preprocessor(preprocess, dtype, layout)
    rows = np.full((3, *preprocessor.shape), 99, dtype)
    geometry = preprocessor.write(frame, rows[1])
    assert (rows[[0, 2]] == 99).all(), "wrote outside of its row"
    return rows[1], geometry


def plainly(preprocess, pixels, dtype, layout):
    """The formula of the documentation, from resized BGR pixels."""
    if preprocess.color == "rgb":
        pixels = pixels[..., ::-1]
    if dtype != "uint8":
        mean, std = np.float32(preprocess.mean), np.float32(preprocess.std)
        pixels = ((pixels.astype(np.float32) - mean) / std).astype(dtype)
    return pixels.transpose(2, 0, 1) if layout == "nchw" else pixels


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("numbers", NUMBERS)
def test_a_row_is_the_plain_formula_to_the_bit(layout, dtype, color, numbers):
    preprocess = wish(color=color, **numbers)
    row, _ = written(preprocess, photo(201, 133), dtype, layout)
    assert np.array_equal(row, plainly(preprocess, cv2.resize(photo(201, 133), (64, 48)), dtype, layout))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(3, 3), (1, 3), (3, 1), (1, 1), (5, 3), (3, 5)])
def test_tiny_rows_do_not_confuse_the_axes(layout, size):
    preprocess = wish(*size, **IMAGENET)
    row, _ = written(preprocess, photo(20, 30), "float32", layout)
    assert np.array_equal(row, plainly(preprocess, cv2.resize(photo(20, 30), size), "float32", layout))


def letterbox(frame, width, height, pad, centred):
    """As Ultralytics' LetterBox does it, with copyMakeBorder."""
    ratio = min(height / frame.shape[0], width / frame.shape[1])
    inner = round(frame.shape[1] * ratio), round(frame.shape[0] * ratio)
    across, down = width - inner[0], height - inner[1]
    if centred:
        across, down = across / 2, down / 2
    top, bottom = (round(down - 0.1) if centred else 0), round(down + 0.1)
    left, right = (round(across - 0.1) if centred else 0), round(across + 0.1)
    frame = cv2.resize(frame, inner, interpolation=cv2.INTER_LINEAR)
    return cv2.copyMakeBorder(frame, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(pad,) * 3)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("size", [(320, 320), (416, 257), (33, 640)])
@pytest.mark.parametrize("picture", [(201, 133), (133, 201), (640, 480), (51, 50), (320, 320), (1, 1), (64, 3)])
def test_letterbox_is_that_of_ultralytics(centred, dtype, size, picture):
    preprocess = wish(*size, resize="letterbox" if centred else "letterbox-corner", pad=114)
    row, _ = written(preprocess, photo(*picture), dtype, "nchw")
    assert np.array_equal(row, plainly(preprocess, letterbox(photo(*picture), *size, 114, centred), dtype, "nchw"))


def test_what_was_around_an_earlier_picture_does_not_stay():
    preprocessor = Preprocessor(wish(64, 64, "letterbox", pad=0), "uint8", "nhwc")
    row = np.zeros(preprocessor.shape, np.uint8)
    for size in ((100, 30), (30, 100), (100, 100), (100, 30)):
        preprocessor.write(np.full((*size, 3), 255, np.uint8), row)
    assert (row == letterbox(np.full((100, 30, 3), 255, np.uint8), 64, 64, 0, centred=True)).all()


@pytest.mark.parametrize(("size", "box"), [((64, 64), (42, 8, 116, 116)), ((64, 32), (12, 22, 176, 88))])
def test_crop_takes_the_centre_in_the_shape_of_the_row(size, box):
    """`box` is x, y, width, height within 201x133: 7/8 of 133 is 116.4, and 7/8 of 201 is 175.9."""
    row, geometry = written(wish(*size, resize="crop", crop_fraction=0.875, color="bgr"), photo(201, 133))
    x, y, width, height = box
    assert np.array_equal(row, cv2.resize(photo(201, 133)[y : y + height, x : x + width], size))
    corners = geometry.boxes_to_frame(np.array([[0, 0, *size]], np.float32))
    assert np.allclose(corners, [[x, y, x + width, y + height]], atol=0.01)


@pytest.mark.parametrize("kind", ["gray", "gray3", "read-only", "view", "flipped"])
def test_raw_frames_of_every_kind(kind):
    frame = photo(201, 133)
    given = {
        "gray": frame[..., 0],
        "gray3": frame[..., :1],
        "read-only": np.frombuffer(frame.tobytes(), np.uint8).reshape(frame.shape),
        "view": np.tile(frame, (1, 2, 1))[:, :201],
        "flipped": frame[::-1, ::-1],
    }[kind]
    pixels = np.repeat(given[..., :1] if given.ndim == 3 else given[..., None], 3, 2) if "gray" in kind else given
    row, geometry = written(wish(64, 48, "letterbox", color="bgr"), given)
    assert np.array_equal(row, letterbox(np.ascontiguousarray(pixels), 64, 48, 114, centred=True))
    assert geometry[:2] == (201, 133)


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 0), np.uint8),
    ],
    ids=lambda frame: f"{frame.dtype}{list(frame.shape)}",
)
def test_what_is_no_frame(frame):
    with pytest.raises(BadInput, match=rf"a frame is uint8 \[height, width, 3\].*got {frame.dtype}"):
        written(wish(), frame)


def test_what_is_no_row():
    preprocessor = Preprocessor(wish(64, 48), "float32", "nchw")
    row = np.zeros((3, 48, 64), np.float32)
    for wrong in (row[:2], row.astype(np.float16), np.zeros((48, 64, 3), np.float32).transpose(2, 0, 1)):
        with pytest.raises(ValueError, match="a row is contiguous float32"):
            preprocessor.write(photo(), wrong)


SIDES = st.integers(1, 900) | st.sampled_from([1, 2, 3, 100, 8000])
RESIZES = st.sampled_from(["stretch", "letterbox", "letterbox-corner", "crop"])


@given(SIDES, SIDES, st.integers(1, 400), st.integers(1, 400), RESIZES, st.floats(0.05, 1))
@settings(max_examples=300, deadline=None)
def test_geometry_leads_back_within_half_a_pixel(width, height, across, down, resize, fraction):
    """Corners of the part of the row that holds the picture are corners of the part of the picture it holds."""
    preprocess = wish(across, down, resize, crop_fraction=fraction, pad=0, color="bgr")
    row, geometry = written(preprocess, np.full((height, width), 255, np.uint8))
    found = geometry.boxes_to_frame(bounds(row[..., 0] > 0)[None])[0]
    if resize == "crop":
        middle = (found[:2] + found[2:]) / 2
        assert np.abs(middle - [width / 2, height / 2]).max() <= 0.51
        assert (found[:2] >= -0.01).all()
        assert (found[2:] <= [width + 0.01, height + 0.01]).all()
    else:
        assert np.abs(found - [0, 0, width, height]).max() <= 0.01
    points = np.array([[0, 0], [width / 3, height / 7], [width, height]], np.float32)
    scale, offset = np.array(geometry[2:4]), np.array(geometry[4:6])
    assert np.abs(geometry.points_to_frame((points * scale + offset).astype(np.float32)) - points).max() < 0.5


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "letterbox-corner", "crop"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("reduced", [False, True])
def test_from_payload_to_row_and_back(resize, orientation, reduced):
    """A bright box in a picture with EXIF orientation is found where it is in the picture held upright."""
    stored = np.zeros((407, 601, 3), np.uint8)
    stored[150:250, 270:370] = 255
    plain = encoded(".jpg", stored, cv2.IMWRITE_JPEG_QUALITY, 100)
    payload = jpeg_with(plain, segment(0xE1, b"Exif\0\0" + exif(orientation)))
    upright = Decoder(PictureLimits()).decode(payload).frame[..., 0].copy()
    preprocessor = Preprocessor(wish(160, 128, resize, pad=0), "uint8", "nhwc")
    row = np.empty(preprocessor.shape, np.uint8)
    frame, geometry = Decoder(PictureLimits()).decode(payload, preprocessor.least_scale if reduced else None)
    assert (frame.shape[:2] != upright.shape) == reduced
    geometry = preprocessor.write(frame, row, geometry)
    assert geometry[:2] == upright.shape[::-1]
    error = geometry.boxes_to_frame(bounds(row[..., 0] > 127)[None])[0] - bounds(upright > 127)
    assert np.abs(error * np.array(geometry[2:4] * 2)).max() <= 0.75  # row pixels: thresholding finds whole ones


def test_the_middle_of_a_marker_is_kept_within_half_a_pixel():
    """The centre of mass of a soft spot, which interpolation does not move, unlike the edge of a box."""
    y, x = np.mgrid[:407, :601] + 0.5
    spot = np.exp(-((x - 401.25) ** 2 + (y - 155.75) ** 2) / 800)
    frame = np.dstack([(255 * spot).astype(np.uint8)] * 3)
    for resize in ("stretch", "letterbox", "letterbox-corner"):
        row, geometry = written(wish(320, 256, resize, pad=0), frame)
        weights = row[..., 0].astype(np.float64)
        rows, columns = np.mgrid[:256, :320] + 0.5
        centre = np.array([(columns * weights).sum(), (rows * weights).sum()]) / weights.sum()
        assert np.abs(geometry.points_to_frame(centre.astype(np.float32)) - [401.25, 155.75]).max() < 0.5


def test_least_scale_gives_every_pixel_of_the_row():
    for resize in ("stretch", "letterbox", "letterbox-corner", "crop"):
        preprocessor = Preprocessor(wish(224, 160, resize, crop_fraction=0.875), "uint8", "nhwc")
        for width, height in ((1920, 1080), (1080, 1920), (400, 300), (100, 100)):
            scale = preprocessor.least_scale(width, height)
            row = np.empty(preprocessor.shape, np.uint8)
            geometry = preprocessor.write(np.zeros((height, width), np.uint8), row)
            assert scale == pytest.approx(max(geometry.scale_x, geometry.scale_y), rel=0.02)
            filtered = Preprocessor(wish(224, 160, resize, crop_fraction=0.875, filter="bilinear"), "uint8", "nhwc")
            assert filtered.least_scale(width, height) == pytest.approx(1.4 * scale)


@pytest.mark.parametrize(
    ("kind", "shrunk", "reduced"),
    [("bilinear", 2.83, True), ("bicubic", 2.83, True), ("bicubic", 2.7, False), ("linear", 1.7, False)],
)
@pytest.mark.parametrize("name", ["astronaut.png", "chelsea.png", "coffee.png"])
def test_a_fast_decode_moves_pixels_less_than_a_lower_quality(name, kind, shrunk, reduced):
    """`decode = fast`, at reduced size or only with coarser colours, beside a JPEG of quality 85 instead of 90."""
    picture = cv2.imread(str(ZOO / "pictures" / name))
    side = int(min(picture.shape[:2]) / shrunk)
    preprocessor = Preprocessor(wish(side, side, "crop", filter=kind), "uint8", "nhwc")

    def row_of(quality, scale=None):
        payload = encoded(".jpg", picture, cv2.IMWRITE_JPEG_QUALITY, quality)
        frame, geometry = Decoder(PictureLimits()).decode(payload, scale)
        assert (frame.shape[0] < picture.shape[0]) == (reduced and scale is not None)
        row = np.zeros(preprocessor.shape, np.uint8)
        preprocessor.write(frame, row, geometry)
        return row.astype(int)

    exact = row_of(90)
    moved = np.abs(row_of(90, preprocessor.least_scale) - exact).mean()
    assert 0 < moved < np.abs(row_of(85) - exact).mean()


@pytest.mark.parametrize("kind", ["linear", "bilinear", "bicubic"])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_memory_is_taken_per_picture(dtype, layout, kind):
    """From JPEG payload to row, after the first picture: a few kilobytes, where the frame alone has 2.7 MB."""
    payload = encoded(".jpg", photo(1280, 720))
    decoder = Decoder(PictureLimits())
    preprocessor = Preprocessor(wish(640, 640, "letterbox", filter=kind, **IMAGENET), dtype, layout)
    row = np.empty(preprocessor.shape, dtype)

    def once() -> None:
        frame, geometry = decoder.decode(payload)
        preprocessor.write(frame, row, geometry)

    once()
    tracemalloc.start()
    try:
        once()
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


def test_constants_are_ready_to_be_fed():
    inputs = (
        TensorSpec(name="images", dtype="float32", shape=(3, 48, 64)),
        TensorSpec(name="orig_target_sizes", dtype="int64", shape=(2,)),
        TensorSpec(name="threshold", dtype="float32", shape=()),
    )
    preprocess = wish(constants={"orig_target_sizes": [64, 48], "threshold": [0.5]})
    found = constants(preprocess, inputs)
    assert found["orig_target_sizes"].tolist() == [64, 48]
    assert found["orig_target_sizes"].dtype == np.int64
    assert found["threshold"].shape == ()
    assert found["threshold"] == 0.5
    with pytest.raises(ConfigError, match="do not match: threshold"):
        constants(preprocess, inputs[:2])
    with pytest.raises(ConfigError, match="do not match: orig_target_sizes, threshold"):
        constants(wish(), inputs)
    with pytest.raises(ConfigError, match=r"orig_target_sizes has the shape \[2\], which 3 values do not fill"):
        constants(wish(constants={"orig_target_sizes": [1, 2, 3], "threshold": [1]}), inputs)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"width": 0}, "0x48"),
        ({"crop_fraction": 0.0}, "crop_fraction is 0.0"),
        ({"crop_fraction": 1.5}, "crop_fraction is 1.5"),
        ({"pad": 300}, "pad is 300"),
        ({"std": (1.0, 0.0, 1.0)}, "std is"),
        ({"mean": (float("nan"), 0.0, 0.0)}, "finite"),
    ],
)
def test_impossible_wishes(wrong, text):
    with pytest.raises(ConfigError, match=text):
        Preprocessor(wish(**wrong), "float32", "nchw")


def test_rows_of_other_types_are_refused():
    with pytest.raises(ConfigError, match="not int32"):
        Preprocessor(wish(), "int32", "nchw")


def test_geometry_of_a_plain_stretch():
    _, geometry = written(wish(64, 48), photo(128, 96))
    assert geometry == Geometry(128, 96, 0.5, 0.5, 0, 0)
