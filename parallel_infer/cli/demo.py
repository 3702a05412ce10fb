"""`parallel-infer demo`: serve, send the shipped pictures through every process, show what came back, stop."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from parallel_infer.cli.parameter_types import FiniteRange, GivenPath
from parallel_infer.cli.tables import console
from parallel_infer.errors import InferError

if TYPE_CHECKING:
    from parallel_infer import Answer, Client
    from parallel_infer.tools.local_server import LocalServer

PICTURES = Path(__file__).resolve().parents[1] / "zoo" / "pictures"
MODELS = ("detector", "classifier", "segmenter", "pose")
LOAD_SECONDS = 3.0  # of the throughput measurement, per model
_SHOWN = 4  # objects per picture in the table


@click.command("demo")
@click.option(
    "--output",
    type=GivenPath(file_okay=False, path_type=Path),
    default=Path("demo-output"),
    show_default=True,
    help="Folder for the annotated pictures.",
)
@click.option("--seconds", type=FiniteRange(0, 60), default=LOAD_SECONDS, help="Length of each throughput run.")
def command(output: Path, seconds: float) -> None:
    """Serve the shipped models, ask about the shipped pictures as a client, and show the answers.

    Prints every answer and the throughput, writes annotated pictures, and stops the server.
    """
    from parallel_infer import Client
    from parallel_infer.files.outputs import make_folder
    from parallel_infer.tools.local_server import local_server

    make_folder(output, "--output")
    options = [word for model in MODELS for word in ("--model", f"{model}=zoo:{model}")]
    options += ["--log-level", "error", "--no-trial"]  # to be ready sooner
    click.echo(f"starting a server with {', '.join(MODELS)} ...")
    with local_server(*options) as server, Client(server.address, timeout=60.0) as client:
        click.echo(f"ready after {server.seconds_to_ready:.1f} s: {_processes(server)} processes\n")
        _show_answers(client, output)
        _show_throughput(client, seconds)
    click.echo(f"\nserver stopped; annotated pictures are in {output}/")


def _processes(server: LocalServer) -> int:
    return len(server.processes())


def _show_answers(client: Client, output: Path) -> None:
    import cv2
    from rich.table import Table

    from parallel_infer.files.outputs import write_whole

    table = Table("picture", "model", "answer", "ms", title="Answers")
    for path in sorted(PICTURES.glob("*.png")):
        picture = cv2.imread(str(path))
        for model in MODELS:
            answer = client.infer(model, path)
            table.add_row(path.name, model, _summary(answer), f"{answer.timing['total'] * 1000:.1f}")
            _, encoded = cv2.imencode(".jpg", answer.draw(picture))  # type: ignore[arg-type]  # a shipped picture can be read
            write_whole(output / f"{path.stem}-{model}.jpg", encoded.tobytes())
    console().print(table)


def _summary(answer: Answer) -> str:
    pairs = [f"{name} {score:.2f}" for name, score in zip(answer.names, answer.scores, strict=True)]
    more = f", and {len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else ""
    return ", ".join(pairs[:_SHOWN]) + more if pairs else "nothing found"


def _show_throughput(client: Client, seconds: float) -> None:
    if not seconds:
        return
    payload = (PICTURES / "coffee.png").read_bytes()
    click.echo(f"\nthroughput with 32 pictures in flight (600x400 PNG, {len(payload) // 1024} KB):")
    for model in MODELS:
        rate, batch = _throughput(client, model, payload, seconds)
        click.echo(f"  {model:12s} {rate:7.1f} pictures/s, mean batch {batch:.1f}")


def _throughput(client: Client, model: str, payload: bytes, seconds: float) -> tuple[float, float]:
    answers: list[Any] = []
    started = time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds or not answers:
        answers += client.infer_many(model, [payload] * 32, in_flight=32)
    failed = [answer for answer in answers if isinstance(answer, InferError)]
    if failed:
        raise failed[0]
    return len(answers) / spent, sum(answer.batch_size for answer in answers) / len(answers)
