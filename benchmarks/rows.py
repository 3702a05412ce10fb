"""What uint8 rows save: a frame to its row and through the model, normalised before the model or inside its graph.

    python benchmarks/rows.py [--models detector,classifier,...] [--provider cpu] [--rounds 100]

One thread, batches of one, a 1280x720 frame; both ways alternate. `row` is the time from frame to row, `run` that of
the session, KB the shared memory of a row.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import print_header
from benchmarks.pictures import read_picture
from parallel_infer.config.sources import load_config, zoo_models
from parallel_infer.inference.session import Session
from parallel_infer.ipc.messages import ModelPlan, PayloadKind
from parallel_infer.protocol import Tensor
from parallel_infer.supervisor.plan import make_plan
from stages.decode import Decode
from stages.infer import model_for, session_config

PICTURE = Path(__file__).resolve().parents[1] / "parallel_infer" / "zoo" / "pictures" / "astronaut.png"


class Way:
    """One model with one kind of rows."""

    def __init__(self, model: str, provider: str, uint8_rows: bool) -> None:
        told = {"models": [f"{model}=zoo:{model}"], "provider": provider, "threads": 1, "uint8_rows": uint8_rows}
        self.plan: ModelPlan
        (self.plan,) = make_plan(load_config(told, None, {})).models
        self._decode = Decode({"max_pixels": 10_000_000, "formats": ["jpeg"]})
        self._decode.add(self.plan)
        self._rows = {tensor.name: np.zeros((1, *tensor.shape), tensor.dtype) for tensor in self.plan.spec.inputs}
        session = Session(model_for(self.plan), session_config(self.plan))
        self._run = session.bind(self._rows).run
        self.row: list[float] = []
        self.run: list[float] = []

    def once(self, frame: np.ndarray) -> None:
        """Take one frame through, and the time."""
        tensors = (Tensor("", "uint8", frame.shape),)
        row = {name: array[0, ...] for name, array in self._rows.items()}
        started = time.perf_counter()
        self._decode.decode(self.plan.key, PayloadKind.FRAME, tensors, frame.data.cast("B"), b"\x80", row)
        written = time.perf_counter()
        self._run()
        self.run.append(time.perf_counter() - written)
        self.row.append(written - started)

    @property
    def medians(self) -> tuple[float, float, float]:
        """Milliseconds: row, run, both."""
        row, run = (statistics.median(seconds) * 1000 for seconds in (self.row, self.run))
        return row, run, row + run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(zoo_models()), help="of the zoo")
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    print_header()
    frame = np.ascontiguousarray(cv2.resize(read_picture(PICTURE), (1280, 720)))
    print(f"{'model':12s} {'rows':8s} {'KB':>7s} {'row ms':>8s} {'run ms':>8s} {'both':>8s} {'ratio':>6s}")
    for model in arguments.models.split(","):
        ways = {kind: Way(model, arguments.provider, kind == "uint8") for kind in ("float32", "uint8")}
        for _ in range(arguments.rounds):
            for way in ways.values():
                way.once(frame)
        before = ways["float32"].medians[2]
        for kind, way in ways.items():
            row, run, both = way.medians
            size = way.plan.spec.row_size / 1024
            print(f"{model:12s} {kind:8s} {size:7.0f} {row:8.2f} {run:8.2f} {both:8.2f} {both / before:6.2f}")


if __name__ == "__main__":
    main()
