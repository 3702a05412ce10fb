"""TIFF (Adobe, revision 6.0): what OpenCV and libtiff read rightly, told from the tags, and alpha kept out of it."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from stages.frame import Frame
from stages.pictures.containers import Entry, tiff_entries

_SUBFILE, _WIDTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _EXTRA, _FORMAT = 254, 256, 258, 259, 262, 277, 338, 339
_ORIENTATION = 274
_SUB_DIRECTORIES, _DNG_VERSION, _TILE_WIDTH, _TILE_HEIGHT = 330, 50706, 322, 323
_TAGS = frozenset(
    {
        *(_SUBFILE, _WIDTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _EXTRA, _FORMAT, _ORIENTATION),
        *(_SUB_DIRECTORIES, _DNG_VERSION, _TILE_WIDTH, _TILE_HEIGHT),
    }
)
# none, CCITT RLE, Group 3 and 4, LZW, both kinds of JPEG, Deflate, PackBits, Deflate
_COMPRESSIONS = {1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946}
_OTHERS = {34712: "JPEG 2000", 33003: "JPEG 2000", 33005: "JPEG 2000", 34887: "LERC", 34925: "LZMA", 50000: "Zstandard"}
_OTHERS |= {50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL", 22610: "JPEG XR", 34933: "PNG"}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_FILTER_ARRAYS = (32803, 34892)  # pixels as a camera's sensor has them
_COLORS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3}
# libtiff converts the first of these to other colours than color management does
_SPACES = {8: "CIE L*a*b*", 9: "ICC L*a*b*", 10: "ITU L*a*b*", 4: "mask", 32844: "LogL", 32845: "LogLuv"}
_DEPTHS = frozenset({1, 8, 16})  # bits per sample
_DEPTHS_OF = {_PALETTE: frozenset({1, 4, 8}), _CMYK: frozenset({8})}
_FORMATS = {2: "signed integers", 3: "floating-point numbers", 5: "complex integers", 6: "complex numbers"}
_ASSOCIATED, _UNASSOCIATED = 1, 2
_SMALLEST_TILE = 32  # pixels that OpenCV reads


class Unsupported(Exception):
    """What about a sound TIFF cannot be read."""


class Tags:
    """The first directory. Raises ValueError or struct.error where it is broken."""

    def __init__(self, payload: memoryview) -> None:
        self._payload = payload
        self._entries: dict[int, Entry] = tiff_entries(payload, _TAGS)

    def check(self) -> None:
        """Raises Unsupported for what OpenCV refuses without a reason, or reads as something else."""
        photometric = self._value(_PHOTOMETRIC, _RGB if self._value(_SAMPLES, 1) > 2 else _BLACK_IS_ZERO)
        if self._is_raw(photometric):
            raise Unsupported("a raw file of a camera")
        compression = self._value(_COMPRESSION, 1)
        if compression not in _COMPRESSIONS:
            raise Unsupported(f"TIFF with {_OTHERS.get(compression, f'number {compression}')} compression")
        if photometric not in _COLORS:
            name = _SPACES.get(photometric, f"kind {photometric}")
            raise Unsupported(f"TIFF with {name} colours (PhotometricInterpretation)")
        if kinds := {kind for kind in self._values(_FORMAT) if kind in _FORMATS}:
            raise Unsupported(f"TIFF with {_FORMATS[kinds.pop()]} as samples")
        depths = _DEPTHS_OF.get(photometric, _DEPTHS)
        if wrong := {bits for bits in self._values(_BITS) if bits not in depths}:
            raise Unsupported(f"TIFF of this kind with {wrong.pop()} bits per sample")
        samples, colors = self._value(_SAMPLES, 1), _COLORS[photometric]
        if samples not in ((colors,) if photometric == _CMYK else (colors, colors + 1)):
            raise Unsupported(f"TIFF of this kind with {samples} samples per pixel")
        if self._values(_EXTRA)[:1] == (_ASSOCIATED,) and photometric not in (_RGB, _PALETTE):
            raise Unsupported("TIFF of this kind whose colours are multiplied by their alpha (ExtraSamples 1)")
        if 0 < min(self._value(_TILE_WIDTH, 64), self._value(_TILE_HEIGHT, 64)) < _SMALLEST_TILE:
            raise Unsupported(f"TIFF in tiles of less than {_SMALLEST_TILE} pixels")

    @property
    def alpha_multiplied(self) -> bool:
        """Whether colours are stored as multiplied by alpha (ExtraSamples 1)."""
        return self._values(_EXTRA)[:1] == (_ASSOCIATED,) and self._value(_PHOTOMETRIC, 0) == _RGB

    @property
    def orientation(self) -> int:
        """1 to 8; 1 for a number that means nothing."""
        said = self._value(_ORIENTATION, 1)
        return said if 1 <= said <= 8 else 1

    def plain(self) -> memoryview:
        """The payload for OpenCV, which is to give the colours and the place of each pixel as they are stored.

        Its alpha is called associated, because libtiff would multiply the colours by any other, and it is called
        upright, because of a picture in tiles libtiff would mirror each tile on its own.
        """
        changes: list[tuple[Entry, int]] = []
        if self._values(_EXTRA)[:1] == (_UNASSOCIATED,):
            changes.append((self._entries[_EXTRA], _ASSOCIATED))
        if self.orientation != 1:
            changes.append((self._entries[_ORIENTATION], 1))
        if not changes:
            return self._payload
        changed = bytearray(self._payload)
        for entry, value in changes:
            struct.pack_into(entry.form, changed, entry.position, value)
        return memoryview(changed)

    def _is_raw(self, photometric: int) -> bool:
        """DNG, CR2 and colour filter arrays; NEF, ARW and others begin with a preview and keep the picture below it."""
        preview = self._value(_SUBFILE, 0) & 1 and _SUB_DIRECTORIES in self._entries
        return bool(
            preview
            or photometric in _FILTER_ARRAYS
            or _DNG_VERSION in self._entries
            or bytes(self._payload[8:10]) == b"CR"
        )

    def _value(self, tag: int, default: int) -> int:
        return next(iter(self._values(tag)), default)

    def _values(self, tag: int) -> tuple[int, ...]:
        return self._entries[tag].values if tag in self._entries else ()


def divided(pixels: npt.NDArray[np.uint8 | np.uint16]) -> Frame:
    """uint8 [h, w, 3] of [h, w, 4] whose colours were multiplied by their alpha; black where it is 0."""
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    alpha = np.maximum(pixels[..., 3:], 1).astype(np.uint16)
    colors = (pixels[..., :3].astype(np.uint16) * 255 + alpha // 2) // alpha
    divided: Frame = np.minimum(colors, 255).astype(np.uint8)
    return divided
