"""How much of a GPU reaches the client: the whole pipeline against the bare session, at the same largest batch.

    python benchmarks/gpu.py [--model NAME=PATH] [--provider cuda] [--batches 1,8,32] [--rounds 3] [--save FILE]

The bare session runs one batch after the other on rows that are there already, outputs bound, in this process, with
nothing else alive. The pipeline takes JPEG pictures of 1280x720 through every process. The two alternate; a ratio of
0.85 means that decoding, batching and postprocessing cost the GPU 15 % of its time. Works with any provider, so that
it can be tried without a GPU; without one, `--provider cuda` says so and ends with 1.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import print_header
from parallel_infer.config.sources import load_config
from parallel_infer.errors import ConfigError
from parallel_infer.inference.session import Session
from parallel_infer.supervisor.plan import make_plan
from stages.infer import model_for, session_config


def bare(model: str, provider: str, batch: int, seconds: float) -> float:
    """Pictures per second of the bare session in batches of `batch`."""
    config = load_config({"models": [model], "provider": provider, "max_batch_size": batch, "instances": 1}, None, {})
    (plan,) = make_plan(config).models
    session = Session(model_for(plan), session_config(plan))
    random = np.random.default_rng(0)
    inputs = {
        tensor.name: random.integers(0, 255, (batch, *tensor.shape)).astype(tensor.dtype) for tensor in plan.spec.inputs
    }
    outputs = {
        tensor.name: np.empty((batch, *tensor.shape), tensor.dtype)
        for tensor in plan.spec.outputs
        if -1 not in tensor.shape
    }
    binding = session.bind(inputs, outputs)
    for _ in range(3):
        binding.run()
    batches, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds:
        binding.run()
        batches += 1
    return batches * batch / spent


def pipeline(model: str, provider: str, batch: int, seconds: float) -> dict[str, Any]:
    """The level of `parallel-infer bench` with four batches in flight, as its JSON gives it."""
    with tempfile.TemporaryDirectory(prefix="pi-gpu-") as folder:
        saved = Path(folder) / "run.json"
        command = [sys.executable, "-m", "parallel_infer", "bench", "--model", model, "--concurrency", str(4 * batch)]
        command += ["--seconds", str(seconds), "--save", str(saved), "--"]
        command += ["--provider", provider, "--max-batch-size", str(batch)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        level: dict[str, Any] = json.loads(saved.read_text())["levels"][0]
        return level


def measure(model: str, provider: str, batch: int, seconds: float, rounds: int) -> dict[str, Any]:
    """Medians of both, in turns."""
    raw: list[float] = []
    piped: list[dict[str, Any]] = []
    for _ in range(rounds):
        raw.append(bare(model, provider, batch, seconds))
        piped.append(pipeline(model, provider, batch, seconds))
    rate = statistics.median(level["per_second"] for level in piped)
    middle = min(piped, key=lambda level: abs(level["per_second"] - rate))
    return {
        "model": model.partition("=")[0],
        "batch": batch,
        "bare": statistics.median(raw),
        "pipeline": rate,
        "ratio": statistics.median(level["per_second"] / other for level, other in zip(piped, raw, strict=True)),
        "mean_batch": middle["batch"],
        "bottleneck": middle["bottleneck"],
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", metavar="NAME=PATH", help="repeat for several (zoo:detector)")
    parser.add_argument("--provider", default="cuda")
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", type=Path, help="write the table as JSON")
    arguments = parser.parse_args()
    print_header()
    rows = []
    print(
        f"{'model':16s} {'batch':>6s} {'bare/s':>10s} {'pipeline/s':>11s} {'ratio':>6s} {'mean batch':>11s}  bottleneck"
    )
    for model in arguments.model or ["detector=zoo:detector"]:
        for batch in map(int, arguments.batches.split(",")):
            try:
                row = measure(model, arguments.provider, batch, arguments.seconds, arguments.rounds)
            except ConfigError as error:
                print(error, file=sys.stderr)
                return 1
            rows.append(row)
            print(
                f"{row['model']:16s} {batch:6d} {row['bare']:10,.1f} {row['pipeline']:11,.1f} {row['ratio']:6.2f} "
                f"{row['mean_batch']:11.1f}  {row['bottleneck']}",
                flush=True,
            )
    if arguments.save:
        arguments.save.write_text(json.dumps({"provider": arguments.provider, "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
