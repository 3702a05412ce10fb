"""NVIDIA Triton with a chain: a model that calls others (business logic scripting), each of these with its own batches.

`chain` decodes the picture, or has `decode` do so; asks `detector`, cuts out each object where the frame lies, and asks
`classifier` about all objects of a picture in one request. Triton brings requests of several pictures together.
"""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

from servers.triton_server import become_server
from work import VARIABLE, Setup

CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: {batch}
input [{{ name: "{given}" }}]
output [{outputs}]
instance_group [{{ kind: KIND_CPU, count: {count} }}]
dynamic_batching {{ max_queue_delay_microseconds: {delay} }}
parameters {{ key: "{variable}" value: {{ string_value: {setup} }} }}
"""
PICTURE = 'name: "PICTURE", data_type: TYPE_STRING, dims: [1]'
ANSWER = '{ name: "ANSWER", data_type: TYPE_STRING, dims: [1] }'
FRAME = '{ name: "FRAME", data_type: TYPE_UINT8, dims: [-1, -1, 3] }'
FOUND = '{ name: "FOUND", data_type: TYPE_FP32, dims: [-1, -1] }'


def write_models(setup: Setup, folder: Path) -> None:
    """The repository."""
    delay = round(setup.delay_ms * 1000)
    _write(folder, "chain", "triton_chain_model", setup, PICTURE, ANSWER, setup.callers, 1, 0)
    for name, part in (("detector", setup), ("classifier", setup.of_second())):
        rows = (
            f'name: "ROWS", data_type: TYPE_UINT8, dims: [{part.preprocess["height"]}, {part.preprocess["width"]}, 3]'
        )
        _write(folder, name, "triton_rows_model", part, rows, FOUND, setup.workers, setup.batch, delay)
    if setup.split:
        _write(folder, "decode", "triton_decode_model", setup, PICTURE, FRAME, setup.workers, 1, 0)


def _write(
    folder: Path, name: str, program: str, setup: Setup, given: str, outputs: str, count: int, batch: int, delay: int
) -> None:
    version = folder / name / "1"
    version.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name(f"{program}.py"), version / "model.py")
    text = CONFIG.replace('name: "{given}"', given).format(
        name=name,
        batch=batch,
        outputs=outputs,
        count=count,
        delay=delay,
        variable=VARIABLE,
        setup=json.dumps(json.dumps(asdict(setup))),
    )
    (folder / name / "config.pbtxt").write_text(text)


if __name__ == "__main__":
    wanted = Setup.from_environment()
    become_server(wanted.port, lambda folder: write_models(wanted, folder))
