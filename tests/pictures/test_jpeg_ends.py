"""JPEG pictures and their ends: what is missing, what is in front and what follows."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest
import simplejpeg

from parallel_infer.errors import BadInput
from stages.pictures import Decoder, PictureLimits
from tests.pictures.picture_samples import encoded, exif, jpeg_with, photo, reference, segment

FILM = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(range(1, 255)) * 8


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return Decoder(PictureLimits())


def payload_of(kind: str) -> bytes:
    frame = photo(96, 64)
    match kind:
        case "gray":
            return simplejpeg.encode_jpeg(np.ascontiguousarray(frame[..., :1]), 90, "GRAY", "Gray")
        case "cmyk":
            return simplejpeg.encode_jpeg(np.dstack([255 - frame, frame[..., 0]]).copy(), 90, "CMYK", "444")
        case "progressive":
            return encoded(".jpg", frame, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
        case "restarts":
            return encoded(".jpg", frame, cv2.IMWRITE_JPEG_RST_INTERVAL, 2)
    return encoded(".jpg", frame)


KINDS = ("baseline", "gray", "cmyk", "progressive", "restarts")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("behind", [b"", bytes(1), bytes(2), bytes(5000), b"\xff", b"\xff" * 100, FILM], ids=len)
def test_what_lacks_only_its_end_marker_is_answered(decoder, kind, behind):
    payload = payload_of(kind)
    whole = reference(payload)
    assert np.abs(decoder.decode(payload[:-2] + behind).frame.astype(int) - whole).max() <= 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("behind", [b"", bytes(2), bytes(5000), FILM, FILM + b"\xff\xd9" * 9], ids=len)
@pytest.mark.parametrize("kept", [0.5, 0.8, 0.99])
def test_what_lacks_more_is_truncated(decoder, kind, behind, kept):
    payload = payload_of(kind)
    start = payload.index(b"\xff\xda")
    cut = payload[: start + int((len(payload) - start) * kept)].rstrip(b"\0\xff")
    with pytest.raises(BadInput, match=r"^the JPEG picture is truncated or corrupted$"):
        decoder.decode(cut + behind)


def test_a_progressive_picture_without_its_last_scans_is_truncated(decoder):
    """It ends where a scan ends, so libjpeg-turbo has no word about it."""
    payload = payload_of("progressive")
    with pytest.raises(BadInput, match="truncated"):
        decoder.decode(payload[: payload.rindex(b"\xff\xc4")])


def test_a_missing_end_and_an_orientation(decoder):
    payload = jpeg_with(encoded(".jpg", photo()), segment(0xE1, b"Exif\0\0" + exif(6)))
    frame, geometry = decoder.decode(payload[:-2], lambda width, height: 0.25)
    assert frame.shape[:2] == (24, 16)
    assert geometry[:2] == (64, 96)


def test_empty_pictures_before_the_first_are_passed_over(decoder):
    payload = payload_of("baseline")
    assert np.array_equal(decoder.decode(b"\xff\xd8\xff\xd9" * 3 + payload).frame, reference(payload))
    with pytest.raises(BadInput, match="the JPEG picture is truncated"):
        decoder.decode(b"\xff\xd8\xff\xd9" * 100_000)


@pytest.mark.parametrize("kind", KINDS)
def test_a_film_behind_the_end_marker_does_not_count(decoder, kind):
    """Also where its bytes look like 200 further scans."""
    payload = payload_of(kind)
    film = FILM + b"\xff\xda\0\x08\1\1\0\0\x3f\0" * 200 + os.urandom(1 << 16)
    assert np.abs(decoder.decode(payload + film).frame.astype(int) - reference(payload)).max() <= 1


def test_scans_that_a_segment_seems_to_hide_are_counted(decoder):
    """What is no marker inside coded data has no length that could be skipped."""
    payload = payload_of("progressive")
    scan = payload[payload.rindex(b"\xff\xda") : -2]
    with pytest.raises(BadInput, match="more than 100 scans"):
        decoder.decode(payload[:-2] + b"\xff\x02\xff\xff" + scan * 200 + payload[-2:])


def test_an_end_marker_within_a_segment_is_no_end(decoder):
    payload = payload_of("progressive")
    scan = payload[payload.rindex(b"\xff\xda") : -2]
    with pytest.raises(BadInput, match="more than 100 scans"):
        decoder.decode(payload[:-2] + segment(0xFE, b"\xff\xd9") + scan * 200 + payload[-2:])
    assert decoder.decode(payload[:-2] + segment(0xFE, b"\xff\xd9") + payload[-2:]).frame.shape == (64, 96, 3)


def header(code: int, precision: int, components: int) -> bytes:
    body = bytes([precision, 0, 64, 0, 96, components]) + bytes([1, 0x11, 0]) * components
    scan = bytes([components]) + bytes([1, 0]) * components + bytes([0, 63, 0])
    return b"\xff\xd8" + segment(code, body) + segment(0xDA, scan) + bytes(range(1, 200)) + b"\xff\xd9"


@pytest.mark.parametrize(
    ("payload", "what"),
    [
        (header(0xC1, 12, 3), "JPEG with 12 bits per sample"),
        (header(0xC3, 16, 1), "JPEG with 16 bits per sample"),
        (header(0xC0, 8, 2), "JPEG with 2 components"),
        (header(0xC5, 8, 3), "hierarchical JPEG"),
        (header(0xF7, 8, 3), "JPEG-LS compression"),
    ],
)
def test_kinds_of_jpeg_that_are_not_read_are_named(decoder, payload, what):
    with pytest.raises(BadInput, match=rf"^not supported: {what}; convert it to JPEG or PNG$"):
        decoder.decode(payload)
