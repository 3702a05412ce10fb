"""A decode stage as a broken codec would make it: one that aborts the process at a certain sequence of bytes."""

from __future__ import annotations

import os

import stages.decode

MARKER = b"abort the decoder"


class Decode(stages.decode.Decode):
    """Decodes, but for pictures that hold the marker."""

    def decode(self, name, kind, tensors, payload, options, row, part=None, **keep):
        if MARKER in bytes(payload):
            os.abort()
        return super().decode(name, kind, tensors, payload, options, row, part, **keep)
