"""What serving in 8 bits gains: a model and its quantized copy in one server, asked in turns.

    python benchmarks/int8.py [--models detector,classifier,resnet50,yolov8n] [--calibrate FOLDER] [--in-flight 32]
                              [--rounds 5] [--seconds 4]

Copies are made as `parallel-infer quantize --anyway` makes them, with the shipped pictures where no folder is given.
resnet50 and yolov8n are graphs of those layers with random weights: their speed is right, their answers mean nothing.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import onnx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import print_header
from benchmarks.peers.graphs import MAKERS
from parallel_infer import Client
from parallel_infer.model_files.location import ZOO
from parallel_infer.tools.bench.payloads import picture_files, read_pictures, shipped_pictures
from parallel_infer.tools.local_server import local_server
from parallel_infer.tools.quantize.quantization import Report, quantize


def prepared(name: str, calibration: list[bytes], folder: Path) -> Report:
    """Writes NAME.onnx and NAME-int8.onnx into the folder."""
    path = folder / f"{name}.onnx"
    if name in MAKERS:
        onnx.save(MAKERS[name](), path)
    else:
        shutil.copy(ZOO / f"{name}.onnx", path)
    return quantize(path, calibration, folder / f"{name}-int8.onnx", anyway=True)


def rate(client: Client, model: str, pictures: list[bytes], in_flight: int, seconds: float) -> float:
    """Pictures per second."""
    client.infer_many(model, pictures * -(-in_flight // len(pictures)), in_flight=in_flight)
    jobs, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds:
        jobs += len(client.infer_many(model, pictures * in_flight, in_flight=in_flight))
    return jobs / spent


def measure(name: str, report: Report, folder: Path, pictures: list[bytes], arguments: argparse.Namespace) -> None:
    """Both models in turns."""
    models = name, f"{name}-int8"
    words = [word for model in models for word in ("--model", f"{model}={folder / model}.onnx")]
    with local_server(*words) as server, Client(server.address, timeout=60) as client:
        rounds = [
            [rate(client, model, pictures, arguments.in_flight, arguments.seconds) for model in models]
            for _ in range(arguments.rounds)
        ]
    before, after = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratios = [copy / model for model, copy in rounds]
    tried = ", ".join(f"{trial.recipe} {trial.speed.gain:.2f}" for trial in report.trials)
    print(
        f"{name:11}{before:8.1f}{after:8.1f}{after / before:7.2f}  {min(ratios):.2f}-{max(ratios):.2f}   graph alone: "
        f"{tried}; {report.recipe} taken, agreement {report.agreement.share:.1%} ({report.speed.provider_after})",
        flush=True,
    )


def main() -> None:
    """Quantize, serve, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="detector,classifier,resnet50,yolov8n")
    parser.add_argument("--calibrate", type=Path, default=ZOO / "pictures")
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    arguments = parser.parse_args()
    print_header()
    print("model         float    int8  ratio  rounds      (pictures/s)")
    calibration = [path.read_bytes() for path in picture_files(arguments.calibrate)]
    with shipped_pictures() as shipped, tempfile.TemporaryDirectory() as folder:
        pictures = read_pictures(shipped)
        for name in arguments.models.split(","):
            report = prepared(name, calibration, Path(folder))
            measure(name, report, Path(folder), pictures, arguments)


if __name__ == "__main__":
    main()
