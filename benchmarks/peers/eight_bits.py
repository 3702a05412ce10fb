"""Copies of the models in 8 bits, as `parallel-infer quantize` makes them by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.peers.pictures import photographs
from parallel_infer.errors import ModelRejected
from parallel_infer.tools.quantize.quantization import quantize


def copies(paths: dict[str, str], folder: Path, say: Callable[[str], None]) -> dict[str, str]:
    """Paths of the copies by model, in `folder`, new or there already; what `quantize` refuses is told and left out."""
    found = {}
    for name, path in paths.items():
        copy = folder / f"{name}-int8.onnx"
        if not copy.exists():
            try:
                report = quantize(Path(path), photographs(), copy)
            except ModelRejected as error:
                say(f"{name} in 8 bits: left out: {error}")
                continue
            say(f"{name} in 8 bits: {report.recipe}, alone {report.speed.gain:.2f} times as fast")
        found[name] = str(copy)
    return found
