"""The command against a real server: loads, comparison, usage errors."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from parallel_infer.cli import main
from parallel_infer.client import Client
from parallel_infer.config.sources import load_config
from parallel_infer.errors import ConfigError, InferError
from parallel_infer.ipc.messages import TIMES
from parallel_infer.protocol import AnswerBody
from parallel_infer.tools.bench.comparison import BATCH, limits_of, loop_plan
from parallel_infer.tools.bench.figures import BETWEEN, OUTSIDE, Run
from parallel_infer.tools.bench.generators import Generators, Target
from parallel_infer.tools.bench.measure import Bench, Demand, source_for
from parallel_infer.tools.bench.payloads import SIZE, Source, read_pictures, shipped_pictures
from parallel_infer.tools.bench.synchronous import Loop, Subject, Synchronous
from parallel_infer.tools.local_server import LocalServer, local_server


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with local_server("--model", "classifier=zoo:classifier", "--shared-memory-mb", "64") as found:
        yield found


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with shipped_pictures() as found:
        yield found


def invoke(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def test_shipped_pictures_are_jpeg_of_one_size(folder: Path) -> None:
    for payload in read_pictures(folder):
        assert payload.startswith(b"\xff\xd8")
        picture = cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert picture.shape[1::-1] == SIZE


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")

    with pytest.raises(ConfigError, match="holds no pictures"):
        read_pictures(tmp_path)


def test_pictures_are_sent_as_frames_of_a_size(folder: Path, server: LocalServer) -> None:
    payloads = source_for({"task": "detect"}, str(folder), (64, 48)).payloads()
    assert {(payload.kind, payload.tensors[0].shape) for payload in payloads} == {("frame", (48, 64, 3))}
    with pytest.raises(ConfigError, match=r"the model m takes tensors, so it cannot be sent frames \(--frames\)"):
        source_for({"task": "tensor", "name": "m", "inputs": []}, "", (64, 48))

    words = (
        "bench",
        "--server",
        server.address,
        "--frames",
        "64x48",
        "--concurrency",
        "4",
        "--seconds",
        "0.2",
        "--json",
    )
    run = json.loads(invoke(*words).stdout)
    assert run["settings"]["pictures"] == "shipped, 1280x720, as frames of 64x48"
    assert run["levels"][0]["answers"] > 0
    assert not run["levels"][0]["errors"]


@pytest.mark.parametrize("words", [("--frames", "64"), ("--frames", "0x3"), ("--frames", "6x4", "--compare", "sync")])
def test_sizes_of_frames_that_are_none_are_bad_usage(words: tuple[str, ...]) -> None:
    result = invoke("bench", *words)
    assert result.exit_code == 2
    assert "--frames" in result.stderr


def test_tensor_models_get_noise_of_their_shapes() -> None:
    source = source_for({"task": "tensor", "inputs": [["x", "float32", [3, 4]], ["n", "int64", [2]]]}, "")

    (payload,) = source.payloads()

    assert [(tensor.name, tensor.dtype, tensor.shape) for tensor in payload.tensors] == [
        ("x", "float32", (3, 4)),
        ("n", "int64", (2,)),
    ]
    assert len(payload.data) == 3 * 4 * 4 + 2 * 8


def test_closed_and_open_loops_with_two_processes(server: LocalServer, folder: Path) -> None:
    target = Target(server.address, Source(str(folder)))
    with Client(server.address, timeout=30.0) as client, Generators(target, 2) as generators:
        generators.ready()
        bench = Bench(client, generators, "classifier", tuple(server.processes()))
        for seconds in (1.0, 5.0, 25.0):  # on a busy machine no answer may come in a second
            closed = bench.measure(Demand(in_flight=4, seconds=seconds, timeout=60.0))
            if closed.answers:
                break
        opened = bench.measure(Demand(rate=10.0, seconds=1.0, timeout=60.0))

    assert closed.answers > 0
    assert closed.errors == opened.errors == {}
    assert set(closed.stages) == {"decode", "infer", "postprocess"}
    assert {"gateway", "dispatcher", "infer-classifier-0"} <= set(closed.processes)
    assert closed.latency_ms["p50"] <= closed.latency_ms["p99"] <= closed.latency_ms["max"]
    assert set(closed.times_ms) == {*TIMES, BETWEEN, OUTSIDE}
    assert sum(closed.times_ms.values()) == pytest.approx(closed.latency_ms["mean"], rel=0.01)
    # an open loop answers what fell due, no more and, without errors, no less
    assert opened.answers == round(opened.offered * opened.seconds)


def test_the_same_seed_gives_the_same_arrivals(server: LocalServer, folder: Path) -> None:
    with Client(server.address, timeout=30.0) as client, Generators(Target(server.address, Source(str(folder)))) as one:
        one.ready()
        bench = Bench(client, one, "classifier")
        offered = [bench.measure(Demand(rate=40.0, seconds=0.3), seed).offered for seed in (3, 3)]

    assert offered[0] == offered[1] > 0


def test_errors_are_counted_by_code(server: LocalServer, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff" + bytes(100))
    with (
        Client(server.address, timeout=30.0) as client,
        Generators(Target(server.address, Source(str(tmp_path)))) as one,
    ):
        one.ready()
        level = Bench(client, one, "classifier").measure(Demand(in_flight=2, seconds=0.2))

    assert level.answers == 0
    assert set(level.errors) == {"BAD_INPUT"}
    assert level.warnings


def test_command_prints_json_and_saves_and_draws(server: LocalServer, tmp_path: Path) -> None:
    saved, plot = tmp_path / "run.json", tmp_path / "run.png"
    words = ["--server", server.address, "--concurrency", "2", "--rate", "10", "--seconds", "0.3"]

    result = invoke("bench", *words, "--json", "--save", str(saved), "--plot", str(plot))

    assert result.exit_code == 0, result.output
    run = msgspec.json.decode(result.stdout, type=Run)
    assert [(level.in_flight, level.rate) for level in run.levels] == [(2, 0.0), (0, 10.0)]
    assert run.model == "classifier"
    assert json.loads(saved.read_text()) == json.loads(result.stdout)
    assert plot.read_bytes().startswith(b"\x89PNG")

    again = invoke("bench", *words, "--baseline", str(saved))

    assert again.exit_code == 0, again.output
    assert "compared with the saved run" in again.stdout
    assert "bottleneck" in again.stdout


def test_what_is_left_out_of_a_folder_is_said(server: LocalServer, folder: Path, tmp_path: Path) -> None:
    shutil.copy(next(folder.glob("*.jpg")), tmp_path / "a.jpg")
    (tmp_path / "b.heic").write_bytes(b"of a phone")

    words = ["--server", server.address, "--pictures", str(tmp_path), "--concurrency", "1", "--seconds", "0.1"]
    result = invoke("bench", *words, "--json")

    assert result.exit_code == 0, result.output
    assert f"left out of {tmp_path}: 1 file" in result.stderr
    assert ".heic" in result.stderr


def test_unknown_model_names_those_served(server: LocalServer) -> None:
    result = invoke("bench", "--server", server.address, "--model-name", "dog", "--seconds", "0.2")

    assert result.exit_code == 2
    assert "classifier" in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--concurrency", "1,x"], "positive numbers"),
        (["--rate", "0"], "positive numbers"),
        (["--server", "ipc:///tmp/s", "--model", "a=b"], "another"),
        (["--server", "ipc:///tmp/s", "--compare", "sync"], "--model"),
        (["--baseline", "/nowhere.json"], "does not exist"),
    ],
)
def test_bad_usage_is_told(words: list[str], said: str) -> None:
    result = invoke("bench", *words)

    assert result.exit_code == 2
    assert said in result.stderr


def test_loop_gives_the_answers_of_the_pipeline(pictures: Path, expected: dict[str, Any]) -> None:
    config = load_config({"models": ["classifier=zoo:classifier"]}, None, {})
    plan = loop_plan(config, "classifier")
    subject = Subject(plan, Source(str(pictures)), limits_of(config))
    loop = Loop(subject)

    geometries = [loop.decode(row) for row in range(3)]
    outputs = loop.infer(3)
    tops = [top(loop.postprocess(outputs, index, geometry)) for index, geometry in enumerate(geometries)]

    assert plan.max_batch == BATCH
    assert tops == [expected[path.name]["classify"][0][0] for path in sorted(pictures.glob("*.png"))]


def top(encoded: Any) -> str:
    """The name of the best class of an encoded classification."""
    body = msgspec.msgpack.decode(encoded.body, type=AnswerBody)
    names = [tensor.name for tensor in body.arrays]
    return body.names[int(encoded.payload[names.index("classes")][0])]


def test_synchronous_process_measures_loops_and_steps(folder: Path) -> None:
    config = load_config({"models": ["classifier=zoo:classifier"]}, None, {})
    subject = Subject(loop_plan(config, "classifier"), Source(str(folder)), limits_of(config))
    with contextlib.closing(Synchronous(subject)) as loop:
        facts = loop.ready()
        rates = [loop.per_second(batch, 0.2, 0.1) for batch in (1, BATCH)]
        steps = loop.steps(0.1)

    assert facts.on_processor
    assert min(rates) > 0
    assert min(steps.decode, steps.infer, steps.postprocess) > 0


def test_a_loop_that_cannot_run_says_why(tmp_path: Path) -> None:
    config = load_config({"models": ["classifier=zoo:classifier"]}, None, {})
    subject = Subject(loop_plan(config, "classifier"), Source(str(tmp_path)), limits_of(config))
    with contextlib.closing(Synchronous(subject)) as loop, pytest.raises(InferError, match="holds no pictures"):
        loop.ready()
