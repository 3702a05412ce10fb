"""BMP pixels of 16 and 32 bits whose channels lie where masks say, which OpenCV reads as if they lay as usual.

[MS-WMF] 2.2.2.3 to 2.2.2.5: the masks follow the 40 bytes of BITMAPINFOHEADER, as a table of their own or as the
beginning of the longer headers (V2 to V5).
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from stages.frame import Frame

_BITFIELDS = (3, 6)  # BI_BITFIELDS, BI_ALPHABITFIELDS
_RGB, _FIVE_BITS = 0, (0x7C00, 0x03E0, 0x001F)  # BI_RGB of 16 bits
_OS2 = frozenset({12, 64})  # sizes of headers whose numbers for compression mean something else
_OS2_FIRST = 12
_DEPTHS = frozenset({1, 4, 8, 16, 24, 32})
_COMPRESSIONS, _OS2_COMPRESSIONS = frozenset({0, 1, 2, 3, 6}), frozenset({0, 1, 2})  # none, RLE8, RLE4, masks
_LINES = 256  # that are unpacked at a time


def masked_frame(payload: memoryview, width: int, height: int) -> Frame | None:
    """Pixels of a BMP with masks, uint8 [h, w, 3] BGR; None where it has none. Alpha is dropped.

    Raises ValueError where the pixels or the masks are not all there.
    """
    (header,) = struct.unpack_from("<I", payload, 14)
    bits, compression = struct.unpack_from("<HI", payload, 28) if header not in _OS2 else (0, 0)
    if bits == 16 and compression == _RGB:
        masks: tuple[int, ...] = _FIVE_BITS
    elif bits in (16, 32) and compression in _BITFIELDS:
        masks = struct.unpack_from("<3I", payload, 54)
    else:
        return None
    lines = _lines(payload, width, height, bits)
    frame: Frame = np.empty((height, width, 3), np.uint8)
    (signed_height,) = struct.unpack_from("<i", payload, 22)
    stored = frame if signed_height < 0 else frame[::-1]  # in the order of the lines in the file
    for start in range(0, height, _LINES):
        part = lines[start : start + _LINES]
        for channel, mask in zip((2, 1, 0), masks, strict=True):
            stored[start : start + _LINES, :, channel] = _channel(part, mask)
    return frame


def unsupported(payload: memoryview) -> str:
    """What about a BMP is not read; "" where nothing is: embedded JPEG and PNG, OS/2's own compressions, odd depths."""
    (header,) = struct.unpack_from("<I", payload, 14)
    bits, compression = struct.unpack_from("<HI", payload, 28) if header != _OS2_FIRST else (0, 0)
    if header == _OS2_FIRST:
        (bits,) = struct.unpack_from("<H", payload, 24)
    if bits not in _DEPTHS:
        return f"BMP with {bits} bits per pixel"
    known = _COMPRESSIONS if header not in _OS2 else _OS2_COMPRESSIONS
    return "" if compression in known else f"BMP with compression number {compression}"


def _lines(payload: memoryview, width: int, height: int, bits: int) -> npt.NDArray[np.uint16 | np.uint32]:
    """Pixels as stored, [h, w]; lines begin at multiples of four bytes."""
    (start,) = struct.unpack_from("<I", payload, 10)
    step = -(-width * bits // 32) * 4
    missing = start + step * height - len(payload)
    if missing > step - width * bits // 8:  # the last line's padding may be left out
        raise ValueError("the pixels are not all there")
    stored = payload[start : start + step * height]
    if missing > 0:
        stored = memoryview(bytes(stored) + bytes(missing))
    lines = np.frombuffer(stored, np.uint8).reshape(height, step)
    return lines[:, : width * bits // 8].view("<u2" if bits == 16 else "<u4")


def _channel(pixels: npt.NDArray[np.uint16 | np.uint32], mask: int) -> npt.NDArray[np.uint8]:
    """One channel, spread from the bits of its mask to 0..255."""
    if mask == 0:
        return np.zeros(pixels.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    top = mask >> shift
    if top & (top + 1) or mask >> 8 * pixels.itemsize:
        raise ValueError("a mask with gaps, or beyond the pixel")
    values = pixels >> pixels.dtype.type(shift) & pixels.dtype.type(top)
    if top == 255:
        return values.astype(np.uint8)
    spread = values.astype(np.uint64) * 255 if top > 255 else values.astype(np.uint32) * 255
    return ((spread + top // 2) // top).astype(np.uint8)
