"""Packed bodies of requests."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_infer.doors.http.unpacking import Unpacking
from parallel_infer.errors import BadInput


def raw(data: bytes) -> bytes:
    """Deflate without the two bytes in front."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def unpacked(encoding: str, data: bytes, size: int) -> bytes:
    """What comes of a body whose pieces have `size` bytes."""
    unpacking = Unpacking(encoding)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    whole = b"".join(part for piece in pieces for part in unpacking.feed(piece))
    unpacking.check_ended()
    return whole


PACKERS = [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw)]
Pack = Callable[[bytes], bytes]


@pytest.mark.parametrize(("encoding", "pack"), PACKERS)
@given(data=st.binary(max_size=2000), size=st.integers(1, 2000))
def test_what_is_packed_comes_back_however_it_is_cut_into_pieces(
    encoding: str, pack: Pack, data: bytes, size: int
) -> None:
    assert unpacked(encoding, pack(data), size) == data


@pytest.mark.parametrize(("encoding", "pack"), PACKERS)
@given(data=st.binary(max_size=300), cut=st.integers(1, 40))
def test_a_body_without_its_end_is_refused(encoding: str, pack: Pack, data: bytes, cut: int) -> None:
    with pytest.raises(BadInput, match=f"read as {encoding}: its end is missing"):
        unpacked(encoding, pack(data)[:-cut], 100)


@pytest.mark.parametrize(("encoding", "pack"), PACKERS)
def test_what_follows_the_end_is_refused(encoding: str, pack: Pack) -> None:
    with pytest.raises(BadInput, match="bytes follow its end"):
        unpacked(encoding, pack(b"a picture") + b"more", 100)


@pytest.mark.parametrize(("encoding", "pack"), PACKERS)
def test_few_bytes_that_stand_for_many_come_in_pieces(encoding: str, pack: Pack) -> None:
    sizes = [len(part) for part in Unpacking(encoding).feed(pack(bytes(10_000_000)))]
    assert sum(sizes) == 10_000_000
    assert max(sizes) <= 1 << 18
