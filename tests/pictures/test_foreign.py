"""What is sent as a picture and is none: its name and what to do, never "truncated"."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile

import numpy as np
import pytest

from parallel_infer.errors import BadInput
from stages.pictures import Decoder, PictureLimits
from tests.pictures.picture_samples import encoded, photo

JPEG = encoded(".jpg", photo())


def archive() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as files:
        files.writestr("a.jpg", JPEG)
    return target.getvalue()


def array_file() -> bytes:
    target = io.BytesIO()
    np.save(target, photo())
    return target.getvalue()


UNSUPPORTED = {
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "HEIC ": b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic",
    "JPEG XL": b"\xff\x0a\xcb\x40",
    "JPEG XL ": b"\0\0\0\x0cJXL \r\n\x87\n",
    "JPEG XR": b"II\xbc\x01",
    "Photoshop": b"8BPS\0\1",
    "SVG": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "SVG ": b"<svg/>",
    "raw camera": b"\0\0\0\x18ftypcrx \0\0\0\1",
    "raw camera ": b"FUJIFILMCCD-RAW 0201",
    "Netpbm": b"P6\n3 2\n255\n",
    "OpenEXR": b"v/1\1\2\0\0\0",
    "QOI": b"qoif\0\0\0\x40",
    "Windows icon": b"\0\0\1\0\1\0\x10\x10",
    "DICOM": bytes(128) + b"DICM",
}

OTHERS = {
    "a PDF document": b"%PDF-1.7\n",
    r"a video \(MP4": b"\0\0\0\x18ftypmp42\0\0\0\0",
    r"a video \(MP4 or": b"\0\0\0\x14ftypqt  \0\0\0\0",
    r"a video \(AVI\)": b"RIFF\1\2\3\4AVI LIST",
    r"a video \(Matroska": b"\x1aE\xdf\xa3\1\0",
    r"a video \(H\.264": b"\0\0\0\1\x67\x42\0\x1f",
    r"a video \(MPEG\)": b"\0\0\1\xba\x44",
    "gzip data": gzip.compress(JPEG),
    "a ZIP archive": archive(),
    "a NumPy array file": array_file(),
    "an HTML page": b"\r\n<!DOCTYPE html>\n<html><head><title>404</title>",
    "an HTML page ": b"<html><body><svg/>not found",
    "an XML document": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "JSON text": b'{"error": "not found"}',
    "an HTTP response": b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n" + JPEG,
    "a multipart form": b"--abc\r\nContent-Disposition: form-data\r\n\r\n" + JPEG,
    "a picture in base64": b"/9j/4AAQSkZJRgABAQ",
    "a data URL": b"data:image/png;base64,iVBORw0KGgo",
    "a JPEG or PNG that text handling damaged": JPEG.decode("latin-1").encode(),
    "a JPEG or PNG that text handling damaged ": JPEG.decode("utf-8", "replace").encode(),
    "a PNG whose line ends were converted": b"\x89PNG\n\x1a\n\0\0\0\rIHDR",
    "a path or an address": b"https://example.org/a.jpg",
    "a path or an address ": b"/data/street.jpg",
    "zeros only": bytes(100),
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\n",
}


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return Decoder(PictureLimits())


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_other_picture_formats_are_named(decoder, name):
    with pytest.raises(
        BadInput, match=rf"^{name.strip()}.* pictures are not supported: .+; expected JPEG, PNG or WebP$"
    ):
        decoder.decode(UNSUPPORTED[name])


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_picture_is_named(decoder, name):
    with pytest.raises(BadInput, match=rf"^not a picture but {name.strip()}.* \(starts with b.*\): .+; expected JPEG"):
        decoder.decode(OTHERS[name])


@pytest.mark.parametrize("front", [b"\r\n", b"\0\0\0\x7b", b"IMG:"])
def test_a_picture_behind_something_else_is_pointed_out(decoder, front):
    with pytest.raises(
        BadInput, match=rf"^not a picture: .*a picture begins {len(front)} bytes later: send it from there"
    ):
        decoder.decode(front + JPEG)


def test_text_is_called_text(decoder):
    with pytest.raises(BadInput, match=r"^not a picture but text: starts with b'hello'; expected"):
        decoder.decode(b"hello")


@pytest.mark.parametrize("piece", [b"<!---->", b"<?", b"\n ", b"<!DOCTYPE ", b"[{", b"--", b"a.", b"ftyp", b"G"])
def test_no_beginning_takes_for_ever_to_tell(decoder, piece):
    with pytest.raises(BadInput):
        decoder.decode(piece * 10_000)


def test_apples_own_png_is_named(decoder: Decoder) -> None:
    plain = encoded(".png", photo())
    with pytest.raises(BadInput, match=r"^not supported: .*CgBI.*; convert it"):
        decoder.decode(plain[:8] + struct.pack(">I4s4sI", 4, b"CgBI", b"\x50\x00\x20\x02", 0) + plain[8:])
