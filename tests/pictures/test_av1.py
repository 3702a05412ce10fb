"""Sequence headers of AV1, read bit by bit."""

from __future__ import annotations

import pytest

from stages.pictures import av1


def bits(*fields: tuple[int, int]) -> bytes:
    """Numbers of so many bits each, one after the other, the last byte filled up with ones."""
    text = "".join(f"{value:0{count}b}" for value, count in fields if count)
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8)


def unit(kind: int, contents: bytes) -> bytes:
    assert len(contents) < 128
    return bytes([kind << 3 | 0x02, len(contents)]) + contents


SIZE = ((11, 4), (10, 4), (3839, 12), (1999, 11))  # 12 and 11 bits: 3840x2000
REDUCED = bits((0, 3), (1, 1), (1, 1), (8, 5), *SIZE)
PLAIN = bits((0, 3), (0, 1), (0, 1), (0, 1), (0, 1), (0, 5), (0, 12), (5, 5), *SIZE)
TIER = bits((0, 3), (0, 1), (0, 1), (0, 1), (0, 1), (0, 5), (0, 12), (9, 5), (1, 1), *SIZE)
TIMED = bits(
    *((0, 3), (0, 1), (0, 1), (1, 1), (1, 32), (60, 32), (1, 1), (0b00101, 5), (1, 1)),  # uvlc of two zeros
    *((9, 5), (1, 32), (4, 5), (4, 5)),  # a decoder model with delays of 10 bits
    *((1, 1), (1, 5)),  # two operating points
    *((0, 12), (5, 5), (1, 1), (3, 10), (3, 10), (0, 1), (1, 1), (7, 4)),
    *((0, 12), (9, 5), (0, 1), (0, 1), (0, 1)),
    *SIZE,
)


@pytest.mark.parametrize("header", [REDUCED, PLAIN, TIER, TIMED])
def test_the_size_is_found_behind_everything_optional(header: bytes) -> None:
    assert av1.size(memoryview(unit(2, b"") + unit(1, header) + unit(6, b"frame"))) == (3840, 2000)


def test_the_largest_of_several_headers_counts() -> None:
    small = bits((0, 3), (1, 1), (1, 1), (8, 5), (3, 4), (3, 4), (9, 4), (9, 4))
    assert av1.size(memoryview(unit(1, small))) == (10, 10)
    assert av1.size(memoryview(unit(1, small) + unit(1, REDUCED) + unit(1, small))) == (3840, 2000)


def test_a_unit_without_a_length_reaches_to_the_end() -> None:
    assert av1.size(memoryview(unit(2, b"") + bytes([1 << 3]) + REDUCED)) == (3840, 2000)
    assert av1.size(memoryview(bytes([1 << 3 | 0x04, 0]) + REDUCED)) == (3840, 2000)  # with an extension


@pytest.mark.parametrize("data", [b"", unit(2, b""), unit(1, REDUCED[:2]), bytes([0x0A]) + b"\xff" * 20, b"\x0a\x80"])
def test_what_has_no_whole_header_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        av1.size(memoryview(data))


def test_endless_units_are_an_error() -> None:
    with pytest.raises(ValueError, match="too many units"):
        av1.size(memoryview(unit(2, b"") * 20_000))
