"""The size that AV1 data really has: what its decoder allocates from, whatever the boxes around it say.

AV1 Bitstream & Decoding Process Specification, 5.3 (OBU headers), 5.5 (sequence header) and 4.10.5 (leb128).
"""

from __future__ import annotations

_SEQUENCE_HEADER = 1
_MOST_UNITS = 10_000
_MOST_BYTES = 1024  # of a sequence header, which has some tens of them


class _Bits:
    """Reads numbers from the highest bit down. Raises ValueError at the end."""

    def __init__(self, data: bytes) -> None:
        self._number = int.from_bytes(data)
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ValueError("the sequence header ends early")
        return self._number >> self._left & (1 << count) - 1

    def take_uvlc(self) -> int:
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros) if zeros < 32 else (1 << 32) - 1


def size(data: memoryview) -> tuple[int, int]:
    """The largest width and height of all sequence headers in `data`, a row of OBUs. Raises ValueError without any."""
    sizes = []
    position = 0
    for _ in range(_MOST_UNITS):
        if position >= len(data):
            break
        header = data[position]
        position += 1 + (header >> 2 & 1)
        length = len(data) - position
        if header & 0x02:
            length, position = _leb128(data, position)
        if header >> 3 & 0x0F == _SEQUENCE_HEADER:
            sizes.append(_sequence_size(_Bits(bytes(data[position : position + min(length, _MOST_BYTES)]))))
        position += length
    else:
        raise ValueError("too many units")
    if not sizes:
        raise ValueError("no sequence header")
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def _leb128(data: memoryview, position: int) -> tuple[int, int]:
    """A number and where what follows it begins."""
    value = 0
    for index in range(8):
        if position + index >= len(data):
            break
        byte = data[position + index]
        value |= (byte & 0x7F) << 7 * index
        if not byte & 0x80:
            return value, position + index + 1
    raise ValueError("a length without an end")


def _sequence_size(bits: _Bits) -> tuple[int, int]:
    bits.take(3 + 1)  # seq_profile, still_picture
    if bits.take(1):  # reduced_still_picture_header
        bits.take(5)
    else:
        _skip_operating_points(bits, *_skip_timing(bits))
    across, down = bits.take(4) + 1, bits.take(4) + 1
    return bits.take(across) + 1, bits.take(down) + 1


def _skip_timing(bits: _Bits) -> tuple[int, int]:
    """Whether there is a decoder model, and the bits of its buffer delays."""
    if not bits.take(1):  # timing_info_present_flag
        return 0, 0
    bits.take(32 + 32)
    if bits.take(1):  # equal_picture_interval
        bits.take_uvlc()
    if not bits.take(1):  # decoder_model_info_present_flag
        return 0, 0
    delay = bits.take(5) + 1
    bits.take(32 + 5 + 5)
    return 1, delay


def _skip_operating_points(bits: _Bits, model: int, delay: int) -> None:
    display = bits.take(1)  # initial_display_delay_present_flag
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:  # seq_level_idx
            bits.take(1)
        if model and bits.take(1):
            bits.take(2 * delay + 1)
        if display and bits.take(1):
            bits.take(4)
