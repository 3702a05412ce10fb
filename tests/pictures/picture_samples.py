"""Payloads for the tests of pictures: small ones of every kind, and forged ones."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

import parallel_infer

Frame = npt.NDArray[np.uint8]

ZOO = Path(parallel_infer.__file__).parent / "zoo"
PICTURES = ZOO / "pictures"


def photo(width: int = 96, height: int = 64) -> Frame:
    """A real picture of that size, uint8 [height, width, 3] BGR."""
    return cv2.resize(cv2.imread(str(PICTURES / "coffee.png")), (width, height), interpolation=cv2.INTER_AREA)


def bounds(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Left, top, right and bottom of what is true in `mask`, [h, w]."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def encoded(suffix: str, frame: npt.NDArray[np.generic], *parameters: int) -> bytes:
    done, payload = cv2.imencode(suffix, frame, parameters)
    assert done
    return payload.tobytes()


def reference(payload: bytes) -> Frame:
    """The pixels as OpenCV decodes them."""
    return cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_COLOR)


def exif(orientation: int, order: str = ">", kind: int = 3) -> bytes:
    """A TIFF structure that says how the camera was held."""
    value = struct.pack(order + ("H2x" if kind == 3 else "I"), orientation)
    magic = struct.pack(order + "2sHI", b"MM" if order == ">" else b"II", 42, 8)
    return magic + struct.pack(order + "HHHI", 1, 0x0112, kind, 1) + value + bytes(4)


def segment(code: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, code, len(content) + 2) + content


def jpeg_with(payload: bytes, *segments: bytes) -> bytes:
    """A JPEG with more segments at its start."""
    return payload[:2] + b"".join(segments) + payload[2:]


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_with(payload: bytes, *chunks: bytes) -> bytes:
    """A PNG with more chunks after its IHDR."""
    return payload[:33] + b"".join(chunks) + payload[33:]


def webp_of(width: int, height: int, flags: int, *chunks: bytes) -> bytes:
    """An extended WebP of these chunks, each as `riff_chunk` makes it."""
    canvas = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBP" + riff_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + canvas) + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def riff_chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def animated(suffix: str, *frames: Frame) -> bytes:
    animation = cv2.Animation()
    animation.frames = list(frames)
    animation.durations = [50] * len(frames)
    done, payload = cv2.imencodeanimation(suffix, animation)
    assert done
    return payload.tobytes()


def png_bomb(width: int, height: int) -> bytes:
    """A PNG that really holds that many black pixels, packed hundreds of times; the height is a multiple of 100."""
    packer = zlib.compressobj(1)
    lines = bytes((1 + width * 3) * 100)
    rows = b"".join(packer.compress(lines) for _ in range(height // 100)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        png_chunk(kind, content) for kind, content in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    )


def peak() -> int:
    """Most memory this process ever held, in KiB. Unlike `ru_maxrss` it does not begin with the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def resized_header(payload: bytes, width: int, height: int) -> bytes:
    """The same JPEG or PNG with another size in its header."""
    forged = bytearray(payload)
    if payload.startswith(b"\xff\xd8"):
        struct.pack_into(">HH", forged, _frame_header(payload) + 5, height, width)
    else:
        struct.pack_into(">II", forged, 16, width, height)
        struct.pack_into(">I", forged, 29, zlib.crc32(bytes(forged[12:29])))
    return bytes(forged)


def _frame_header(payload: bytes) -> int:
    position = 2
    while payload[position + 1] not in (0xC0, 0xC1, 0xC2):
        position += 2 + int.from_bytes(payload[position + 2 : position + 4], "big")
    return position


def tiff_of(
    pixels: npt.NDArray[np.generic], photometric: int, order: str = "<", **tags: int | tuple[int, ...]
) -> bytes:
    """An uncompressed TIFF of uint8 or uint16 [h, w, samples]; `tags` as t338=2, all of them SHORT."""
    height, width, samples = pixels.shape
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    known: dict[int, tuple[int, ...]] = {256: (width,), 257: (height,), 258: (pixels.dtype.itemsize * 8,) * samples}
    known |= {259: (1,), 262: (photometric,), 277: (samples,), 278: (height,), 284: (1,)}
    known |= {int(tag[1:]): value if isinstance(value, tuple) else (value,) for tag, value in tags.items()}
    known |= {273: (0,), 279: (len(data),)}
    start = 8 + 2 + 12 * len(known) + 4
    outside, entries = b"", b""
    for tag in sorted(known):
        form = f"{order}{len(known[tag])}{'I' if tag in (273, 279) else 'H'}"
        values = struct.pack(form, *known[tag])
        if len(values) > 4:
            values, outside = struct.pack(order + "I", start + len(outside)), outside + values
        entries += struct.pack(order + "HHI", tag, 4 if tag in (273, 279) else 3, len(known[tag])) + values.ljust(
            4, b"\0"
        )
    place = struct.pack(order + "HHII", 273, 4, 1, 0), struct.pack(order + "HHII", 273, 4, 1, start + len(outside))
    head = struct.pack(order + "2sHIH", b"II" if order == "<" else b"MM", 42, 8, len(known))
    return head + entries.replace(*place) + bytes(4) + outside + data


def bmp_of(lines: bytes, size: tuple[int, int], bits: int, compression: int, header: int, *masks: int) -> bytes:
    """A BMP of stored lines, `size` being width and height, negative from the top down, with masks at their place."""
    info = struct.pack("<IiiHHIIiiII", header, *size, 1, bits, compression, len(lines), 0, 0, 0, 0)
    info = (info + struct.pack(f"<{len(masks)}I", *masks)).ljust(header, b"\0")
    start = 14 + len(info)
    return b"BM" + struct.pack("<IHHI", start + len(lines), 0, 0, start) + info + lines
