"""GIF as its pixels lie in the file: the first frame whole, whatever its header says of canvas and transparency."""

from __future__ import annotations

import struct

_MOST_BLOCKS = 100_000
_EXTENSION, _IMAGE = 0x21, 0x2C
_GRAPHIC_CONTROL, _TRANSPARENT = 0xF9, 0x01


def size(payload: memoryview) -> tuple[int, int]:
    """The canvas, enlarged where the first frame reaches beyond it, as Pillow and browsers do (GIF89a forbids it)."""
    width, height = struct.unpack_from("<HH", payload, 6)
    image, _ = _first(payload)
    if image is None:
        return width, height
    left, top, wide, high = struct.unpack_from("<4H", payload, image + 1)
    return max(width, left + wide), max(height, top + high)


def plain(payload: memoryview) -> memoryview:
    """A GIF whose canvas holds its first frame, and whose colours are those of its palette: alpha is dropped."""
    canvas = size(payload)
    _, control = _first(payload)
    transparent = control is not None and payload[control + 3] & _TRANSPARENT
    if canvas == struct.unpack_from("<HH", payload, 6) and not transparent:
        return payload
    changed = bytearray(payload)
    struct.pack_into("<HH", changed, 6, *canvas)
    if control is not None:
        changed[control + 3] &= ~_TRANSPARENT & 0xFF
    return memoryview(changed)


def _first(payload: memoryview) -> tuple[int | None, int | None]:
    """Where the first image begins and the graphic control extension before it, each None where there is none."""
    control = None
    position = 13 + _table(payload[10])
    for _ in range(_MOST_BLOCKS):
        if position + 10 > len(payload) or payload[position] not in (_EXTENSION, _IMAGE):
            return None, control
        if payload[position] == _IMAGE:
            return position, control
        if payload[position + 1] == _GRAPHIC_CONTROL and payload[position + 2] == 4:
            control = position
        position += 2
        for _ in range(_MOST_BLOCKS):  # sub-blocks, each with its length in front, the last one empty
            if position >= len(payload) or payload[position] == 0:
                break
            position += 1 + payload[position]
        position += 1
    return None, control


def _table(packed: int) -> int:
    """Bytes of the colour table that a packed field announces."""
    return 3 << (packed & 0x07) + 1 if packed & 0x80 else 0
