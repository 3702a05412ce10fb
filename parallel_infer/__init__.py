"""parallel-infer: pictures in, answers out, with as many processes as the machine has use for.

The names are imported at first use, so that a server process pays for neither the client nor ONNX Runtime.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from parallel_infer.pictures.opencv_limit import VARIABLE, set_pixel_limit

if TYPE_CHECKING:
    from parallel_infer.answers.answer import Answer
    from parallel_infer.client import AsyncClient, Client
    from parallel_infer.job_status import JobStatus
    from parallel_infer.pictures.files import read_picture
    from parallel_infer.runner.runner import Runner

__all__ = ["Answer", "AsyncClient", "Client", "JobStatus", "Runner", "read_picture"]

# Official builds of ONNX Runtime report their use to Microsoft and leave files in the home directory. They read this
# when they load, by one name or the other, so it is said before anything can import them.
for _name in ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"):
    os.environ.setdefault(_name, "1")

# OpenCV ends the process where it cannot read this one, and other programs write it in ways that it cannot.
if VARIABLE in os.environ:
    set_pixel_limit()

_HOMES = {
    "Answer": "parallel_infer.answers.answer",
    "AsyncClient": "parallel_infer.client",
    "Client": "parallel_infer.client",
    "JobStatus": "parallel_infer.job_status",
    "Runner": "parallel_infer.runner.runner",
    "read_picture": "parallel_infer.pictures.files",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
