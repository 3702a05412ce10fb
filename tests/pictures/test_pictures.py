"""Sound payloads: the same pixels as OpenCV, the right way up, whatever the format."""

from __future__ import annotations

import zlib

import cv2
import numpy as np
import pytest
import simplejpeg

from stages.pictures import Decoder, PictureLimits
from tests.pictures.picture_samples import (
    animated,
    bounds,
    encoded,
    exif,
    jpeg_with,
    photo,
    png_chunk,
    png_with,
    reference,
    riff_chunk,
    segment,
    webp_of,
)

ALL = PictureLimits(formats=("jpeg", "png", "webp", "bmp", "tiff", "gif", "avif", "jp2"))


@pytest.fixture
def decoder() -> Decoder:
    return Decoder(PictureLimits())


def assert_same(decoder: Decoder, payload: bytes, within: int = 1) -> None:
    picture, expected = decoder.decode(payload), reference(payload)
    assert picture.frame.dtype == np.uint8
    assert picture.frame.shape == expected.shape
    assert np.abs(picture.frame.astype(int) - expected).max() <= within
    assert picture.geometry == (expected.shape[1], expected.shape[0], 1, 1, 0, 0)


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411", "Gray"])
@pytest.mark.parametrize("size", [(96, 64), (97, 61), (1, 1), (7, 300)])
def test_jpeg_has_the_pixels_of_opencv(decoder, subsampling, size):
    frame = photo(*size)
    if subsampling == "Gray":
        frame = np.ascontiguousarray(frame[..., :1])
    color = "GRAY" if subsampling == "Gray" else "BGR"
    assert_same(decoder, simplejpeg.encode_jpeg(frame, 90, color, subsampling))


@pytest.mark.parametrize("parameters", [(cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)])
def test_progressive_and_restarting_jpegs(decoder, parameters):
    assert_same(decoder, encoded(".jpg", photo(), *parameters))


@pytest.mark.parametrize("subsampling", ["444", "422"])
def test_cmyk_jpeg_becomes_bgr(decoder, subsampling):
    frame = photo()
    cmyk = np.ascontiguousarray(np.dstack([255 - frame[..., ::-1], np.full(frame.shape[:2], 30, np.uint8)]))
    assert_same(decoder, simplejpeg.encode_jpeg(cmyk, 95, "CMYK", subsampling))


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp", ".tiff", ".gif", ".avif", ".jp2"])
@pytest.mark.parametrize("size", [(96, 64), (33, 65)])
def test_other_formats_have_the_pixels_of_opencv(suffix, size):
    assert_same(Decoder(ALL), encoded(suffix, photo(*size)))


def test_lossless_webp(decoder):
    payload = encoded(".webp", photo(), cv2.IMWRITE_WEBP_QUALITY, 101)
    assert payload[12:16] == b"VP8L"
    assert np.array_equal(decoder.decode(payload).frame, photo())


def test_gray_becomes_three_channels(decoder):
    gray = photo()[..., 1]
    assert np.array_equal(decoder.decode(encoded(".png", gray)).frame, np.dstack([gray] * 3))


def test_16_bit_becomes_8_bit(decoder):
    frame = photo()
    payload = encoded(".png", frame.astype(np.uint16) * 257)
    assert np.array_equal(decoder.decode(payload).frame, frame)


def test_alpha_is_dropped(decoder):
    frame = photo()
    payload = encoded(".png", np.dstack([frame, frame[..., 0]]))
    assert np.array_equal(decoder.decode(payload).frame, frame)


def test_gray_with_alpha_and_palettes(decoder):
    header = bytes([0, 0, 0, 2, 0, 0, 0, 1])
    signature = b"\x89PNG\r\n\x1a\n"

    def png(depth, color, rows, *chunks):
        ihdr = png_chunk(b"IHDR", header + bytes([depth, color, 0, 0, 0]))
        return signature + ihdr + b"".join(chunks) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")

    gray_alpha = png(8, 4, bytes([0, 10, 255, 200, 255]))
    assert decoder.decode(gray_alpha).frame.tolist() == [[[10] * 3, [200] * 3]]
    palette = png(8, 3, bytes([0, 1, 0]), png_chunk(b"PLTE", bytes([1, 2, 3, 4, 5, 6])))
    assert decoder.decode(palette).frame.tolist() == [[[6, 5, 4], [3, 2, 1]]]


@pytest.mark.parametrize("suffix", [".webp", ".png", ".gif"])
def test_of_an_animation_the_first_frame(suffix):
    first = photo()
    payload = animated(suffix, first, 255 - first, first // 2)
    frame = Decoder(ALL).decode(payload).frame
    assert frame.shape == first.shape
    assert np.abs(frame.astype(int) - first).mean() < 20 < np.abs(frame.astype(int) - (255 - first)).mean()


def turned(frame, orientation):
    """EXIF 2.32: which corner of the picture the first stored pixel is."""
    if orientation >= 5:
        frame = frame.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        frame = frame[:, ::-1]
    return frame[::-1] if orientation in (3, 4, 7, 8) else frame


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("order", "kind"), [(">", 3), ("<", 3), ("<", 4)])
def test_jpeg_is_turned_as_exif_says(decoder, orientation, order, kind):
    plain = encoded(".jpg", photo())
    payload = jpeg_with(plain, segment(0xE1, b"Exif\0\0" + exif(orientation, order, kind)))
    assert np.array_equal(decoder.decode(payload).frame, turned(reference(plain), orientation))
    if kind == 3:
        assert_same(decoder, payload)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_png_and_webp_are_turned_too(decoder, orientation):
    frame = photo()
    png = png_with(encoded(".png", frame), png_chunk(b"eXIf", exif(orientation)))
    assert np.array_equal(decoder.decode(png).frame, turned(frame, orientation))
    still = encoded(".webp", frame, cv2.IMWRITE_WEBP_QUALITY, 101)
    webp = webp_of(96, 64, 0x08, still[12:], riff_chunk(b"EXIF", exif(orientation)))
    assert np.array_equal(decoder.decode(webp).frame, turned(frame, orientation))


@pytest.mark.parametrize("content", [exif(0), exif(9), exif(6)[:9], b"", b"XX" + exif(6)[2:], exif(6, kind=2)])
def test_exif_without_sense_turns_nothing(decoder, content):
    plain = encoded(".jpg", photo())
    payload = jpeg_with(plain, segment(0xE1, b"Exif\0\0" + content))
    assert np.array_equal(decoder.decode(payload).frame, reference(plain))


def test_exif_is_found_behind_other_segments(decoder):
    plain = encoded(".jpg", photo())
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>")
    payload = jpeg_with(plain, xmp, segment(0xE1, b"Exif\0\0" + exif(6)), segment(0xE1, b"Exif\0\0" + exif(3)))
    assert np.array_equal(decoder.decode(payload).frame, turned(reference(plain), 6))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_payload_may_lie_in_shared_memory(decoder, suffix):
    payload = encoded(suffix, photo())
    view = memoryview(bytearray(b"\0" * 5 + payload + b"\0" * 3))[5:-3]
    assert np.array_equal(decoder.decode(view.toreadonly()).frame, reference(payload))


@pytest.mark.parametrize("orientation", [1, 6])
def test_jpegs_are_decoded_into_the_same_memory(decoder, orientation):
    marker = segment(0xE1, b"Exif\0\0" + exif(orientation))
    payloads = [jpeg_with(encoded(".jpg", photo(*size)), marker) for size in ((640, 480), (320, 200), (640, 480))]
    addresses = {decoder.decode(payload).frame.__array_interface__["data"][0] for payload in payloads}
    assert len(addresses) == 1


def test_a_picture_beyond_the_kept_memory_is_decoded_all_the_same(decoder):
    payload = encoded(".jpg", np.full((4000, 6000, 3), 77, np.uint8))
    assert (decoder.decode(payload).frame == 77).all()
    assert_same(decoder, encoded(".jpg", photo()))


@pytest.mark.parametrize(
    ("least", "shape"),
    [(1.0, (200, 300)), (0.51, (200, 300)), (0.5, (100, 150)), (0.3, (100, 150)), (0.25, (50, 75)), (0.01, (25, 38))],
)
def test_a_reduced_decode_is_the_smallest_that_is_enough(decoder, least, shape):
    assert decoder.decode(encoded(".jpg", photo(300, 200)), lambda width, height: least).frame.shape[:2] == shape


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_decode_knows_where_its_pixels_were(decoder, orientation):
    """A bright square keeps its place, also where the size is no multiple of eight."""
    canvas = np.zeros((203, 301, 3), np.uint8)
    canvas[96:120, 200:232] = 255
    plain = encoded(".jpg", canvas, cv2.IMWRITE_JPEG_QUALITY, 100)
    payload = jpeg_with(plain, segment(0xE1, b"Exif\0\0" + exif(orientation)))
    seen: list[tuple[int, int]] = []

    def least(width: int, height: int) -> float:
        seen.append((width, height))
        return 0.25

    frame, geometry = decoder.decode(payload, least)
    full = turned(canvas, orientation)
    assert seen == [full.shape[1::-1]] == [geometry[:2]]
    found = geometry.boxes_to_frame(bounds(frame[..., 0] > 127)[None])[0]
    assert np.abs(found - bounds(full[..., 0] > 0)).max() <= 2  # half a pixel at 1/4


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (1, 8), (9, 2), (8, 8)])
def test_tiny_pictures_at_reduced_scale(decoder, size):
    frame, geometry = decoder.decode(encoded(".jpg", photo(*size)), lambda width, height: 0.01)
    assert geometry[:2] == size
    assert frame.shape[1::-1] == tuple(-(-side * int(geometry.scale_x * 8) // 8) for side in size)
