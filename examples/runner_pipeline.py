"""A pipeline in one process: while the model works on some frames, this thread prepares the next.

python examples/runner_pipeline.py
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

import parallel_infer
from parallel_infer import Runner

FRAMES = 24
ZOO = Path(parallel_infer.__file__).parent / "zoo"
MEAN, STD = 127.0, 128.0  # of the shipped classifier; `parallel-infer inspect` prints them


def frames() -> Iterator[np.ndarray]:
    """As a camera would give them: uint8 [480, 640, 3], BGR."""
    random = np.random.default_rng(0)
    for _ in range(FRAMES):
        yield cv2.resize(random.integers(0, 256, (12, 16, 3), np.uint8), (640, 480))


def prepared(frame: np.ndarray) -> np.ndarray:
    """The frame as the model takes it: float32 [1, 3, 224, 224], RGB."""
    pixels = cv2.cvtColor(cv2.resize(frame, (224, 224)), cv2.COLOR_BGR2RGB)
    return ((pixels.transpose(2, 0, 1)[None] - MEAN) / STD).astype(np.float32)


def main() -> None:
    answers = []
    started = time.perf_counter()
    with Runner(ZOO / "classifier.onnx", jobs=2) as runner:
        in_flight = deque()
        for frame in frames():
            inputs = {"images": prepared(frame)}
            if len(in_flight) == runner.jobs:  # all slots are taken: fetch the oldest first
                answers.append(runner.result(in_flight.popleft())["probs"])
            in_flight.append(runner.execute_async(inputs))
        answers += [runner.result(handle)["probs"] for handle in in_flight]

        # The same without a pipeline of one's own, where all inputs are there already. An input that fails is an
        # error object in its place.
        listed = runner.run_parallel([{"images": prepared(frame)} for frame in frames()])
        for answer, outputs in zip(answers, listed, strict=True):
            assert np.allclose(answer, outputs["probs"], atol=1e-5)
        print(f"{len(answers)} frames on {runner.describe()} in {time.perf_counter() - started:.2f} s, twice")
    print("first:", ", ".join(f"class {number}" for number in answers[0][0].argsort()[:-4:-1]))


if __name__ == "__main__":
    main()
