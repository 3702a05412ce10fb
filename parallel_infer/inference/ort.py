"""The one import of ONNX Runtime. The package comes in builds for different devices, so it may be missing."""

from __future__ import annotations

try:
    import onnxruntime as ort
except ImportError as error:
    raise ImportError("ONNX Runtime is missing: pip install 'parallel-infer[cpu]' or 'parallel-infer[gpu]'") from error

ort.set_default_logger_severity(3)  # errors: its warnings are of no use to those who run a server

__all__ = ["ort"]
