"""Pictures made after public bug reports of readers: each is the one that its reference, a plain PNG, shows.

`reported/` has them, and the references that an independent reader made of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parallel_infer import read_picture
from parallel_infer.errors import BadInput

FOLDER = Path(__file__).with_name("reported")
SAME = {
    "uvc-no-dht.jpg": "ref-49383328.png",  # UVC camera frame: AVI1 marker, 4:2:2, no Huffman tables
    "uvc-no-dht-padded.jpg": "ref-49383328.png",  # the same in a buffer with 4096 zero bytes behind
    "fill-before-eoi.jpg": "ref-49383328.png",  # several FF before the end marker
    "trailer-after-eoi.jpg": "ref-49383328.png",  # 8 bytes of a maker's box behind the end marker
    "no-eoi-mp4.jpg": "ref-49383328.png",  # end marker missing, a video follows at once
    "com-lies-short.jpg": "ref-49383328.png",  # comment segment longer than it says
    "cmyk-adobe.jpg": "ref-f0ffd244.png",  # CMYK with Adobe marker, stored inverted
    "ycck-adobe.jpg": "ref-587f80ad.png",  # YCCK with Adobe marker
    "rgb-jpeg.jpg": "ref-f0ffd244.png",  # RGB stored without colour transform
    "gray-22.jpg": "ref-0e8f5fa9.png",  # gray with sampling factors 2x2
    "two-views.mpo": "ref-4b400d8c.png",  # MPO of two views
    "exif-after-jfif-xmp.jpg": "ref-0f46ba28.png",  # EXIF behind JFIF and XMP, orientation 6
    "orientation-thumbnail-ifd.jpg": "ref-49383328.png",  # orientation 1 of the picture, 6 of its thumbnail
    "exif-be-unsorted.jpg": "ref-63b4a16e.png",  # big-endian EXIF, tags out of order, orientation 8
    "motion-photo-progressive.jpg": "ref-4b400d8c.png",  # progressive, a video behind the end marker
    "exif2-none-6.jpg": "ref-0f46ba28.png",  # two EXIF segments: the first without orientation, the second with 6
    "interlaced-rgb.png": "ref-e67864b3.png",  # Adam7
    "palette-trns.png": "ref-ea4a32f5.png",  # palette trns
    "palette-trns-interlaced.png": "ref-ea4a32f5.png",  # palette trns interlaced
    "palette-1bit-trns.png": "ref-d46544fb.png",  # palette 1bit trns
    "palette-4bit-trns.png": "ref-db812fae.png",  # palette 4bit trns
    "gray-2bit-trns.png": "ref-a9087479.png",  # gray 2bit trns
    "gray8-trns.png": "ref-81f1dd16.png",  # gray8 trns
    "graya8-interlaced.png": "ref-81f1dd16.png",  # graya8 interlaced
    "rgba16.png": "ref-e67864b3.png",  # rgba16
    "rgb16-trns.png": "ref-e67864b3.png",  # rgb16 trns
    "apng-16bit.png": "ref-e67864b3.png",  # apng 16bit
    "apng-bad-second.png": "ref-e67864b3.png",  # apng bad second
    "exif-before-idat.png": "ref-d5ce7659.png",  # exif before idat
    "exif-after-idat.png": "ref-d5ce7659.png",  # exif after idat
    "png-many-idat.png": "ref-e67864b3.png",  # png many idat
    "png-badcrc-text.png": "ref-e67864b3.png",  # png badcrc text
    "exif.webp": "ref-d5ce7659.png",  # EXIF chunk, orientation 6
    "exif-prefix.webp": "ref-d5ce7659.png",  # EXIF chunk that begins with Exif\0\0, as many writers made it
    "alpha-lossless.webp": "ref-e67864b3.png",  # alpha
    "anim-offset.webp": "ref-b842d37d.png",  # animation whose first frame is smaller than its canvas
    "orient6.avif": "ref-2d03b18d.png",  # AVIF of a phone, turned by irot
    "brand-mif1.avif": "ref-d82137a3.png",  # AVIF whose major brand is mif1, with avif among the compatible ones
    "orient6.tif": "ref-d5ce7659.png",  # TIFF orientation 6
    "white-is-zero16.tif": "ref-81f1dd16.png",  # 16 bits, white is zero
    "palette.tif": "ref-ea4a32f5.png",  # palette
    "cmyk.tif": "ref-e67864b3.png",  # CMYK
    "rgba-half.tif": "ref-e67864b3.png",  # RGB with unassociated alpha of one half
    "rgb32-bitfields-swapped.bmp": "ref-e67864b3.png",  # 32 bits, BITFIELDS with red in the lowest byte
    "rle8.bmp": "ref-ea4a32f5.png",  # RLE8
    "rgb32.bmp": "ref-e67864b3.png",  # 32 bits, fourth byte zero
}


@pytest.mark.parametrize("name", SAME)
def test_a_picture_is_what_its_reference_shows(name: str) -> None:
    found, expected = (read_picture(FOLDER / file).astype(int) for file in (name, SAME[name]))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1, "one level, of inks that become colours"


REFUSED = {
    "apng-bad-filter.png": "the PNG picture is truncated or corrupted",
    "twelve-bit.jpg": "not supported: JPEG with 12 bits per sample",
    "five.tif": "not supported: TIFF of this kind with 5 samples per pixel",
    "e.heic": "HEIC pictures are not supported: convert it to JPEG or PNG",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_picture_that_nobody_reads_is_refused_by_name(name: str) -> None:
    with pytest.raises(BadInput, match=REFUSED[name]):
        read_picture(FOLDER / name)


WHOLE = {  # readers differ on these: all their pixels are there
    "no-eoi.jpg": (48, 64),
    "stub-before.jpg": (48, 64),
    "xmp-orientation-only.jpg": (48, 64),
    "exif-raw-profile.png": (48, 64),
    "png-no-iend.png": (48, 64),
    "png-bad-icc.png": (48, 64),
    "frame-over-canvas.gif": (48, 64),
    "a.jfif": (320, 320),
    "chelsea-bayer.png": (898, 1350),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_picture_whose_pixels_are_all_there_is_read(name: str) -> None:
    assert read_picture(FOLDER / name).shape == (*WHOLE[name], 3)


def test_what_was_read_before_does_not_show_in_a_picture_that_was_cut() -> None:
    found = []
    for before in (np.full((192, 256, 3), 255, np.uint8), np.zeros((192, 256, 3), np.uint8)):
        read_picture(png_of(before))
        found.append(read_picture(FOLDER / "cut-60-eoi.jpg"))
    np.testing.assert_array_equal(found[0], found[1])


def png_of(frame: np.ndarray) -> bytes:
    import cv2

    return cv2.imencode(".png", frame)[1].tobytes()
