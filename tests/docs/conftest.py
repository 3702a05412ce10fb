"""A server with the shipped models, as a reader of the documents would start it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from parallel_infer.tools.local_server import LocalServer, local_server

MODELS = ("detector", "classifier", "segmenter", "pose")


@pytest.fixture(scope="package")
def server() -> Iterator[LocalServer]:
    options = [word for model in MODELS for word in ("--model", f"{model}=zoo:{model}")]
    options += ["--precision", "fp32"]  # the figures in the documents are of float32
    options += ["--chain", "kinds=detector(confidence=0.4) > classifier(top=1)"]
    with local_server(*options) as started:
        yield started
