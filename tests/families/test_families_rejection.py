"""Files that cannot be served: each is refused with what was found and what was expected."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from parallel_infer.errors import ConfigError, ModelRejected
from stages.recognise import describe
from stages.recognise.trial import Trial, TrialFailed
from tests.families.tiny_graphs import CELLS, finished, one_node, saved, tiny, zeros

VALID = tiny({"output0": zeros(6, CELLS)}, metadata={"task": "detect", "names": "['a', 'b']"}).SerializeToString()

CONTENTS = {
    "empty": (b"", "model.onnx is empty"),
    "text": (b"hello world, this is not a model", "is not an ONNX file"),
    "zip": (b"PK\x03\x04" + bytes(100), "PyTorch checkpoint"),
    "pickle": (b"\x80\x02}q" + bytes(100), "pickle"),
    "tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(100), "TensorFlow Lite"),
    "ort": (b"\x1c\x00\x00\x00ORTM" + bytes(100), r"\.ort format"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "web page": (b"<html></html>", "web page"),
    "truncated": (VALID[: len(VALID) // 2], "cut short"),
    "only a header": (VALID[:2], "holds no graph"),
    "zeros": (bytes(64), "not an ONNX file|holds no graph"),
}


@pytest.mark.parametrize(("content", "message"), CONTENTS.values(), ids=CONTENTS)
def test_files_that_are_no_models(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelRejected, match=message) as caught:
        describe("m", path)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(("place", "text"), [("missing.onnx", "cannot be read"), (".", "is a folder")])
def test_files_that_cannot_be_read(tmp_path: Path, place: str, text: str) -> None:
    with pytest.raises(ModelRejected, match=text):
        describe("m", tmp_path / place)


def ports(given: onnx.ValueInfoProto, out: onnx.ValueInfoProto) -> onnx.ModelProto:
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [given], [out])
    return finished(graph)


def value(name: str, dims: Sequence[int | str] | None, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, dims)


def too_small() -> onnx.ModelProto:
    """Fails at run, whatever the batch: column 5 of 3."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["x", "index"], ["y"], axis=1)],
        "gather",
        [value("x", ["batch", 3])],
        [value("y", ["batch", 1])],
        [numpy_helper.from_array(np.array([5], np.int64), "index")],
    )
    return finished(graph)


GRAPHS: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "operator": (lambda: one_node("Nope"), r"unknown operator Nope \(opset 17\)"),
    "operator of another domain": (lambda: one_node("Foo", "acme"), "unknown operator acme:Foo"),
    "opset": (lambda: one_node("Relu", opset=99), "opset 99 is too new"),
    "IR version": (lambda: one_node("Relu", ir_version=99), "IR version 99 is too new"),
    "no inputs": (lambda: finished(constant()), "has no inputs"),
    "unranked": (lambda: ports(value("x", None), value("y", None)), "number of dimensions"),
    "strings": (lambda: ports(value("x", ["n"], 8), value("y", ["n"], 8)), r"tensor\(string\)"),
    "fails at run": (too_small, r"failed a trial run with x \[1, 3\]"),
    "huge input": (lambda: ports(value("x", ["n", 1 << 30]), value("y", ["n", 1 << 30])), "at most 1024 MiB"),
    "huge batch": (lambda: ports(value("x", [1 << 40, 3]), value("y", [1 << 40, 3])), "batch of 1099511627776 take"),
    "empty dimension": (lambda: ports(value("x", ["n", 0]), value("y", ["n", 0])), "without elements"),
    "no batch": (lambda: ports(value("x", [0, 3]), value("y", [0, 3])), "batch of 0"),
}


def constant() -> onnx.GraphProto:
    number = numpy_helper.from_array(np.zeros((1, 2), np.float32), "c")
    node = helper.make_node("Constant", [], ["y"], value=number)
    return helper.make_graph([node], "c", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])])


@pytest.mark.parametrize(("build", "message"), GRAPHS.values(), ids=GRAPHS)
def test_graphs_that_cannot_be_served(tmp_path: Path, build: Callable[[], onnx.ModelProto], message: str) -> None:
    with pytest.raises(ModelRejected, match=message) as caught:
        describe("m", saved(build(), tmp_path))
    assert str(tmp_path) not in str(caught.value)
    assert "onnxruntime_src" not in str(caught.value)


# External data


def with_weights(folder: Path, location: str = "weights.bin", length: int = 12) -> Path:
    """y = x + w, with w (3 float32) in a file of its own."""
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    for key, text in (("location", location), ("offset", "0"), ("length", str(length))):
        weights.external_data.add(key=key, value=text)
    dims: list[int | str] = ["batch", 3]
    node = helper.make_node("Add", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "sum", [value("x", dims)], [value("y", dims)], [weights])
    return saved(finished(graph), folder)


def test_external_data_next_to_the_model_is_used(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(np.ones(3, np.float32).tobytes())
    assert describe("m", with_weights(tmp_path)).outputs[0].shape == (3,)


def test_external_data_in_a_folder_below_is_used(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "weights.bin").write_bytes(bytes(12))
    assert describe("m", with_weights(tmp_path, "parts/weights.bin")).outputs[0].shape == (3,)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "a/../../weights.bin", "", "a\\..\\b", "a\0b"])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(12))
    with pytest.raises(ModelRejected, match="outside the model's folder"):
        describe("m", with_weights(folder, location))


def test_missing_external_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelRejected, match=r"'weights\.bin' is missing; copy it next to the model"):
        describe("m", with_weights(tmp_path))


def test_external_data_that_is_too_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(8))
    with pytest.raises(ModelRejected, match="has 8 bytes, the model expects 12"):
        describe("m", with_weights(tmp_path))


@pytest.mark.parametrize("location", ["weights.bin", "linked/weights.bin"])
def test_links_to_external_data_are_refused(tmp_path: Path, location: str) -> None:
    secret, folder = tmp_path / "secret", tmp_path / "inside"
    secret.mkdir()
    folder.mkdir()
    (secret / "weights.bin").write_bytes(bytes(12))
    (folder / "weights.bin").symlink_to(secret / "weights.bin")
    (folder / "linked").symlink_to(secret)
    with pytest.raises(ModelRejected, match="symbolic link"):
        describe("m", with_weights(folder, location))


def test_hard_links_to_external_data_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(12))
    os.link(tmp_path / "secret", tmp_path / "weights.bin")
    with pytest.raises(ModelRejected, match="hard link"):
        describe("m", with_weights(tmp_path))


def test_external_data_that_is_a_folder_or_a_pipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for location in ("weights.bin", "pipe"):
        with pytest.raises(ModelRejected, match="not a plain file"):
            describe("m", with_weights(tmp_path, location))


def test_external_data_of_a_nested_graph_is_checked_too(tmp_path: Path) -> None:
    inner_tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    inner_tensor.external_data.add(key="location", value="../secret")
    inner = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["v"])], "inner", [], [value("v", [1])], [inner_tensor]
    )
    outer = helper.make_graph(
        [helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)],
        "outer",
        [value("x", [1], TensorProto.BOOL)],
        [value("y", [1])],
    )
    with pytest.raises(ModelRejected, match="outside the model's folder"):
        describe("m", saved(finished(outer), tmp_path))


# Runs that do not end, and damaged bytes


def endless() -> onnx.ModelProto:
    """A loop whose condition is always true, for as many turns as int64 can count."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["still_going"]),
            helper.make_node("Add", ["state", "state"], ["next_state"]),
        ],
        "body",
        [value("turn", [], TensorProto.INT64), value("going", [], TensorProto.BOOL), value("state", ["batch", 2])],
        [value("still_going", [], TensorProto.BOOL), value("next_state", ["batch", 2])],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["turns", "yes", "x"], ["y"], body=body)],
        "endless",
        [value("x", ["batch", 2])],
        [value("y", ["batch", 2])],
        [
            numpy_helper.from_array(np.array(2**62, np.int64), "turns"),
            numpy_helper.from_array(np.array(True), "yes"),
        ],
    )
    return finished(graph)


def test_a_run_that_does_not_end_is_stopped(tmp_path: Path) -> None:
    trial = Trial(saved(endless(), tmp_path))
    with pytest.raises(TrialFailed, match=r"did not finish within 0\.2 s"):
        trial.run({"x": np.zeros((1, 2), np.float32)}, time_limit=0.2)


mutations = st.lists(
    st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=8
) | st.integers(0, len(VALID) - 1)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutation=mutations)
def test_damaged_bytes_are_described_or_rejected(tmp_path: Path, mutation: int | list[tuple[int, int]]) -> None:
    content = bytearray(VALID)
    if isinstance(mutation, int):
        del content[mutation:]
    else:
        for place, byte in mutation:
            content[place] = byte
    path = tmp_path / "damaged.onnx"
    path.write_bytes(content)
    with suppress(ModelRejected, ConfigError):
        assert describe("m", path).inputs
