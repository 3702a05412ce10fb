"""Pictures in and out of the HTTP door: parts of forms, and answers drawn as a JPEG."""

from __future__ import annotations

import re
from email.parser import BytesHeaderParser
from typing import Any

import cv2
import numpy as np

from parallel_infer.answers.answer import Answer
from parallel_infer.answers.drawing import draw
from parallel_infer.errors import BadInput

_BOUNDARY = re.compile(r'boundary="?([^";,]{1,70})"?', re.IGNORECASE)
_HOLDS_PICTURE = ("file", "image", "picture")
_headers = BytesHeaderParser().parsebytes
_MOST_PARTS = 64


def picture_of_form(header: str, body: memoryview) -> tuple[bytes, dict[str, str]]:
    """The picture in a multipart form, its part `file` (or `image`), and the form's other fields.

    Raises BadInput where there is no picture or more than one.
    """
    parts = form_parts(header, body)
    found = [name for name in _HOLDS_PICTURE if parts.get(name)]
    if not found:
        names = ", ".join(map(repr, parts)) or "none"
        raise BadInput(f"the form has no part 'file' with a picture; its parts are {names}")
    if len(found) > 1:
        raise BadInput(f"the form has pictures in its parts {' and '.join(map(repr, found))}; send one in a request")
    try:
        fields = {name: part.decode() for name, part in parts.items() if name not in _HOLDS_PICTURE}
    except UnicodeDecodeError:
        raise BadInput("a part of the form beside the picture is no text; send one picture in a request") from None
    return parts[found[0]], fields


def form_parts(header: str, body: memoryview) -> dict[str, bytes]:
    """The parts of a multipart/form-data body by name (RFC 7578). Raises BadInput where it cannot be read."""
    found = _BOUNDARY.search(header)
    if found is None:
        raise BadInput("the form's Content-Type names no boundary")
    mark = b"--" + found[1].encode(errors="surrogateescape")
    pieces = bytes(body).split(mark)
    if len(pieces) < 3 or not pieces[-1].startswith(b"--"):
        raise BadInput("the form is cut off, or its boundary is another one")
    if len(pieces) > _MOST_PARTS + 2:
        raise BadInput(f"the form has more than {_MOST_PARTS} parts")
    parts: dict[str, bytes] = {}
    for piece in pieces[1:-1]:
        head, separator, content = piece.partition(b"\r\n\r\n")
        name = _headers(head.lstrip(b"\r\n")).get_param("name", header="content-disposition")
        if not separator or not isinstance(name, str) or not content.endswith(b"\r\n"):
            raise BadInput("a part of the form has no name, or is cut off")
        if parts.get(name):
            raise BadInput(f"the form has more than one part {name[:40]!r}; send one picture in a request")
        parts[name] = content[:-2]
    return parts


def drawn(picture: bytes, answer: Answer) -> bytes:
    """A JPEG of the picture with its answer drawn on it. Raises BadInput where it cannot be decoded here."""
    frame: Any = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    if frame is None:
        raise BadInput("the picture was answered, but cannot be drawn on: its format is not decoded here")
    done, encoded = cv2.imencode(".jpg", draw(frame, answer))
    if not done:
        raise BadInput("the drawn picture cannot be written as a JPEG")
    return encoded.tobytes()
