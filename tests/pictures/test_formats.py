"""Formats as their makers defined them, where OpenCV alone does something else."""

from __future__ import annotations

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from parallel_infer.errors import BadInput
from stages.pictures import Decoder, PictureLimits
from tests.pictures.picture_samples import animated, bmp_of, encoded, photo, reference, tiff_of

ALL = PictureLimits(formats=("jpeg", "png", "webp", "bmp", "tiff", "gif", "avif", "jp2"))
PHOTO = photo(63, 48)  # odd: lines of 16 bits need padding
RGB = PHOTO[..., ::-1]


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return Decoder(ALL)


def packed(bits: int, masks: tuple[int, ...]) -> bytes:
    """The photo's lines from the bottom up, red, green and blue where the masks say, any alpha half."""
    words = np.zeros(RGB.shape[:2], np.uint32)
    for channel, mask in enumerate(masks):
        top = mask >> ((mask & -mask).bit_length() - 1)
        values = (RGB[..., channel].astype(np.uint64) * top + 127) // 255 if channel < 3 else np.uint64(top // 2)
        words |= (values * (mask & -mask)).astype(np.uint32)
    lines = words.astype("<u2" if bits == 16 else "<u4")[::-1]
    return b"".join(line.tobytes() + bytes(-line.nbytes % 4) for line in lines)


def rounded(masks: tuple[int, ...]) -> np.ndarray:
    """The photo with the bits that the masks leave."""
    tops = np.array([mask >> ((mask & -mask).bit_length() - 1) for mask in masks[:3]], np.float64)
    return np.round((np.round(RGB * tops / 255 - 1e-9)) * 255 / tops)[..., ::-1]


MASKS = {
    "565": (16, (0xF800, 0x07E0, 0x001F)),
    "565 BGR": (16, (0x001F, 0x07E0, 0xF800)),
    "1555": (16, (0x7C00, 0x03E0, 0x001F, 0x8000)),
    "4444": (16, (0x0F00, 0x00F0, 0x000F, 0xF000)),
    "8888": (32, (0xFF0000, 0xFF00, 0xFF)),
    "swapped": (32, (0xFF, 0xFF00, 0xFF0000)),
    "RGBA": (32, (0xFF000000, 0xFF0000, 0xFF00, 0xFF)),
    "101010": (32, (0x3FF00000, 0x000FFC00, 0x000003FF)),
}


@pytest.mark.parametrize("header", [40, 52, 56, 108, 124])
@pytest.mark.parametrize("name", MASKS)
def test_bmp_channels_lie_where_the_masks_say(decoder, name, header):
    bits, masks = MASKS[name]
    compression = 6 if header == 40 and len(masks) == 4 else 3
    payload = bmp_of(packed(bits, masks), (63, 48), bits, compression, header, *masks[: (header - 40) // 4 or 4])
    frame = decoder.decode(payload).frame
    assert frame.flags.c_contiguous
    assert np.abs(frame - rounded(masks)).max() <= 1


def test_bmp_from_the_top_down_and_without_masks(decoder):
    masks = (0x7C00, 0x03E0, 0x001F)
    upward = decoder.decode(bmp_of(packed(16, masks), (63, 48), 16, 0, 40)).frame
    assert np.abs(upward - rounded(masks)).max() <= 1
    downward = decoder.decode(bmp_of(packed(16, masks), (63, -48), 16, 0, 40)).frame
    assert np.array_equal(downward, upward[::-1])


@pytest.mark.parametrize("masks", [(0xFF00FF, 0xFF00, 0xFF), (0xF0F0, 0xFF, 0x0)])
def test_bmp_masks_with_gaps_are_refused(decoder, masks):
    with pytest.raises(BadInput, match="the BMP picture is truncated or corrupted"):
        decoder.decode(bmp_of(bytes(64 * 4 * 48), (63, 48), 32, 3, 40, *masks))


def test_a_bmp_whose_pixels_are_missing_is_refused(decoder):
    bits, masks = MASKS["565"]
    whole = bmp_of(packed(bits, masks), (63, 48), bits, 3, 40, *masks)
    assert np.array_equal(decoder.decode(whole[:-2]).frame, decoder.decode(whole).frame)  # the last line's padding
    with pytest.raises(BadInput, match="the BMP picture is truncated or corrupted"):
        decoder.decode(whole[:-3])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("alpha", [0, 2])
def test_tiff_colours_are_not_multiplied_by_alpha(decoder, order, dtype, alpha):
    pixels = np.dstack([RGB, np.full(RGB.shape[:2], 100, np.uint8)]).astype(dtype) * (257 if dtype == np.uint16 else 1)
    payload = tiff_of(pixels, 2, order, t338=alpha)
    assert np.array_equal(decoder.decode(payload).frame, PHOTO)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_colours_that_were_multiplied_by_alpha_are_divided_again(decoder, dtype):
    multiplied = (RGB.astype(int) * 200 + 127) // 255
    pixels = np.dstack([multiplied, np.full(RGB.shape[:2], 200)]).astype(dtype) * (257 if dtype == np.uint16 else 1)
    frame = decoder.decode(tiff_of(pixels.astype(dtype), 2, t338=1)).frame
    assert np.abs(frame.astype(int) - PHOTO).max() <= 1


@pytest.mark.parametrize(("photometric", "samples"), [(0, 1), (1, 1), (6, 3)])
def test_tiff_colours_that_were_multiplied_and_cannot_be_divided_are_refused(decoder, photometric, samples):
    """OpenCV drops the alpha of these: their colours would be too dark in silence."""
    pixels = np.dstack([*[PHOTO[..., :1]] * samples, np.full(PHOTO.shape[:2], 200, np.uint8)])
    with pytest.raises(BadInput, match="multiplied by their alpha"):
        decoder.decode(tiff_of(pixels, photometric, t338=1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_with_white_as_zero_and_gray_with_alpha(decoder, dtype):
    gray = PHOTO[..., :1].astype(dtype) * (257 if dtype == np.uint16 else 1)
    expected = np.dstack([PHOTO[..., 0]] * 3)
    assert np.array_equal(decoder.decode(tiff_of(np.iinfo(dtype).max - gray, 0)).frame, expected)
    assert np.array_equal(decoder.decode(tiff_of(gray, 1)).frame, expected)


MODES = {
    "tiff": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK"),
    "png": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "bmp": ("1", "L", "P", "RGB", "RGBA"),
    "gif": ("1", "L", "P", "RGB"),
    "webp": ("RGB", "RGBA"),
}


@pytest.mark.parametrize(("form", "mode"), [(form, mode) for form, modes in MODES.items() for mode in modes])
def test_modes_are_read_as_pillow_reads_them(decoder, mode, form):
    target = io.BytesIO()
    picture = Image.fromarray(RGB)
    if mode.endswith("A"):
        picture.putalpha(120)
    picture.convert(mode).save(target, form, **({"lossless": True, "exact": True} if form == "webp" else {}))
    expected = np.asarray(Image.open(io.BytesIO(target.getvalue())).convert("RGB"))[..., ::-1]
    assert np.abs(decoder.decode(target.getvalue()).frame.astype(int) - expected).max() <= 1


NOT_READ = {
    "5 samples per pixel": lambda: tiff_of(np.dstack([RGB, RGB[..., :2]]), 2),
    "3 samples per pixel": lambda: tiff_of(RGB, 1),
    "this kind with 5 samples": lambda: tiff_of(np.dstack([RGB, RGB[..., :2]]), 5, t338=2),
    "16 bits": lambda: tiff_of(np.dstack([RGB, RGB[..., :1]]).astype(np.uint16), 5),
    "2 bits": lambda: tiff_of(RGB[..., :1], 1, t258=2),
    "4 bits": lambda: tiff_of(RGB[..., :1], 0, t258=4),
    "floating-point numbers": lambda: tiff_of(RGB.astype(np.uint16), 2, t339=(3, 3, 3)),
    "signed integers": lambda: tiff_of(RGB, 2, t339=(2, 2, 2)),
    "CIE L": lambda: tiff_of(RGB, 8),
    "12 bits": lambda: tiff_of(RGB, 2, t258=(12, 12, 12)),
    "Zstandard": lambda: tiff_of(RGB, 2, t259=50000),
    "JPEG XL": lambda: tiff_of(RGB, 2, t259=50002),
    "JPEG 2000": lambda: tiff_of(RGB, 2, t259=34712),
    "number 999": lambda: tiff_of(RGB, 2, t259=999),
    "raw file of a camera": lambda: tiff_of(RGB[..., :1], 32803),
}


@pytest.mark.parametrize("what", NOT_READ)
def test_kinds_of_tiff_that_are_not_read_are_named(decoder, what):
    with pytest.raises(BadInput, match=rf"^not supported: .*{what}.*; convert it to JPEG or PNG$"):
        decoder.decode(NOT_READ[what]())


@pytest.mark.parametrize(
    ("payload", "what"),
    [
        (bmp_of(bytes(99), (63, 48), 24, 4, 40), "BMP with compression number 4"),
        (bmp_of(bytes(99), (63, 48), 0, 5, 40), "BMP with 0 bits per pixel"),
        (bmp_of(bytes(99), (63, 48), 24, 4, 64), "BMP with compression number 4"),
        (bmp_of(bytes(99), (63, 48), 1, 3, 64), "BMP with compression number 3"),
        (bmp_of(bytes(99), (63, 48), 64, 0, 40), "BMP with 64 bits per pixel"),
    ],
)
def test_kinds_of_bmp_that_are_not_read_are_named(decoder, payload, what):
    with pytest.raises(BadInput, match=rf"^not supported: {what}; convert it to JPEG or PNG$"):
        decoder.decode(payload)


def test_jpeg_2000_of_many_components_is_named(decoder):
    payload = bytearray(encoded(".jp2", PHOTO))
    struct.pack_into(">H", payload, payload.index(b"\xff\x4f\xff\x51") + 40, 5)
    with pytest.raises(BadInput, match="^not supported: JPEG 2000 with 5 components"):
        decoder.decode(bytes(payload))


@pytest.mark.parametrize("span", ["full", "limited"])
def test_gray_avif_of_either_range_has_its_whole_contrast(decoder, span):
    target = io.BytesIO()
    gray = Image.fromarray(RGB).convert("L")
    gray.convert("RGB").save(target, "avif", quality=100, subsampling="4:0:0", range=span)
    frame = decoder.decode(target.getvalue()).frame
    assert np.abs(frame.astype(int) - np.asarray(gray)[..., None]).mean() < 1.5


def jpeg_2000(mode: str, **parameters: object) -> bytes:
    target = io.BytesIO()
    Image.fromarray(RGB).convert(mode).save(target, "jpeg2000", **parameters)
    return target.getvalue()


def test_luma_and_chroma_of_jpeg_2000_are_those_of_jpeg(decoder):
    frame = decoder.decode(jpeg_2000("YCbCr")).frame
    assert np.abs(frame[..., ::-1].astype(int) - RGB).max() <= 4  # the rounding of 8-bit chroma


def subsampled() -> bytes:
    """One that says of its second component that it has every other column only."""
    payload = bytearray(jpeg_2000("RGB"))
    payload[payload.index(b"\xff\x4f\xff\x51") + 46] = 2
    return bytes(payload)


@pytest.mark.parametrize(
    ("payload", "what"),
    [
        (jpeg_2000("CMYK"), "JPEG 2000 with CMYK colours"),
        (
            jpeg_2000("RGB").replace(b"colr\1\0\0\0\0\0\x10", b"colr\1\0\0\0\0\0\x0e"),
            "JPEG 2000 with CIE L.a.b. colours",
        ),
        (jpeg_2000("RGB", offset=(3, 5), tile_size=(64, 64)), "JPEG 2000 that does not begin at the origin"),
        (subsampled(), "JPEG 2000 with subsampled components"),
    ],
)
def test_kinds_of_jpeg_2000_that_are_not_read_are_named(decoder, payload, what):
    with pytest.raises(BadInput, match=rf"^not supported: {what}.*; convert it to JPEG or PNG$"):
        decoder.decode(payload)


def test_a_preview_of_a_raw_file_is_not_taken_for_the_picture(decoder):
    """NEF, ARW and their like are TIFF files that begin with a small preview."""
    with pytest.raises(BadInput, match="^not supported: a raw file of a camera"):
        decoder.decode(tiff_of(RGB, 2, t254=1, t330=(0,)))


def test_of_a_gif_the_palette_counts_and_not_the_background(decoder):
    indexed = Image.fromarray(RGB).quantize(32)
    target = io.BytesIO()
    indexed.save(target, "gif", transparency=int(np.asarray(indexed)[0, 0]))
    assert (
        np.abs(
            decoder.decode(target.getvalue()).frame.astype(int) - np.asarray(indexed.convert("RGB"))[..., ::-1]
        ).max()
        <= 1
    )


def test_a_gif_whose_frame_is_larger_than_its_canvas_is_as_large_as_the_frame(decoder):
    payload = bytearray(encoded(".gif", PHOTO))
    whole = decoder.decode(bytes(payload)).frame.copy()
    struct.pack_into("<HH", payload, 6, 20, 10)
    assert np.array_equal(decoder.decode(bytes(payload)).frame, whole)
    small = PictureLimits(max_pixels=63 * 48 - 1, formats=("gif",))
    with pytest.raises(BadInput, match="too large: 63x48"):
        Decoder(small).decode(bytes(payload))


def test_a_png_without_its_end_has_all_its_pixels(decoder):
    payload = encoded(".png", PHOTO)
    for missing in (1, 8, 12):
        assert np.array_equal(decoder.decode(payload[:-missing]).frame, PHOTO)


def test_a_png_that_ends_between_two_of_its_parts_is_truncated(decoder):
    payload = encoded(".png", photo(400, 300))
    start = payload.index(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", payload, start)
    assert payload[start + 12 + length + 4 :][:4] == b"IDAT"  # there is a second one
    with pytest.raises(BadInput, match="the PNG picture is truncated or corrupted"):
        decoder.decode(payload[: start + 12 + length])


def brands(payload: bytes, major: bytes, *compatible: bytes) -> bytes:
    """An AVIF with other brands in a box of the same length."""
    length = int.from_bytes(payload[:4], "big")
    listed = major + bytes(4) + b"".join(compatible)
    assert len(listed) <= length - 8
    return payload[:8] + listed.ljust(length - 8, b"\0") + payload[length:]


def test_avif_is_known_by_any_of_its_brands(decoder):
    payload = encoded(".avif", PHOTO)
    for major, compatible in ((b"mif1", b"avif"), (b"avif", b"mif1"), (b"miaf", b"avif")):
        assert np.array_equal(decoder.decode(brands(payload, major, compatible)).frame, reference(payload))
    with pytest.raises(BadInput, match="^HEIC pictures are not supported"):
        decoder.decode(brands(payload, b"mif1", b"heic"))


def test_of_an_avif_sequence_the_first_picture(decoder):
    payload = animated(".avif", PHOTO, 255 - PHOTO)
    assert payload[8:12] == b"avis"
    frame = decoder.decode(payload).frame
    assert frame.shape == PHOTO.shape
    assert np.abs(frame.astype(int) - PHOTO).mean() < 20


@pytest.mark.parametrize("depth", [10, 12])
def test_deep_avif(decoder, depth):
    payload = encoded(".avif", PHOTO.astype(np.uint16) << (depth - 8), cv2.IMWRITE_AVIF_DEPTH, depth)
    assert np.abs(decoder.decode(payload).frame.astype(int) - PHOTO).mean() < 10


def test_avif_with_alpha_keeps_its_colours(decoder):
    target = io.BytesIO()
    picture = Image.fromarray(RGB)
    picture.putalpha(100)
    picture.save(target, "avif", quality=95)
    assert np.abs(decoder.decode(target.getvalue()).frame.astype(int) - PHOTO).mean() < 6
