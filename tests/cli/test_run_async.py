"""`parallel-infer run-async`, and the example that uses the runner."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from parallel_infer.cli import main
from tests.inference import session_models as models


@pytest.fixture
def addition(tmp_path: Path) -> Path:
    (tmp_path / "addition.onnx").write_bytes(models.addition())
    return tmp_path / "addition.onnx"


def run(model: Path, *arguments: str | Path) -> Result:
    command = ["run-async", "--provider", "cpu", "--threads", "1", "--model-path", str(model), *map(str, arguments)]
    return CliRunner().invoke(main, command)


def raw(path: Path, array: np.ndarray) -> Path:
    array.tofile(path)
    return path


def test_a_dry_run_counts_and_writes_nothing(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    result = run(zoo / "classifier.onnx", "-n", "20", "--jobs", "2", "--dry-run")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == "Batches completed: 20 / 20"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("n", "jobs"), [(1, 1), (1, 3), (4, 3), (7, 2)])
def test_n_counts_batches_in_all_whatever_the_number_of_jobs(addition: Path, n: int, jobs: int):
    result = run(addition, "-n", str(n), "--jobs", str(jobs), "--dry-run")
    assert result.output.splitlines()[-1] == f"Batches completed: {n} / {n}"


def test_inputs_are_read_and_outputs_written_without_headers(addition: Path, tmp_path: Path):
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.full((2, 3), 10, np.float32)
    out = tmp_path / "new" / "out"
    files = (f"b={raw(tmp_path / 'b.bin', b)}", f"a={raw(tmp_path / 'a.bin', a)}")
    result = run(
        addition, "--input-binary", files[0], "--input-binary", files[1], "--batch", "2", "--output-dir", out, "-n", "2"
    )
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(np.fromfile(out / "y_2x3.bin", np.float32).reshape(2, 3), a + b)


def test_one_input_needs_no_name_even_with_an_equals_sign_in_its_path(tmp_path: Path):
    (tmp_path / "m.onnx").write_bytes(models.identity())
    file = raw(tmp_path / "k=1.bin", np.arange(8, dtype=np.float32))
    assert run(tmp_path / "m.onnx", "--input-binary", file, "--output-dir", tmp_path).exit_code == 0
    assert (tmp_path / "y_1x8.bin").read_bytes() == file.read_bytes()


def test_a_file_of_the_wrong_size_is_told_both_sizes(tmp_path: Path):
    (tmp_path / "m.onnx").write_bytes(models.identity())
    file = raw(tmp_path / "x.bin", np.zeros(7, np.float32))
    result = run(tmp_path / "m.onnx", "--input-binary", file)
    assert result.exit_code == 1
    assert "x.bin has 28 bytes" in result.output
    assert "float32 [1, 8], which is 32 bytes" in result.output


@pytest.mark.parametrize(
    ("arguments", "text", "code"),
    [
        ([], "either --input-binary, or --dry-run", 2),
        (["--dry-run", "--input-binary", "a.bin"], "either", 2),
        (["--input-binary", "a.bin"], "the inputs are a, b", 2),
        (["--input-binary", "a=a.bin"], "missing: b", 2),
        (["--input-binary", "a=none.bin", "--input-binary", "b=none.bin"], "none.bin cannot be read", 1),
        (["--dry-run", "--shape", "z=1,3"], "no input z; it takes a, b", 2),
        (["--dry-run", "--shape", "a=1,x"], "INPUT=NUMBER", 2),
        (["--dry-run", "--shape", "a=2,3"], "batch is 1 here and 2", 1),
        (["--dry-run", "--precision", "bf16"], "provider = cpu computes in fp32", 2),
        (["--dry-run", "-n", "0"], "0 is not in the range", 2),
    ],
)
def test_what_is_wrong_is_named_and_the_exit_code_tells_whose_fault_it_is(addition: Path, arguments, text, code):
    result = run(addition, *arguments)
    assert text in result.output
    assert result.exit_code == code


def test_open_dimensions_are_asked_for_and_taken(tmp_path: Path):
    (tmp_path / "m.onnx").write_bytes(models.identity(("batch", 3, "height", "width")))
    refused = run(tmp_path / "m.onnx", "--dry-run")
    assert refused.exit_code == 2
    assert "--shape x=" in refused.output
    taken = run(tmp_path / "m.onnx", "--dry-run", "--shape", "x=2,3,4,5")
    assert "[2, 3, 4, 5]" in taken.output


def test_a_batch_that_fails_is_an_error_with_the_count(tmp_path: Path):
    (tmp_path / "m.onnx").write_bytes(models.reshaped())
    x, s = raw(tmp_path / "x.bin", np.zeros(8, np.float32)), raw(tmp_path / "s.bin", np.array([3, 3]))
    result = run(tmp_path / "m.onnx", "--input-binary", f"x={x}", "--input-binary", f"s={s}")
    assert result.exit_code == 1
    assert "Batches completed: 0 / 10" in result.output
    assert "reshaped" in result.output


def test_a_batch_that_does_not_end_is_an_error(tmp_path: Path):
    (tmp_path / "m.onnx").write_bytes(models.endless())
    x, go = raw(tmp_path / "x.bin", np.ones(1, np.float32)), raw(tmp_path / "go.bin", np.array(True))
    result = run(tmp_path / "m.onnx", "--input-binary", f"x={x}", "--input-binary", f"go={go}", "--timeout", "0.1")
    assert result.exit_code == 1
    assert "timeout = 0.1 s" in result.output


def test_a_benchmark_prints_both_ways(addition: Path):
    result = run(addition, "--dry-run", "--benchmark", "-n", "7", "--batch", "4")
    assert result.exit_code == 0, result.output
    for way in ("Synchronous", "Asynchronous"):
        assert re.search(rf"^{way} +[\d.]+ ms +[\d.]+ ms/frame$", result.output, re.MULTILINE)
    assert result.output.splitlines()[-1] == "Batches completed: 7 / 7"


def test_json_holds_everything(addition: Path):
    result = run(addition, "--dry-run", "--benchmark", "--json", "-n", "3", "--batch", "5")
    report = json.loads(result.output)
    assert (report["completed"], report["total"], report["jobs"]) == (3, 3, 2)
    assert report["outputs"] == [{"name": "y", "dtype": "float32", "shape": [5, 3], "file": ""}]
    for times in report["benchmark"].values():
        assert times["ms_per_frame"] == pytest.approx(times["ms"] / 15)


def test_the_example_runs(capsys: pytest.CaptureFixture[str]):
    example = Path(__file__).parents[2] / "examples" / "runner_pipeline.py"
    runpy.run_path(str(example), run_name="__main__")
    assert re.search(r"\d+ frames", capsys.readouterr().out)
