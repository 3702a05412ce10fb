"""Every picture the right way up, wherever its format keeps how it was held."""

from __future__ import annotations

import io
import struct
from base64 import b64decode

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from stages.pictures import Decoder, PictureLimits
from tests.pictures.picture_samples import (
    encoded,
    exif,
    jpeg_with,
    photo,
    png_chunk,
    png_with,
    reference,
    riff_chunk,
    segment,
    tiff_of,
    webp_of,
)

ALL = PictureLimits(formats=("jpeg", "png", "webp", "bmp", "tiff", "gif", "avif", "jp2"))

# A gradient of 64x48, cropped to 32x24 (clap, off the centre by 8 and -4), turned left (irot 1), mirrored (imir 0);
# written by avifenc.
GRADIENT = b64decode(
    "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUEAAAEvbWV0YQAAAAAAAAAoaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAGxpYmF2aWYA"
    "AAAADnBpdG0AAAAAAAEAAAAeaWxvYwAAAABEAAABAAEAAAABAAABVwAAAG0AAAAoaWluZgAAAAAAAQAAABppbmZlAgAAAAABAABhdjAxQ29sb3IA"
    "AAAAp2lwcnAAAACFaXBjbwAAABRpc3BlAAAAAAAAAEAAAAAwAAAAEHBpeGkAAAAAAwgICAAAAAxhdjFDgSAAAAAAABNjb2xybmNseAABAA0ABoAA"
    "AAAoY2xhcAAAACAAAAABAAAAGAAAAAEAAAAIAAAAAf////wAAAABAAAACWlyb3QBAAAACWltaXIAAAAAGmlwbWEAAAAAAAAAAQABBwECgwSFhocA"
    "AAB1bWRhdBIACgk4FX+9hAQ0GkAyXhZABhhhhAC/Xczqc7UNuCXuO+HwlPY4uAkk7Pa7KFCgjvNB/99KCqeWuNFaDVjiuadyoGyPUNnJVbCxV1FQ"
    "MXD26kWsMogQ5INqgaJyuPUbbQSWiH+/Mty9RY2HYLQ="
)
LISTED = b"\x01\x02\x83\x04"  # the properties of the picture that change nothing, as `ipma` numbers them
CLAP, IROT, IMIR = 0x85, 0x86, 0x87


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return Decoder(ALL)


def with_properties(*numbers: int) -> bytes:
    """The gradient with these of its transformations, in that order; the others are not associated with it."""
    ipma = LISTED + bytes(numbers)
    listed = bytes([len(ipma)]) + ipma + bytes(3 - len(numbers))
    return GRADIENT.replace(bytes([7]) + LISTED + bytes([CLAP, IROT, IMIR]), listed)


def left_turn(frame):
    return np.rot90(frame)


def top_to_bottom(frame):
    return frame[::-1]


def aperture(frame):
    return frame[24 // 2 - 4 : 24 // 2 - 4 + 24, 16 + 8 : 16 + 8 + 32]


@pytest.mark.parametrize(
    ("numbers", "steps"),
    [
        ((IROT,), [left_turn]),
        ((IMIR,), [top_to_bottom]),
        ((IROT, IMIR), [left_turn, top_to_bottom]),
        ((IMIR, IROT), [top_to_bottom, left_turn]),
        ((CLAP,), [aperture]),
        ((CLAP, IROT, IMIR), [aperture, left_turn, top_to_bottom]),
    ],
)
def test_avif_is_cropped_turned_and_mirrored_in_the_order_of_its_properties(decoder, numbers, steps):
    expected = reference_of_gradient = reference(GRADIENT)
    assert reference_of_gradient.shape == (48, 64, 3)
    for step in steps:
        expected = step(expected)
    frame, geometry = decoder.decode(with_properties(*numbers))
    assert np.array_equal(frame, expected)
    assert geometry[:2] == (expected.shape[1], expected.shape[0])


@pytest.mark.parametrize("turn", range(4))
@pytest.mark.parametrize("axis", [0, 1])
def test_every_turn_and_axis_of_avif(decoder, turn, axis):
    payload = with_properties(IROT, IMIR).replace(b"irot\x01", bytes((*b"irot", turn)))
    payload = payload.replace(b"imir\x00", bytes((*b"imir", axis)))
    expected = np.rot90(reference(GRADIENT), turn)
    assert np.array_equal(decoder.decode(payload).frame, expected[::-1] if axis == 0 else expected[:, ::-1])


def test_a_clean_aperture_outside_the_picture_is_refused(decoder):
    payload = with_properties(CLAP).replace(b"clap\0\0\0\x20", b"clap\0\0\0\x41")
    with pytest.raises(Exception, match="the AVIF picture is truncated or corrupted"):
        decoder.decode(payload)


def saved(form: str, orientation: int, **parameters: object) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    target = io.BytesIO()
    Image.fromarray(photo(64, 48)[..., ::-1]).save(target, form, exif=tags, **parameters)
    return target.getvalue()


def as_pillow(payload: bytes) -> np.ndarray:
    """Turned and in BGR."""
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(payload))).convert("RGB"))[..., ::-1]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("form", "parameters"),
    [("avif", {"quality": 100, "subsampling": "4:4:4"}), ("webp", {"lossless": True}), ("png", {}), ("tiff", {})],
)
def test_what_pillow_wrote_is_seen_as_pillow_sees_it(decoder, orientation, form, parameters):
    payload = saved(form, orientation, **parameters)
    frame, expected = decoder.decode(payload).frame, as_pillow(payload)
    assert frame.shape == expected.shape
    assert np.abs(frame.astype(int) - expected).max() <= 8  # two decoders of AV1's colours


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("alpha", [1, 2])
def test_tiff_with_alpha_is_turned(decoder, orientation, alpha):
    frame = photo(64, 48)[..., ::-1]
    payload = tiff_of(np.dstack([frame, np.full((48, 64), 255, np.uint8)]), 2, t274=orientation, t338=alpha)
    assert np.array_equal(decoder.decode(payload).frame, decoder.decode(tiff_of(frame, 2, t274=orientation)).frame)


def tiled(frame: np.ndarray, side: int, orientation: int) -> bytes:
    """A TIFF of RGB pixels in square tiles; its sides are multiples of `side`."""
    height, width = frame.shape[:2]
    tiles = frame.reshape(height // side, side, width // side, side, 3).swapaxes(1, 2)
    number, size = height * width // side**2, 3 * side**2
    tags = {256: [width], 257: [height], 258: [8] * 3, 259: [1], 262: [2], 274: [orientation], 277: [3], 284: [1]}
    tags |= {322: [side], 323: [side], 324: [0] * number, 325: [size] * number}
    start = 8 + 2 + 12 * len(tags) + 4
    tags[324] = [start + 4 * (3 + 2 * number) + size * tile for tile in range(number)]
    entries = outside = b""
    for tag, values in tags.items():
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(values) > 1:
            packed, outside = struct.pack("<I", start + len(outside)), outside + packed
        entries += struct.pack("<HHI", tag, 4, len(values)) + packed
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + outside + tiles.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_in_tiles_is_turned_as_one_picture(decoder, orientation):
    frame = photo(96, 64)[..., ::-1]
    in_strips = decoder.decode(tiff_of(frame, 2, t274=orientation)).frame
    assert np.array_equal(decoder.decode(tiled(frame, 32, orientation)).frame, in_strips)


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
@pytest.mark.parametrize("before", [True, False])
def test_webp_with_and_without_jpegs_prefix_wherever_the_chunk_stands(decoder, prefix, before):
    frame = photo()
    still = encoded(".webp", frame, cv2.IMWRITE_WEBP_QUALITY, 101)[12:]
    xmp = riff_chunk(b"XMP ", b"<x:xmpmeta/>")
    chunk = riff_chunk(b"EXIF", prefix + exif(6))
    payload = webp_of(96, 64, 0x0C, still, *((chunk, xmp) if before else (xmp, chunk)))
    assert np.array_equal(decoder.decode(payload).frame, np.rot90(frame, -1))


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
def test_png_behind_its_pixels(decoder, prefix):
    frame = photo()
    plain = encoded(".png", frame)
    payload = plain[:-12] + png_chunk(b"eXIf", prefix + exif(6)) + plain[-12:]
    assert np.array_equal(decoder.decode(payload).frame, np.rot90(frame, -1))


def test_a_spoilt_exif_chunk_of_a_png_does_not_count(decoder):
    frame = photo()
    chunk = bytearray(png_chunk(b"eXIf", exif(6)))
    chunk[-1] ^= 1
    assert np.array_equal(decoder.decode(png_with(encoded(".png", frame), bytes(chunk))).frame, frame)


def no_orientation() -> bytes:
    """A sound EXIF block about something else."""
    return exif(6).replace(b"\x01\x12\x00\x03", b"\x01\x31\x00\x03")


def test_of_several_exif_segments_the_first_with_an_orientation_counts(decoder):
    plain = encoded(".jpg", photo())
    blocks = [no_orientation(), exif(6), exif(3)]
    payload = jpeg_with(plain, *(segment(0xE1, b"Exif\0\0" + block) for block in blocks))
    assert np.array_equal(decoder.decode(payload).frame, np.rot90(reference(plain), -1))
    webp = encoded(".webp", photo(), cv2.IMWRITE_WEBP_QUALITY, 101)[12:]
    payload = webp_of(96, 64, 0x08, webp, *(riff_chunk(b"EXIF", block) for block in blocks))
    assert np.array_equal(decoder.decode(payload).frame, np.rot90(photo(), -1))


def test_orientation_in_xmp_only_turns_nothing(decoder):
    plain = encoded(".jpg", photo())
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert np.array_equal(decoder.decode(jpeg_with(plain, segment(0xE1, xmp))).frame, reference(plain))


def test_a_jpeg_that_opencv_must_read_is_turned_too(decoder):
    """CMYK goes another way through the decoder."""
    target = io.BytesIO()
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.fromarray(photo(64, 48)[..., ::-1]).convert("CMYK").save(target, "jpeg", exif=tags, quality=95)
    frame, expected = decoder.decode(target.getvalue()).frame, as_pillow(target.getvalue())
    assert frame.shape == expected.shape
    assert np.abs(frame.astype(int) - expected).max() <= 3
