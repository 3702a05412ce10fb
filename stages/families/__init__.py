"""Families: which kind of model an ONNX file holds, how its pictures are prepared and how its outputs are read."""

from stages.families.catalogue import FAMILIES, export_command
from stages.families.description import describe

__all__ = ["FAMILIES", "describe", "export_command"]
