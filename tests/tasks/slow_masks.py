"""Masks decoded the slow and plain way: a whole picture per object, one pixel and one run at a time."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from stages.tasks import Arrays

Bits = npt.NDArray[np.bool_]
Ring = npt.NDArray[np.float32]


def smooth_prototypes(seed: int, count: int, height: int, width: int) -> npt.NDArray[np.float32]:
    """Random smooth fields, none of which is a mixture of the others."""
    rng = np.random.default_rng(seed)
    fields = [cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), 3.0) for _ in range(count)]
    stacked = np.stack(fields).astype(np.float32)
    return np.asarray(stacked / stacked.std(), np.float32)


def whole_mask(
    coefficients: npt.NDArray[Any], prototypes: npt.NDArray[Any], box: npt.NDArray[Any], size: tuple[int, int]
) -> Bits:
    """The mask on a row of `size` (width, height): everything decoded, enlarged, cut at 0, then cropped to the box."""
    logits = np.tensordot(coefficients.astype(np.float64), prototypes.astype(np.float64), 1)
    large = cv2.resize(logits, size, interpolation=cv2.INTER_LINEAR)
    return (large > 0) & box_pixels(box, size)


def box_pixels(box: npt.NDArray[Any], size: tuple[int, int]) -> Bits:
    """The pixels whose centres lie in a box."""
    x, y = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5
    rows, columns = (y >= box[1]) & (y < box[3]), (x >= box[0]) & (x < box[2])
    return np.outer(rows, columns)


def rings_of(answer: Arrays) -> list[list[Ring]]:
    """The rings of each object."""
    rings = np.split(answer["mask_points"], np.cumsum(answer["mask_rings"]))[:-1]
    assert sum(len(ring) for ring in rings) == len(answer["mask_points"])
    assert answer["mask_objects"].sum() == len(rings)
    bounds = np.cumsum(answer["mask_objects"]).tolist()
    return [rings[end - count : end] for count, end in zip(answer["mask_objects"].tolist(), bounds, strict=True)]


def filled(rings: list[Ring], size: tuple[int, int]) -> Bits:
    """The pixels whose centres lie inside an odd number of rings."""
    bits = np.zeros((size[1], size[0]), np.bool_)
    x = np.arange(size[0]) + 0.5
    for ring in rings:
        start, end = ring.astype(np.float64), np.roll(ring, -1, axis=0).astype(np.float64)
        for row in range(size[1]):
            y = row + 0.5
            crossing = (start[:, 1] <= y) != (end[:, 1] <= y)
            a, b = start[crossing], end[crossing]
            at = a[:, 0] + (y - a[:, 1]) / (b[:, 1] - a[:, 1]) * (b[:, 0] - a[:, 0])
            bits[row] ^= (x[:, None] > at).sum(axis=1) % 2 == 1
    return bits


def signed_area(ring: Ring) -> float:
    """By the shoelace formula, y downwards."""
    area = 0.0
    for (x1, y1), (x2, y2) in zip(ring.tolist(), [*ring[1:].tolist(), ring[0].tolist()], strict=True):
        area += x1 * y2 - x2 * y1
    return area / 2


def overlap(first: Bits, second: Bits) -> float:
    """Intersection over union; 1 of two empty masks."""
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0


def coco_text(bits: Bits) -> bytes:
    """Compressed run lengths of a mask, pixel by pixel and column by column."""
    counts, value = [0], False
    for pixel in bits.T.reshape(-1).tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    text = bytearray()
    for place, count in enumerate(counts):
        number = count - counts[place - 2] if place > 2 else count
        more = True
        while more:
            digit = number & 31
            number >>= 5
            more = number != -1 if digit & 16 else number != 0
            text.append(48 + digit + (32 if more else 0))
    return bytes(text)


def bits_of(text: bytes, size: tuple[int, int]) -> Bits:
    """The mask that compressed run lengths stand for."""
    counts: list[int] = []
    place = 0
    while place < len(text):
        number, shift, more = 0, 0, True
        while more:
            digit = text[place] - 48
            number |= (digit & 31) << shift
            more = bool(digit & 32)
            place, shift = place + 1, shift + 5
            if not more and digit & 16:
                number -= 1 << shift
        counts.append(number + counts[-2] if len(counts) > 2 else number)
    assert sum(counts) == size[0] * size[1]
    runs = [np.full(count, bool(place % 2)) for place, count in enumerate(counts)]
    return np.concatenate(runs).reshape(size).T


def texts_of(answer: Arrays) -> list[bytes]:
    """The run lengths of each object."""
    ends = np.cumsum(answer["mask_rle_sizes"]).tolist()
    joined = answer["mask_rle"].tobytes()
    assert len(joined) == (ends[-1] if ends else 0)
    return [joined[end - size : end] for size, end in zip(answer["mask_rle_sizes"].tolist(), ends, strict=True)]
