"""How a frame becomes a row: what the model asks for (`Preprocess`) and the code that does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from parallel_infer.errors import ConfigError
from parallel_infer.model_spec import TensorSpec
from stages import resize
from stages.frame import Frame, checked
from stages.geometry import Floats, Geometry
from stages.opencv import cv2
from stages.resample import Kernel, Resampler

Resize = Literal["stretch", "letterbox", "letterbox-corner", "crop"]
Filter = Literal["linear", "bilinear", "bicubic"]
Layout = Literal["nchw", "nhwc"]
Color = Literal["rgb", "bgr"]  # of frames
RowColor = Literal["rgb", "bgr", "gray"]
Row = npt.NDArray[Any]


class Preprocess(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the picture input of a model expects. Kept as a map in `ModelSpec.preprocess`; empty for tensor models.

    A row is `(pixel - mean) / std` with pixels 0..255, channels in `color` order. `letterbox` keeps the aspect ratio
    and centres the picture, `letterbox-corner` puts it top left; both fill with `pad`. `crop` takes the centre square
    (for non-square inputs: the centre of the input's aspect ratio) of `crop_fraction` and resizes it.

    `filter` says how pixels are made: `linear` is OpenCV's, of the four nearest pixels; `bilinear` and `bicubic` are
    those of Pillow and torchvision, with antialiasing.
    """

    input: str  # name of the picture input
    width: int  # of the row, in pixels
    height: int
    resize: Resize = "letterbox"
    crop_fraction: float = 1.0
    filter: Filter = "linear"
    pad: int = 114
    color: RowColor = "rgb"  # gray: one channel, of which mean and std are the first numbers
    layout: Layout = "nchw"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (255.0, 255.0, 255.0)
    constants: dict[str, list[float]] = {}  # further inputs that get the same values in every row, flattened

    @property
    def channels(self) -> int:
        """Of a row."""
        return 1 if self.color == "gray" else 3


class Preprocessor:
    """Writes frames into rows of one model. Keeps its scratch memory from frame to frame; used by one thread.

    A float row holds `(pixel - mean) / std` in the arithmetic of float32. A uint8 row holds the pixels themselves:
    the model normalises on its own, or does since `stages.graph` taught it to.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        dtype: str,
        layout: Layout,
        resampler: Callable[[Kernel], Resampler] = Resampler,
    ) -> None:
        """`dtype` (float32, float16 or uint8) and `layout` are those of the rows. Raises ConfigError.

        `resampler` gives one for a filter; preprocessors of one thread may share it, and its memory.
        """
        _check(preprocess, dtype)
        self._preprocess = preprocess
        self._layout = layout
        height, width = preprocess.height, preprocess.width
        channels = preprocess.channels
        self.shape = (channels, height, width) if layout == "nchw" else (height, width, channels)
        self.dtype = np.dtype(dtype)
        self._resampler = None if preprocess.filter == "linear" else resampler(preprocess.filter)
        self._canvas: Frame = np.empty((height, width, 3), np.uint8)
        self._pixels: Frame = np.empty(self.shape, np.uint8)
        # NumPy is slow over a last axis of three, so NHWC is normalised line by line.
        self._lines = self.shape if layout == "nchw" else (height, width * channels)
        mean, std = preprocess.mean[:channels], preprocess.std[:channels]
        self._mean = None if set(mean) == {0.0} else _spread(mean, layout, width)
        self._std = None if set(std) == {1.0} else _spread(std, layout, width)
        self._tables = _tables(preprocess, layout) if dtype == "float16" else []

    def least_scale(self, width: int, height: int) -> float:
        """For `Decoder.decode`: the smallest scale at which no pixel of the row has to be made up."""
        return resize.least_scale(self._preprocess, width, height)

    def write(
        self, frame: npt.NDArray[Any], row: Row, geometry: Geometry | None = None, color: Color = "bgr"
    ) -> Geometry:
        """Fill `row` from `frame`, which may be read-only: uint8 [h, w, 3] in `color`, or [h, w] or [h, w, 1] gray.

        `geometry` is that of a picture decoded at a smaller scale (`Picture.geometry`); the one returned leads from
        the picture to the row. Raises BadInput where `frame` is not a frame, ValueError where `row` is not a row.
        """
        if row.shape != self.shape or row.dtype != self.dtype or not row.flags.c_contiguous:
            raise ValueError(f"a row is contiguous {self.dtype} {self.shape}; got {row.dtype} {row.shape}")
        frame = checked(frame)
        placement, placed = self._placed(frame, geometry)
        resize.draw(frame, placement, self._canvas, self._preprocess.pad, self._resampler)
        self._fill(row, color)
        return placed

    def _placed(self, frame: Frame, geometry: Geometry | None) -> tuple[resize.Placement, Geometry]:
        """Where `frame` goes, and how the picture that it is of, in full size or smaller, comes to the row."""
        height, width = frame.shape[:2]
        if geometry is not None and self._resampler is not None:  # which takes pixels in part
            whole = resize.place(self._preprocess, int(geometry.width), int(geometry.height))
            return whole.within(geometry), whole.geometry(geometry.width, geometry.height)
        placement = resize.place(self._preprocess, width, height)
        placed = placement.geometry(width, height)
        return placement, placed if geometry is None else _chained(geometry, placed)

    def _fill(self, row: Row, color: Color) -> None:
        """From the canvas, uint8 HWC in `color`, to the row."""
        pixels = row if self.dtype == np.uint8 else self._pixels
        self._arrange(pixels, color)
        if self.dtype == np.float32:
            self._normalise(pixels, row)
        elif self.dtype == np.float16:
            self._look_up(pixels, row)

    def _arrange(self, pixels: Frame, color: Color) -> None:
        """Colours and axes, into `pixels` of the row's shape."""
        if self._preprocess.color == "gray":
            code = cv2.COLOR_BGR2GRAY if color == "bgr" else cv2.COLOR_RGB2GRAY
            cv2.cvtColor(self._canvas, code, dst=pixels.reshape(self._canvas.shape[:2]))
            return
        reversed_ = self._preprocess.color != color
        if self._layout == "nchw":
            cv2.split(self._canvas, list(pixels[::-1] if reversed_ else pixels))
        elif reversed_:
            cv2.cvtColor(self._canvas, cv2.COLOR_BGR2RGB, dst=pixels)
        else:
            np.copyto(pixels, self._canvas)

    def _normalise(self, pixels: Frame, floats: Floats) -> None:
        given, out = pixels.reshape(self._lines), floats.reshape(self._lines)
        if self._mean is not None:
            np.subtract(given, self._mean, out=out)
            if self._std is not None:
                np.divide(out, self._std, out=out)
        elif self._std is not None:
            np.divide(given, self._std, out=out)
        else:
            np.copyto(out, given)

    def _look_up(self, pixels: Frame, halves: Row) -> None:
        """By table, as bit patterns: five times as fast as NumPy's conversion to float16."""
        shape = self.shape if self._layout == "nchw" else (1, *self.shape)
        bits = halves.view(np.uint16).reshape(shape)
        for given, table, out in zip(pixels.reshape(shape), self._tables, bits, strict=True):
            cv2.LUT(given, table, dst=out)


def constants(preprocess: Preprocess, inputs: Sequence[TensorSpec]) -> dict[str, Row]:
    """What every row of the further inputs holds, by input name, in the input's own dtype and shape.

    Raises ConfigError for an input without values, values without an input, or a wrong number of them.
    """
    further = {tensor.name: tensor for tensor in inputs if tensor.name != preprocess.input}
    if unmatched := further.keys() ^ preprocess.constants.keys():
        raise ConfigError(f"inputs and constants do not match: {', '.join(sorted(unmatched))} (option constants)")
    return {name: _constant(tensor, preprocess.constants[name]) for name, tensor in further.items()}


def _constant(tensor: TensorSpec, values: list[float]) -> Row:
    given = np.array(values, tensor.dtype)
    if tensor.size != given.nbytes:
        raise ConfigError(
            f"input {tensor.name} has the shape {list(tensor.shape)}, which {len(values)} values do not fill "
            "(option constants)"
        )
    return given.reshape(tensor.shape)


def _check(preprocess: Preprocess, dtype: str) -> None:
    if dtype not in ("float32", "float16", "uint8"):
        raise ConfigError(f"a picture input is float32, float16 or uint8, not {dtype}")
    if min(preprocess.width, preprocess.height) < 1:
        raise ConfigError(f"a row of {preprocess.width}x{preprocess.height} pixels has none")
    if not 0 < preprocess.crop_fraction <= 1:
        raise ConfigError(f"crop_fraction is {preprocess.crop_fraction}; it must be above 0 and at most 1")
    if not 0 <= preprocess.pad <= 255:
        raise ConfigError(f"pad is {preprocess.pad}; it must be a pixel value, 0 to 255")
    if 0 in preprocess.std or not np.isfinite([*preprocess.mean, *preprocess.std]).all():
        raise ConfigError(f"std is {preprocess.std} and mean {preprocess.mean}; both must be finite, and std not 0")


def _spread(values: tuple[float, ...], layout: Layout, width: int) -> Floats:
    """`values` so that they broadcast over a row: planes, or lines of pixels of that width."""
    if len(set(values)) == 1:
        return np.array(values[0], np.float32)
    spread = np.array(values, np.float32)
    return spread.reshape(3, 1, 1) if layout == "nchw" else np.tile(spread, width)


def _tables(preprocess: Preprocess, layout: Layout) -> list[npt.NDArray[np.uint16]]:
    """The float16 of every pixel value: one table of [256] per plane, or one of [1, 256, 3] for all channels."""
    pixels = np.arange(256, dtype=np.float32).reshape(1, 256, 1)
    count = preprocess.channels
    floats = (pixels - np.array(preprocess.mean[:count], np.float32)) / np.array(preprocess.std[:count], np.float32)
    bits = floats.astype(np.float16).view(np.uint16)
    return [np.ascontiguousarray(bits[0, :, channel]) for channel in range(count)] if layout == "nchw" else [bits]


def _chained(first: Geometry, second: Geometry) -> Geometry:
    return Geometry(
        first.width,
        first.height,
        first.scale_x * second.scale_x,
        first.scale_y * second.scale_y,
        first.offset_x * second.scale_x + second.offset_x,
        first.offset_y * second.scale_y + second.offset_y,
    )
