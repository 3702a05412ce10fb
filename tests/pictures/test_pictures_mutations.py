"""Whatever bytes come: a frame within the limits or BadInput, never another error."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parallel_infer.errors import BadInput
from stages.pictures import Decoder, PictureLimits
from tests.pictures.picture_samples import animated, bmp_of, encoded, exif, jpeg_with, photo, segment, tiff_of

LIMITS = PictureLimits(max_pixels=100_000, formats=("jpeg", "png", "webp", "bmp", "tiff", "gif", "avif", "jp2"))
DECODER = Decoder(LIMITS)

SEEDS = {
    "jpeg": jpeg_with(encoded(".jpg", photo(24, 16)), segment(0xE1, b"Exif\0\0" + exif(6))),
    "progressive": encoded(".jpg", photo(24, 16), cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "png": encoded(".png", photo(24, 16)),
    "apng": animated(".png", photo(24, 16), 255 - photo(24, 16)),
    "webp": encoded(".webp", photo(24, 16), cv2.IMWRITE_WEBP_QUALITY, 60),
    "lossless": encoded(".webp", photo(24, 16), cv2.IMWRITE_WEBP_QUALITY, 101),
    "animation": animated(".webp", photo(24, 16), 255 - photo(24, 16)),
    "bmp": encoded(".bmp", photo(24, 16)),
    "tiff": encoded(".tiff", photo(24, 16)),
    "gif": encoded(".gif", photo(24, 16)),
    "avif": encoded(".avif", photo(24, 16)),
    "jp2": encoded(".jp2", photo(48, 40)),
    "sequence": animated(".avif", photo(24, 16), 255 - photo(24, 16)),
    "masks": bmp_of(photo(32, 16)[..., :2].tobytes(), (32, 16), 16, 3, 56, 0xF800, 0x07E0, 0x001F, 0),
    "alpha": tiff_of(np.dstack([photo(24, 16)] * 2)[..., :4], 2, t338=2, t274=6),
    "multiplied": tiff_of(np.dstack([photo(24, 16)] * 2)[..., :4], 2, ">", t338=1),
}

EDITS = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from(["set", "cut", "insert"]), st.binary(max_size=8)),
    min_size=1,
    max_size=6,
)


def edited(payload: bytes, edits: list[tuple[float, str, bytes]], spread: int) -> bytes:
    """`edits` at places within the first `spread` bytes, where the headers are, or anywhere."""
    changed = bytearray(payload)
    for place, how, content in edits:
        start = int(place * min(spread, len(changed)))
        end = {"set": start + len(content), "cut": start + 1 + len(content), "insert": start}[how]
        changed[start:end] = b"" if how == "cut" else content
    return bytes(changed)


def mended(payload: bytes) -> bytes:
    """A PNG whose checksums are right, so that the decoder looks at what they protect."""
    mended, position = bytearray(payload), 8
    while position + 12 <= len(mended):
        (length,) = struct.unpack_from(">I", mended, position)
        end = position + 8 + length
        if end + 4 > len(mended):
            break
        struct.pack_into(">I", mended, end, zlib.crc32(bytes(mended[position + 4 : end])))
        position = end + 4
    return bytes(mended)


def survive(payload: bytes) -> None:
    for least in (None, lambda width, height: 0.2):
        try:
            frame, geometry = DECODER.decode(payload, least)
        except BadInput:
            continue
        assert frame.dtype == np.uint8
        assert frame.ndim == 3
        assert frame.shape[2] == 3
        assert 0 < geometry.width * geometry.height <= LIMITS.max_pixels


@pytest.mark.parametrize("kind", SEEDS)
@given(edits=EDITS, spread=st.sampled_from([40, 200, 10_000]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mutations(kind, edits, spread):
    payload = edited(SEEDS[kind], edits, spread)
    survive(mended(payload) if kind in ("png", "apng") else payload)


def test_a_sequence_is_as_large_as_its_track_header_says():
    """Frames are scaled to that size."""
    payload = edited(SEEDS["sequence"], [(0.3747452840904977, "set", b"\x04\x00\x00b")], 10_000)
    with pytest.raises(BadInput, match="4x25104"):
        DECODER.decode(payload)


@given(start=st.sampled_from([seed[:12] for seed in SEEDS.values()]), rest=st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_random_bytes_behind_a_magic(start, rest):
    survive(start + rest)


@given(st.binary(max_size=64))
@settings(max_examples=200, deadline=None)
def test_random_bytes(payload):
    with pytest.raises(BadInput):
        DECODER.decode(payload)
