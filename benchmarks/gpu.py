"""How much of a GPU reaches the client: the whole pipeline against the bare session, at the same largest batch.

    python benchmarks/gpu.py [--model NAME=PATH] [--provider cuda] [--batches 1,8,32] [--payloads jpeg,frame]
        [--overlap on,off] [--half] [--processes 4] [--rounds 3] [--save FILE]

The bare session runs batches of rows that are there already, from page-locked memory to page-locked memory, in this
process, with nothing else alive; with `--overlap on` it begins the next before the last is over, as the server does.
The pipeline takes pictures through every process: `jpeg` of 1280x720, or, to see what is left where decoding is not the
limit, `frame`: frames that need no resizing, which the client puts into memory that the server lends. The two
alternate; a ratio of 0.85 means that decoding, batching and postprocessing cost the GPU 15 % of its time. `cores` are
those that gateway, dispatcher, decode, infer, postprocess and the busiest load process used.

`--half` measures a copy in float16 of each model beside it (ONNX Runtime's converter). Works with any provider, so that
it can be tried without a GPU; without one, `--provider cuda` says so and ends with 1.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import print_header
from parallel_infer.config.sources import load_config
from parallel_infer.errors import ConfigError
from parallel_infer.inference.session import Session
from parallel_infer.ipc.messages import ModelPlan
from parallel_infer.supervisor.plan import make_plan
from stages.infer import model_for, session_config

ROOM = {"PARALLEL_INFER_LENT_MEMORY_MB": "1024", "PARALLEL_INFER_SHARED_MEMORY_MB": "1024"}  # for 128 frames at once
ROLES = ("gateway", "dispatcher", "decode", "infer", "postprocess")


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    model: str
    provider: str
    batch: int
    payload: str
    overlap: str

    def plan(self) -> ModelPlan:
        """The model as the pipeline serves it. Raises ConfigError."""
        told = {"models": [self.model], "provider": self.provider, "max_batch_size": self.batch, "instances": 1}
        (plan,) = make_plan(load_config(told, None, self.environment)).models
        return plan

    @property
    def environment(self) -> dict[str, str]:
        return {"PARALLEL_INFER_CUDA_OVERLAP": "yes" if self.overlap == "on" else "no"}


def bare(case: Case, seconds: float) -> float:
    """Pictures per second of the bare session in batches of that size."""
    plan = case.plan()
    session = Session(model_for(plan), session_config(plan))
    random, begin = np.random.default_rng(0), list[Callable[[], Callable[[], object]]]()
    for number in range(session.at_once):
        inputs = {
            tensor.name: random.integers(0, 255, (case.batch, *tensor.shape)).astype(tensor.dtype)
            for tensor in plan.spec.inputs
        }
        outputs = {
            tensor.name: np.zeros((case.batch, *tensor.shape), tensor.dtype)
            for tensor in plan.spec.outputs
            if -1 not in tensor.shape
        }
        session.lock_pages([*inputs.values(), *outputs.values()])
        binding = session.bind(inputs, outputs, number)
        for _ in range(3):
            binding.run()
        begin.append(binding.begin)
    under_way: deque[Callable[[], object]] = deque()
    turns, batches, started = itertools.cycle(begin), 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds:
        if len(under_way) == len(begin):
            under_way.popleft()()
            batches += 1
        under_way.append(next(turns)())
    for wait in under_way:
        wait()
    session.close()
    return batches * case.batch / spent


def pipeline(case: Case, seconds: float, processes: int) -> dict[str, Any]:
    """The level of `parallel-infer bench` with four batches in flight, as its JSON gives it."""
    with tempfile.TemporaryDirectory(prefix="pi-gpu-") as folder:
        saved = Path(folder) / "run.json"
        command = [sys.executable, "-m", "parallel_infer", "bench", "--model", case.model, "--save", str(saved)]
        command += ["--concurrency", str(4 * case.batch), "--seconds", str(seconds)]
        command += ["--processes", str(min(processes, 4 * case.batch))]
        if case.payload == "frame":
            preprocess = case.plan().spec.preprocess
            if not preprocess:
                raise ConfigError(f"{case.model} takes tensors, so there is nothing but them to send: --payloads jpeg")
            size = (round(preprocess[side] / preprocess["crop_fraction"]) for side in ("width", "height"))
            command += ["--frames", "x".join(map(str, size))]
        command += ["--", "--provider", case.provider, "--max-batch-size", str(case.batch), "--no-trial"]
        command += ["--log-level", "warning"]
        environment = os.environ | case.environment | ROOM
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        level: dict[str, Any] = json.loads(saved.read_text())["levels"][0]
        return level


def cores(level: dict[str, Any]) -> dict[str, float]:
    """Cores used, by role; of load processes that of the busiest."""
    used = {
        role: sum(spent for name, spent in level["processes"].items() if name.partition("-")[0] == role)
        for role in ROLES
    }
    return used | {"load": level["generators"]}


def measure(case: Case, seconds: float, rounds: int, processes: int) -> dict[str, Any]:
    """Medians of both, in turns."""
    raw: list[float] = []
    piped: list[dict[str, Any]] = []
    for _ in range(rounds):
        raw.append(bare(case, seconds))
        piped.append(pipeline(case, seconds, processes))
    rate = statistics.median(level["per_second"] for level in piped)
    middle = min(piped, key=lambda level: abs(level["per_second"] - rate))
    return {
        "model": case.model.partition("=")[0],
        "batch": case.batch,
        "payload": case.payload,
        "overlap": case.overlap,
        "bare": statistics.median(raw),
        "pipeline": rate,
        "ratio": statistics.median(level["per_second"] / other for level, other in zip(piped, raw, strict=True)),
        "mean_batch": middle["batch"],
        "cores": cores(middle),
        "bottleneck": middle["bottleneck"],
        "warnings": middle["warnings"],
    }


def in_half(model: str, folder: Path) -> str:
    """The same model in float16, as NAME=PATH. Its inputs and outputs stay as they are."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    name = model.partition("=")[0]
    (plan,) = make_plan(load_config({"models": [model]}, None, {})).models
    path = folder / f"{name}-half.onnx"
    onnx.save(convert_float_to_float16(onnx.load(plan.spec.path), keep_io_types=True), path)
    return f"{name}-half={path}"


def table_line(row: dict[str, Any]) -> str:
    """One line of the table."""
    used = " ".join(f"{share:.1f}" for share in row["cores"].values())
    return (
        f"{row['model']:16s} {row['batch']:5d} {row['payload']:>7s} {row['overlap']:>7s} {row['bare']:9,.0f} "
        f"{row['pipeline']:10,.0f} {row['ratio']:6.2f} {row['mean_batch']:10.1f}  {used:24s} {row['bottleneck']}"
    )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", metavar="NAME=PATH", help="repeat for several (zoo:detector)")
    parser.add_argument("--provider", default="cuda")
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--payloads", default="jpeg,frame")
    parser.add_argument("--overlap", default="on,off")
    parser.add_argument("--half", action="store_true", help="copies in float16 too")
    parser.add_argument("--processes", type=int, default=4, help="that make the load")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", type=Path, help="write the table as JSON")
    arguments = parser.parse_args()
    print_header()
    rows = []
    print(
        f"{'model':16s} {'batch':>5s} {'payload':>7s} {'overlap':>7s} {'bare/s':>9s} {'pipeline/s':>10s} {'ratio':>6s} "
        f"{'mean batch':>10s}  {'cores g d d i p load':24s} bottleneck"
    )
    with tempfile.TemporaryDirectory(prefix="pi-gpu-") as folder:
        try:
            models = arguments.model or ["detector=zoo:detector"]
            if arguments.half:
                models += [in_half(model, Path(folder)) for model in models]
            batches = map(int, arguments.batches.split(","))
            choices = models, batches, arguments.payloads.split(","), arguments.overlap.split(",")
            for model, batch, payload, overlap in itertools.product(*choices):
                case = Case(model, arguments.provider, batch, payload, overlap)
                rows.append(measure(case, arguments.seconds, arguments.rounds, arguments.processes))
                print(table_line(rows[-1]), flush=True)
        except ConfigError as error:
            print(error, file=sys.stderr)
            return 1
    if arguments.save:
        arguments.save.write_text(json.dumps({"provider": arguments.provider, "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
