"""What decoding and preprocessing cost: one thread, ours and the obvious way in turns on the same payloads.

    .venv/bin/python benchmarks/decode.py [--rounds 40]

Payloads are JPEGs of 1280x720 and 1920x1080 made from the sample pictures. "exact" decodes every pixel, "fast" is what
`--decode fast` does. The obvious way is cv2.imdecode, and for rows plain NumPy as a preprocessing function is commonly
written. Filters are compared with OpenCV's linear, which looks at four pixels, and with Pillow, where it is installed.
Figures are the median and the best of all rounds, in milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as in a server's processes; read while NumPy is imported

import click
import msgspec
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import parallel_infer
from benchmarks.machine import print_header
from benchmarks.pictures import read_picture
from stages.frame import Frame
from stages.opencv import cv2
from stages.pictures import Decoder, LeastScale, PictureLimits
from stages.preprocess import Preprocess, Preprocessor
from stages.resize import place

PICTURES = ("astronaut.png", "chelsea.png", "coffee.png")
SIZES = ((1280, 720), (1920, 1080))
QUALITY = 90
ROW = Preprocess(input="images", width=640, height=640, resize="letterbox")
CLASSIFIER = Preprocess(input="images", width=224, height=224, resize="crop", crop_fraction=0.875)
QUERIES = Preprocess(input="images", width=640, height=640, resize="stretch")
MODELS = {  # what the shipped models and those of benchmarks/peers ask for
    "classifier, 224x224, bicubic": msgspec.structs.replace(CLASSIFIER, filter="bicubic"),
    "ResNet-50, 224x224, bilinear": msgspec.structs.replace(CLASSIFIER, filter="bilinear"),
    "detector, 416x416": Preprocess(input="images", width=416, height=416, resize="stretch"),
    "YOLOv8n, 640x640": ROW,
}

Step = Callable[[int], Any]
"""One measured step; its argument is the number of the picture."""


@click.command()
@click.option("--rounds", default=40, show_default=True, help="How often every step runs on every picture.")
def main(rounds: int) -> None:
    """Print both tables."""
    cv2.setNumThreads(1)
    print_header()
    for width, height in SIZES:
        payloads = [_payload(name, width, height) for name in PICTURES]
        frames = [Decoder(PictureLimits()).decode(payload).frame for payload in payloads]
        kilobytes = sum(map(len, payloads)) // len(payloads) // 1000
        _show(f"decode {width}x{height}, {kilobytes} kB on average", _decoders(payloads), rounds)
        for name, wish in MODELS.items():
            _show(f"JPEG of {width}x{height} to a row of the {name}", dict(_whole(payloads, wish)), rounds)
        _show(f"frame of {width}x{height} to a 640x640 letterbox row", dict(_preprocessors(frames)), rounds)
        for wish in (CLASSIFIER, QUERIES):
            title = f"frame of {width}x{height} to a {wish.width}x{wish.height} row, {wish.resize}"
            _show(title, dict(_filters(frames, wish)), rounds)


def _payload(name: str, width: int, height: int) -> bytes:
    """The middle of a sample picture, enlarged to that size, as a JPEG as cameras write them (4:2:0)."""
    picture = read_picture(Path(parallel_infer.__file__).parent / "zoo" / "pictures" / name)
    lines = picture.shape[1] * height // width
    top = (picture.shape[0] - lines) // 2
    enlarged = cv2.resize(picture[top : top + lines], (width, height), interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(0).normal(0, 4, enlarged.shape)  # a sensor's, or there is nothing to decode
    grainy = np.clip(enlarged + noise, 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", grainy, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def _decoders(payloads: list[bytes]) -> dict[str, Step]:
    exact, fast = Decoder(PictureLimits()), Decoder(PictureLimits())
    enough = Preprocessor(ROW, "uint8", "nhwc").least_scale
    return {
        "cv2.imdecode": lambda n: cv2.imdecode(np.frombuffer(payloads[n], np.uint8), cv2.IMREAD_COLOR),
        "ours, exact": lambda n: exact.decode(payloads[n]),
        "ours, fast": lambda n: fast.decode(payloads[n], enough),
    }


def _whole(payloads: list[bytes], wish: Preprocess) -> Iterator[tuple[str, Step]]:
    """All that the decode stage does for a picture, with uint8 rows."""
    preprocessor, decoder = Preprocessor(wish, "uint8", "nhwc"), Decoder(PictureLimits())
    row = np.zeros(preprocessor.shape, np.uint8)

    def written(scale: LeastScale | None, number: int) -> None:
        picture = decoder.decode(payloads[number], scale)
        preprocessor.write(picture.frame, row, picture.geometry)

    yield "exact", partial(written, None)
    yield "fast", partial(written, preprocessor.least_scale)


def _preprocessors(frames: list[Frame]) -> Iterator[tuple[str, Step]]:
    yield "NumPy, float32 NCHW", lambda n: _plainly(frames[n])
    for dtype, layout in (("float32", "nchw"), ("float16", "nchw"), ("uint8", "nhwc")):
        preprocessor = Preprocessor(ROW, dtype, layout)  # type: ignore[arg-type]  # literals in a tuple become str
        row = np.zeros(preprocessor.shape, dtype)
        yield f"ours, {dtype} {layout.upper()}", _writer(preprocessor, frames, row)


def _filters(frames: list[Frame], wish: Preprocess) -> Iterator[tuple[str, Step]]:
    """The same row by every filter; Pillow's own time is that of resizing alone, without its copy of the frame."""
    for name in ("linear", "bilinear", "bicubic"):
        preprocessor = Preprocessor(msgspec.structs.replace(wish, filter=name), "uint8", "nhwc")
        yield f"ours, {name}", _writer(preprocessor, frames, np.zeros(preprocessor.shape, np.uint8))
    with contextlib.suppress(ImportError):
        from PIL import Image

        pictures = [Image.fromarray(frame) for frame in frames]
        size = (wish.width, wish.height)
        for method in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC):
            boxes = [_source(frame, wish) for frame in frames]
            yield f"Pillow, {method.name.lower()}", partial(_pillow, pictures, size, method, boxes)


def _pillow(pictures: list[Any], size: tuple[int, int], method: Any, boxes: list[Any], number: int) -> Any:
    return pictures[number].resize(size, method, boxes[number])


def _source(frame: Frame, wish: Preprocess) -> tuple[float, float, float, float]:
    across, down = place(msgspec.structs.replace(wish, filter="bilinear"), frame.shape[1], frame.shape[0]).spans
    return across.start, down.start, across.start + across.length, down.start + down.length


def _writer(preprocessor: Preprocessor, frames: list[Frame], row: npt.NDArray[Any]) -> Step:
    return lambda n: preprocessor.write(frames[n], row)


def _plainly(frame: Frame) -> npt.NDArray[np.float32]:
    """A letterbox row the way most example code writes it."""
    ratio = min(ROW.height / frame.shape[0], ROW.width / frame.shape[1])
    width, height = round(frame.shape[1] * ratio), round(frame.shape[0] * ratio)
    across, down = (ROW.width - width) / 2, (ROW.height - height) / 2
    resized = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
    sides = (round(down - 0.1), round(down + 0.1), round(across - 0.1), round(across + 0.1))
    boxed = cv2.copyMakeBorder(resized, *sides, cv2.BORDER_CONSTANT, value=(ROW.pad,) * 3)
    floats = boxed[..., ::-1].transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    return np.ascontiguousarray(floats)


def _show(title: str, steps: dict[str, Step], rounds: int) -> None:
    seconds = _measured(steps, rounds)
    first = statistics.median(next(iter(seconds.values())))
    table = Table(title=title, title_justify="left")
    for column in ("step", "median ms", "best ms", "against the first"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for name, times in seconds.items():
        median = statistics.median(times)
        table.add_row(name, f"{median * 1e3:.2f}", f"{min(times) * 1e3:.2f}", f"{first / median:.2f}x")
    Console().print(table)


def _measured(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Seconds by step. The steps take turns, so that whatever disturbs the machine disturbs them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step(0)
    for _ in range(rounds):
        for number in range(len(PICTURES)):
            for name, step in steps.items():
                start = time.perf_counter()
                step(number)
                seconds[name].append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main()
