"""Recognition: which kind of model an ONNX file holds, how its pictures are prepared and how its outputs are read."""

from stages.recognise.description import describe

__all__ = ["describe"]
