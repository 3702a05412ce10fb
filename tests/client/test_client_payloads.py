"""What users hand in as a picture, and what is sent: plain things are converted, all others refused with what to do."""

from __future__ import annotations

import array
import io
import mmap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from parallel_infer.client.payload import Payload, payload_of
from parallel_infer.client.requests import job_of
from parallel_infer.errors import BadInput

BGR = np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8)
RGB = BGR[..., ::-1]
ALPHA = np.full((6, 8, 1), 77, np.uint8)
JPEG = b"\xff\xd8\xff\xe0 and so on, long enough"


class Torch:
    """A tensor as PyTorch's look from outside."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.dtype = f"torch.{values.dtype}"
        self.left = self.grown = False

    def detach(self) -> Torch:
        self.grown = True
        return self

    def cpu(self) -> Torch:
        self.left = True
        return self

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        assert self.grown, "Can't call numpy() on Tensor that requires grad"
        assert self.left, "can't convert cuda:0 device type tensor to numpy"
        return self.values


class Jax:
    """An array that only says how to become NumPy's."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return self.values


def frame_in(payload: Payload) -> np.ndarray:
    assert payload.kind == "frame"
    ((_, dtype, shape),) = [(tensor.name, tensor.dtype, tensor.shape) for tensor in payload.tensors]
    return np.frombuffer(payload.data, dtype).reshape(shape)


FRAMES = {
    "as it is": BGR,
    "Fortran order": np.asfortranarray(BGR),
    "mirrored view": BGR[:, ::-1][:, ::-1],
    "part of a larger one": np.pad(BGR, ((2, 3), (1, 1), (0, 0)))[2:8, 1:9],
    "memoryview": memoryview(BGR),
}


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("color", [None, "bgr", "rgb"])
def test_frames_are_sent_as_they_are_whatever_their_memory(name, color):
    assert np.array_equal(frame_in(payload_of(FRAMES[name], color)), BGR)


def test_a_frame_in_one_piece_is_not_copied():
    assert np.shares_memory(frame_in(payload_of(BGR)), BGR)


@pytest.mark.parametrize("gray", [BGR[..., 0], BGR[..., :1], BGR[..., 0][::-1][::-1]])
def test_gray_is_a_frame(gray):
    assert np.array_equal(frame_in(payload_of(gray)), np.dstack([BGR[..., 0]] * 3))


PICTURES = {
    "alpha": np.dstack([BGR, ALPHA]),
    "channels first": BGR.transpose(2, 0, 1),
    "alpha, channels first": np.dstack([BGR, ALPHA]).transpose(2, 0, 1),
    "batch of one": BGR[None],
    "batch of one, channels first": BGR.transpose(2, 0, 1)[None],
    "float32": BGR.astype(np.float32) / np.float32(255),
    "float64": BGR / 255,
    "float32, channels first": BGR.transpose(2, 0, 1).astype(np.float32) / np.float32(255),
    "float16": (BGR / 255).astype(np.float16),
    "PyTorch": Torch(BGR),
    "PyTorch, channels first": Torch(BGR.transpose(2, 0, 1)),
    "PyTorch, float": Torch(BGR.transpose(2, 0, 1).astype(np.float32)[None] / np.float32(255)),
    "another package": Jax(BGR),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("color", ["bgr", "rgb"])
def test_with_color_whatever_looks_like_a_picture_is_one(name, color):
    assert np.array_equal(frame_in(payload_of(PICTURES[name], color)), BGR)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            BGR.astype(np.float32),
            r"needs values of 0 to 1; here they are .* send array\.round\(\)\.astype\(np\.uint8\)",
        ),
        (BGR / 255 - 0.5, "needs values of 0 to 1; here they are -0"),
        (BGR.astype(np.uint16), r"\(array >> 8\)\.astype\(np\.uint8\)"),
        (BGR > 100, r"array\.astype\(np\.uint8\) \* 255"),
        (BGR.astype(np.int64), r"array\.astype\(np\.uint8\)"),
        (BGR.astype(np.complex64), "An array of complex64 is no picture"),
        (np.dstack([BGR, BGR]), r"shape \[6, 8, 6\] is no picture"),
        (np.stack([BGR, BGR]), r"shape \[2, 6, 8, 3\] is no picture"),
        (BGR[:0], "is no picture"),
    ],
)
def test_with_color_what_is_no_picture_is_refused_with_what_to_do(values, told):
    with pytest.raises(BadInput, match=told):
        payload_of(values, "rgb")


@pytest.mark.parametrize("values", [Torch(BGR), Torch(BGR.transpose(2, 0, 1)), Jax(BGR), Jax(np.dstack([BGR, ALPHA]))])
def test_colours_of_other_packages_must_be_said(values):
    with pytest.raises(BadInput, match=r'may hold RGB or BGR; say which with color="rgb" or color="bgr"'):
        payload_of(values)


@pytest.mark.parametrize("wrap", [np.asarray, Torch, Jax])
@pytest.mark.parametrize("shape", [(1, 3, 6, 8), (3, 6, 8), (6, 8, 3)])
def test_floats_without_color_are_tensors_of_the_model(wrap, shape):
    values = np.random.default_rng(0).random(shape, np.float32)
    payload = payload_of(wrap(values))
    assert payload.kind == "tensors"
    assert payload.tensors[0].shape == shape
    assert np.array_equal(np.frombuffer(payload.data, np.float32).reshape(shape), values)
    assert payload_of({"images": wrap(values)}).tensors[0].name == "images"


@pytest.mark.parametrize("color", [None, "bgr", "rgb"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "1", "P", "CMYK", "YCbCr", "HSV"])
def test_pictures_of_pillow_know_their_colours(mode, color):
    picture = Image.fromarray(RGB)
    if mode.endswith("A"):
        picture.putalpha(100)
    picture = picture.convert(mode)
    expected = np.asarray(picture.convert("RGB"))
    sent = frame_in(payload_of(picture, color))
    assert np.array_equal(sent, expected if color == "rgb" else expected[..., ::-1])


def opened(form: str, orientation: int = 1) -> Image.Image:
    tags = Image.Exif()
    tags[0x0112] = orientation
    target = io.BytesIO()
    Image.fromarray(RGB).save(target, form, exif=tags)
    return Image.open(target)


def test_a_picture_of_pillow_is_answered_as_pillow_holds_it_and_a_missing_turn_is_warned_about():
    with pytest.warns(UserWarning, match="orientation is 6 and Pillow has not applied it.*exif_transpose"):
        sent = frame_in(payload_of(opened("png", 6)))
    assert np.array_equal(sent, BGR)
    assert np.array_equal(frame_in(payload_of(opened("png", 1))), BGR)  # and warnings are errors here


@pytest.mark.parametrize("mode", ["I", "F", "I;16"])
def test_deep_pictures_of_pillow_are_refused(mode):
    with pytest.raises(BadInput, match=f"mode '{mode}' has more than 8 bits"):
        payload_of(Image.new(mode, (3, 2)))


def test_a_picture_that_pillow_cannot_read_is_refused():
    target = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8)).save(target, "png")
    with pytest.raises(BadInput, match="The picture cannot be read"):
        payload_of(Image.open(io.BytesIO(target.getvalue()[:999])))


def test_encoded_bytes_in_whatever_holds_them(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(JPEG)
    with file.open("rb") as opened_file, mmap.mmap(opened_file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        holders = [
            JPEG,
            bytearray(JPEG),
            memoryview(JPEG),
            memoryview(JPEG + JPEG)[: len(JPEG)],
            array.array("B", JPEG),
        ]
        holders += [memoryview(bytes(2 * len(JPEG)))[::2], str(file), file, opened_file, io.BytesIO(JPEG)]
        for holder in (*holders, mapped):
            payload = payload_of(holder)
            assert payload.kind == "picture"
            assert len(payload.data) == len(JPEG)
            assert bytes(payload.data) in (JPEG, bytes(len(JPEG)))
            del payload


def test_a_file_that_was_just_written_is_rewound():
    target = io.BytesIO()
    target.write(JPEG)
    assert payload_of(target).data == JPEG
    with pytest.raises(BadInput, match="empty"):
        payload_of(io.BytesIO(b""))


def test_a_file_from_where_it_stands():
    file = io.BytesIO(b"head" + JPEG)
    file.seek(4)
    assert payload_of(file).data == JPEG


@pytest.mark.parametrize("shape", [(-1,), (-1, 1), (1, -1)])
def test_encoded_bytes_as_an_array(shape):
    """numpy.fromfile, and what cv2.imencode gives in its newer and its older versions; the server decodes them."""
    payload = payload_of(np.frombuffer(JPEG, np.uint8).reshape(shape))
    assert (payload.kind, payload.tensors[0].shape) == ("tensors", (len(JPEG),))
    assert bytes(payload.data) == JPEG


def test_a_narrow_gray_picture_is_no_encoded_one():
    assert frame_in(payload_of(np.arange(40, dtype=np.uint8).reshape(40, 1))).shape == (40, 1, 3)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("http://example.org/a.jpg", "is an address, and the client fetches nothing: send the bytes"),
        ("https://example.org/a.jpg", "is an address"),
        ("s3://bucket/a.jpg", "is an address"),
        ("data:image/jpeg;base64,/9j/", "is an address"),
        ("no such file.jpg", "'no such file.jpg' cannot be read: No such file"),
        ("a\0b", "cannot be read"),
        ("x" * 5000, "cannot be read: File name too long"),
        ("", "the path is empty: it leads to no picture"),
        ("/tmp", "'/tmp' is a folder; send its pictures one by one, or with infer_many"),
        (io.StringIO("text"), "gives str, not bytes; open it in binary mode, 'rb'"),
        ([BGR, BGR], "A list is no picture.*infer_many takes several pictures"),
        (("a.jpg",), "A tuple is no picture.*infer_many"),
        (None, "A NoneType is no picture"),
        (7, "A int is no picture"),
        ({}, "An empty dict"),
    ],
)
def test_what_is_no_picture_is_refused_with_what_to_do(given, told):
    with pytest.raises(BadInput, match=told):
        payload_of(given)


class Broken:
    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        raise RuntimeError("no memory on the device")


def test_an_array_that_cannot_become_numpys_is_refused():
    with pytest.raises(BadInput, match="A Broken cannot be made a NumPy array: no memory on the device"):
        payload_of(Broken())


def test_an_unknown_color_is_refused_before_anything_is_sent():
    with pytest.raises(BadInput, match="color='RGB' is not known; it is 'rgb' or 'bgr'"):
        job_of("m", 1.0, 0, {"color": "RGB"})
