"""Payloads that are no pictures, broken pictures, or bombs: always BadInput, early, with a text that helps."""

from __future__ import annotations

import struct
import subprocess
import sys

import numpy as np
import pytest

from parallel_infer.errors import BadInput, ConfigError
from stages.pictures import Decoder, PictureLimits
from tests.pictures.picture_samples import (
    animated,
    encoded,
    exif,
    jpeg_with,
    photo,
    png_bomb,
    png_with,
    reference,
    resized_header,
    riff_chunk,
    segment,
    tiff_of,
    webp_of,
)

ALL = ("jpeg", "png", "webp", "bmp", "tiff", "gif", "avif", "jp2")
OPTIONAL = {".bmp": "BMP", ".tiff": "TIFF", ".gif": "GIF", ".avif": "AVIF", ".jp2": "JPEG 2000"}


@pytest.fixture
def decoder() -> Decoder:
    return Decoder(PictureLimits())


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"", r"^the payload is empty \(0 bytes\); expected JPEG, PNG or WebP$"),
        (b"\1\2\3text\xfe", r"^not a picture: starts with b'\\x01\\x02\\x03text\\xfe'; expected JPEG, PNG or WebP$"),
        (b"\xff", r"^not a picture: starts with b'\\xff'; expected"),
        (b"\xff\xd8\xff", "the JPEG picture is truncated"),
        (b"\x89PNG\r\n\x1a\n", "the PNG picture is truncated"),
        (b"RIFF\x04\0\0\0WEBP", "the WebP picture is truncated"),
        (b"\xff\xd8\xff\xd9", "the JPEG picture is truncated"),
        (b"\xff\xd8\xff\xe0\x00\x00" * 100, "the JPEG picture is truncated"),
    ],
)
def test_what_is_no_picture(decoder, payload, text):
    with pytest.raises(BadInput, match=text):
        decoder.decode(payload)


@pytest.mark.parametrize("accepted", [("jpeg",), ("png", "jpeg")])
def test_the_text_names_what_is_accepted(accepted):
    with pytest.raises(BadInput, match=r"expected (JPEG|PNG or JPEG)$"):
        Decoder(PictureLimits(formats=accepted)).decode(b"text")


@pytest.mark.parametrize("suffix", OPTIONAL)
def test_other_formats_only_where_allowed(decoder, suffix):
    payload = encoded(suffix, photo())
    with pytest.raises(BadInput, match=rf"^{OPTIONAL[suffix]} pictures are not accepted; .*\(option formats\)$"):
        decoder.decode(payload)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", *OPTIONAL])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9])
def test_truncated(suffix, kept):
    payload = encoded(suffix, photo())
    with pytest.raises(BadInput, match="truncated or corrupted"):
        Decoder(PictureLimits(formats=ALL)).decode(payload[: 12 + int(kept * (len(payload) - 12))])


def test_corrupted_jpeg_data_still_gives_a_picture(decoder):
    """200 wrong bytes in the middle spoil part of the pixels, as with OpenCV."""
    payload = bytearray(encoded(".jpg", photo(640, 480)))
    middle = len(payload) // 2
    payload[middle : middle + 200] = bytes(200)
    frame = decoder.decode(bytes(payload)).frame
    assert np.array_equal(frame, reference(bytes(payload)))
    assert frame.shape == (480, 640, 3)


def test_a_corrupted_png_is_refused(decoder):
    payload = bytearray(encoded(".png", photo()))
    payload[len(payload) // 2] ^= 0xFF
    with pytest.raises(BadInput, match=r"^the PNG picture is truncated or corrupted$"):
        decoder.decode(bytes(payload))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("size", [(0, 10), (10, 0)])
def test_without_pixels(decoder, suffix, size):
    with pytest.raises(BadInput, match=f"has no pixels: its header says {size[0]}x{size[1]}"):
        decoder.decode(resized_header(encoded(suffix, photo()), *size))


def forged(suffix: str, width: int, height: int) -> bytes:
    """A few hundred bytes that claim that size, as each format writes it."""
    if suffix in (".jpg", ".png"):
        return resized_header(encoded(suffix, photo()), width, height)
    payload = bytearray(encoded(suffix, photo()))
    if suffix == ".webp":
        return webp_of(width, height, 0, bytes(payload[12:]))
    if suffix == ".gif":
        struct.pack_into("<HH", payload, 6, width, height)
    if suffix == ".bmp":
        struct.pack_into("<ii", payload, 18, width, -height)
    if suffix == ".avif":
        struct.pack_into(">II", payload, payload.index(b"ispe") + 8, width, height)
    if suffix == ".jp2":
        struct.pack_into(">II", payload, payload.index(b"\xff\x4f\xff\x51") + 8, width, height)
    if suffix == ".tiff":
        return struct.pack("<2sHIH", b"II", 42, 8, 2) + b"".join(
            struct.pack("<HHII", tag, 4, 1, value) for tag, value in ((256, width), (257, height))
        )
    return bytes(payload)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", *OPTIONAL])
def test_too_many_pixels(suffix):
    with pytest.raises(
        BadInput,
        match=r"too large: 30000x30000 is 900000000 pixels; the limit is 50000000 \(option max_pixels\)$",
    ):
        Decoder(PictureLimits(formats=ALL)).decode(forged(suffix, 30000, 30000))


def test_too_many_pixels_in_a_big_tiff():
    entries = b"".join(struct.pack("<HHQQ", tag, 16, 1, 2**33) for tag in (256, 257))
    payload = struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, 2) + entries
    with pytest.raises(BadInput, match="8589934592x8589934592"):
        Decoder(PictureLimits(formats=ALL)).decode(payload)


@pytest.mark.parametrize("frames", [1, 2])
def test_too_many_pixels_behind_the_boxes_of_an_avif(frames):
    """The boxes may say what they like: the decoder allocates what the AV1 data says."""
    large = np.full((1600, 1600, 3), 90, np.uint8)
    payload = bytearray(animated(".avif", large, large) if frames > 1 else encoded(".avif", large))
    at = payload.find(b"ispe")
    while at >= 0:
        struct.pack_into(">II", payload, at + 8, 64, 48)
        at = payload.find(b"ispe", at + 4)
    if frames > 1:
        struct.pack_into(">HH", payload, payload.index(b"av01", payload.index(b"stsd")) + 28, 64, 48)
    with pytest.raises(BadInput, match="too large: 1600x1600 is 2560000 pixels; the limit is 1000000"):
        Decoder(PictureLimits(max_pixels=1_000_000, formats=ALL)).decode(bytes(payload))


def test_avif_without_its_data_is_truncated():
    payload = encoded(".avif", photo())
    for kind in (b"iinf", b"iloc", b"av01", b"pitm"):
        with pytest.raises(BadInput, match="the AVIF picture is truncated or corrupted"):
            Decoder(PictureLimits(formats=ALL)).decode(payload.replace(kind, b"free"))


def test_tiles_of_a_tiff_count_too():
    payload = tiff_of(photo(), 2, t322=32768, t323=16384)
    with pytest.raises(BadInput, match="too large: 32768x16384"):
        Decoder(PictureLimits(formats=ALL)).decode(payload)


def test_the_limit_is_inclusive():
    payload = encoded(".png", photo(50, 40))
    assert Decoder(PictureLimits(max_pixels=2000)).decode(payload).frame.shape == (40, 50, 3)
    with pytest.raises(BadInput, match="50x40 is 2000 pixels; the limit is 1999"):
        Decoder(PictureLimits(max_pixels=1999)).decode(payload)


def test_a_limit_that_opencv_would_not_honour_is_refused():
    with pytest.raises(ConfigError, match="max_pixels is 1099511627776, but OpenCV stops at"):
        Decoder(PictureLimits(max_pixels=2**40))


def test_animations_count_by_their_canvas():
    payload = animated(".webp", photo(), 255 - photo())
    with pytest.raises(BadInput, match="too large: 96x64"):
        Decoder(PictureLimits(max_pixels=96 * 64 - 1)).decode(payload)


def test_endless_scans_are_refused(decoder):
    """Each scan of a progressive JPEG is a pass over all its pixels, and may be a few bytes long."""
    payload = encoded(".jpg", photo(), 2, 1)  # IMWRITE_JPEG_PROGRESSIVE
    last = payload.rindex(b"\xff\xda")
    scan = payload[last:-2]
    assert decoder.decode(payload).frame.shape == (64, 96, 3)
    with pytest.raises(BadInput, match="more than 100 scans"):
        decoder.decode(payload[:-2] + scan * 200 + payload[-2:])


def test_a_thumbnail_does_not_lend_its_size(decoder):
    """The preview within EXIF has a frame header of its own, and it is not the picture's."""
    preview = segment(0xE1, b"Exif\0\0" + exif(1) + encoded(".jpg", photo(8, 8)))
    bomb = jpeg_with(forged(".jpg", 30000, 30000), preview)
    with pytest.raises(BadInput, match="30000x30000"):
        decoder.decode(bomb)


def test_endless_segments_are_refused(decoder):
    with pytest.raises(BadInput, match="the JPEG picture is truncated or corrupted"):
        decoder.decode(jpeg_with(encoded(".jpg", photo()), segment(0xFE, b"") * 100_000))


def long_chunk(payload: bytes) -> bytes:
    """A PNG whose pixels are said to take 2 GiB."""
    start = payload.index(b"IDAT") - 4
    return payload[:start] + struct.pack(">I", 2**31 - 1) + payload[start + 4 :]


BOMBS = {
    "png": lambda: png_bomb(30000, 30000),
    "png-header": lambda: forged(".png", 30000, 30000),
    "jpeg-header": lambda: forged(".jpg", 65535, 65535),
    "webp-header": lambda: forged(".webp", 16384, 16384),
    "webp-animation": lambda: webp_of(2**24, 2**24, 0x02, riff_chunk(b"ANIM", bytes(6))),
    "png-chunk": lambda: long_chunk(encoded(".png", photo())),
    "png-text": lambda: png_with(encoded(".png", photo()), struct.pack(">I", 2**29) + b"tEXt"),
    "png-frame": lambda: long_chunk(png_with(animated(".png", photo(), 255 - photo()))),
}


@pytest.fixture(scope="module")
def bombs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bombs")
    for name, build in BOMBS.items():
        (folder / name).write_bytes(build())
    return folder


def test_bombs_take_no_memory(bombs):
    """The worst of all bombs in one process: its peak grows by less than 100 MB."""
    script = """
import pathlib, sys
from parallel_infer.errors import BadInput
from stages.pictures import Decoder, PictureLimits
from tests.pictures.picture_samples import peak
decoder = Decoder(PictureLimits())
payloads = [path.read_bytes() for path in sorted(pathlib.Path(sys.argv[1]).iterdir())]
before = peak()
for payload in payloads:
    try:
        decoder.decode(payload)
    except BadInput:
        continue
    else:
        raise SystemExit("decoded a bomb")
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script, bombs], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100_000  # KiB
    assert done.stderr == ""


def test_opencv_has_its_own_limit_and_one_thread():
    """Behind ours, for whatever a header may hide; it must be set before the import."""
    script = """
import stages.pictures
from stages.opencv import MAX_PIXELS, cv2
import numpy as np
from tests.pictures.picture_samples import encoded, peak, photo, resized_header
assert cv2.getNumThreads() == 1
side = int(MAX_PIXELS ** 0.5) + 1
try:
    frame = cv2.imdecode(np.frombuffer(resized_header(encoded('.png', photo()), side, side), np.uint8), 1)
except cv2.error:
    frame = None
assert frame is None
print(peak())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 300_000
