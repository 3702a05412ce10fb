"""Names and options in every form that people and exporters write them, by every way they come in."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

from parallel_infer import Client
from parallel_infer.cli import main
from parallel_infer.client.model_options import model_options
from parallel_infer.config.sources import load_config
from parallel_infer.errors import BadInput, ConfigError
from parallel_infer.model_files.class_names import read_names
from stages.recognise import describe
from tests.engine.serving import Server
from tests.families.tiny_graphs import CELLS, Dims, finished, names, saved, tiny, zeros

SIX = {"output0": zeros(6, CELLS)}

FILES = {
    "a.txt": "cat\ndog\n",
    "b.names": "\ufeffcat\r\ndog\r\n\r\n",
    "c.json": '["cat", "dog"]',
    "d.json": '{"0": "cat", "1": "dog"}',
    "e.json": '{"id2label": {"0": "cat", "1": "dog"}}',
    "f.yaml": "path: data\nnc: 2\nnames:\n  0: cat\n  1: dog  # good\ndownload: no\n",
    "g.yml": "names: ['cat', \"dog\"]\nnc: 2\n",
    "h.yaml": "names:\n- cat\n- dog\n",
    "i.yaml": "class_names: x\nnames: [ 'cat',  # good\n         'dog' ]\nnc: 2\n",
    "j.yaml": "names: {0: cat, 1: 'dog'}\nnc: 2\n",
    "k.yaml": "names:\n  1: dog\n  0: cat\n",
}
SAME = (["cat", "dog"], {"0": "cat", "1": "dog"})


@pytest.mark.parametrize(("name", "text"), FILES.items(), ids=FILES)
def test_names_in_a_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_names(name, tmp_path) in SAME
    (tmp_path / "server.toml").write_text(f'[models.pose]\npath = "zoo:pose"\nnames = "{name}"\n')
    assert load_config({}, tmp_path / "server.toml", {}).models["pose"].names in SAME


def test_names_in_a_pipe_that_nobody_writes_to_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "names.txt")
    with pytest.raises(ConfigError, match=r"names: names\.txt is no file of class names"):
        read_names("names.txt", tmp_path)


def test_names_in_a_file_keep_their_numbers_and_commas(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("names: ['cat, small', it''s, \"dog\"]\n")
    assert read_names("a.yaml", tmp_path) == ["cat, small", "it''s", "dog"]
    (tmp_path / "b.yaml").write_text("names:\n  1: cat\n  3: 'it''s'\n")
    assert read_names("b.yaml", tmp_path) == {"1": "cat", "3": "it's"}
    (tmp_path / "c.json").write_text('{"images": [], "categories": [{"id": 0, "name": "cat"}]}')
    (tmp_path / "server.toml").write_text('[models.pose]\npath = "zoo:pose"\nnames = "c.json"\n')
    assert load_config({}, tmp_path / "server.toml", {}).models["pose"].names == [{"id": 0, "name": "cat"}]


def test_files_of_names_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "broken.json").write_text("[")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    for name, said in {"none.txt": "cannot be read", "empty.txt": "holds no", "broken.json": "not JSON"}.items():
        with pytest.raises(ConfigError, match=said):
            read_names(name, tmp_path)
    with pytest.raises(ConfigError, match="not text in UTF-8"):
        read_names("latin.txt", tmp_path)
    with pytest.raises(BadInput, match=r"none\.txt cannot be read"):
        model_options({"names": "none.txt"})


FORMS: list[tuple[str, str, Any]] = [
    ("mean", "0", 0.0),
    ("mean", "123.5", 123.5),
    ("std", "[1, 2, 3]", [1.0, 2.0, 3.0]),
    ("names", '"cat, dog"', "cat, dog"),
    ("names", '["cat", "dog"]', ["cat", "dog"]),
    ("names", '{0 = "cat", 1 = "dog"}', {"0": "cat", "1": "dog"}),
]


@pytest.mark.parametrize(("key", "text", "value"), FORMS)
def test_forms_in_a_file(tmp_path: Path, key: str, text: str, value: Any) -> None:
    (tmp_path / "server.toml").write_text(f'[models.pose]\npath = "zoo:pose"\n{key} = {text}\n')
    assert getattr(load_config({}, tmp_path / "server.toml", {}).models["pose"], key) == value


WRITTEN: list[Any] = [
    *("cat, dog", "cat\ndog", '["cat", "dog"]', "('cat', 'dog')", '{"0": "cat", "1": "dog"}', "{0: 'cat', 1: 'dog'}"),
    *(["cat", "dog"], {0: "cat", 1: "dog"}, {"0": "cat", "1": "dog"}, {"cat": 0, "dog": 1}),
    *([{"id": 2, "name": "dog"}, {"id": 1, "name": "cat", "supercategory": "animal"}], {0: {"name": "cat"}, 1: "dog"}),
    *([{"name": "cat"}, {"name": "dog"}], "[b'cat', b'dog']"),
]


@pytest.mark.parametrize("value", WRITTEN, ids=str)
def test_names_by_number(tmp_path: Path, value: Any) -> None:
    assert describe("m", saved(tiny(SIX), tmp_path), {"names": value, "task": "detect"}).names == ("cat", "dog")


@pytest.mark.parametrize("value", [[{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}], [["cat"], ["dog"]]], ids=str)
def test_names_that_may_be_of_any_class_are_refused(tmp_path: Path, value: list[Any]) -> None:
    with pytest.raises(ConfigError, match="model option names must be a list of names"):
        describe("m", saved(tiny(SIX), tmp_path), {"names": value, "task": "detect"})
    metadata = {"task": "detect", "names": str(value)}
    assert "the metadata's 'names' could not be read" in str(
        describe("m", saved(tiny(SIX, metadata=metadata), tmp_path)).warnings
    )


METADATA: list[dict[str, str]] = [
    {"task": "detect", "names": "{0: 'cat', 1: 'dog'}"},
    {"task": "detect", "names": '{"0": "cat", "1": "dog"}'},
    {"task": "detect", "names": '["cat", "dog"]'},
    {"task": "detect", "names": "cat,dog"},
    {"task": "detect", "names": "cat\ndog"},
    {"task": "object-detection", "id2label": '{"0": "cat", "1": "dog"}'},
    {"task": "Detection", "labels": "cat\ndog\n"},
    {"task": "detect", "classes": "['cat', 'dog']", "end2end": "false", "args": '{"nms": false, "batch": 1}'},
]


@pytest.mark.parametrize("metadata", METADATA, ids=str)
def test_names_in_the_metadata(tmp_path: Path, metadata: dict[str, str]) -> None:
    spec = describe("m", saved(tiny(SIX, metadata=metadata), tmp_path))
    assert (spec.task, spec.family, spec.names, spec.warnings) == ("detect", "yolov8", ("cat", "dog"), ())


def test_characters_name_classes_where_there_are_as_many(tmp_path: Path) -> None:
    """PaddlePaddle's exports name the classes of a classifier as they name the characters of a text model."""
    for listed, expected in (("0\n90\n180\n270", ("0", "90", "180", "270")), ("a\nb", ())):
        path = saved(tiny({"softmax": zeros(4) + 0.25}, metadata={"character": listed}), tmp_path)
        assert describe("m", path).names == expected


def test_options_in_python_travel_as_plain_values(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    given = {"mean": np.array([1, 2, 3]), "conf": np.float32(0.5), "std": (4, 5, 6), "pad": None}
    assert model_options({**given, "names": tmp_path / "names.txt"}) == {
        "mean": [1, 2, 3],
        "conf": 0.5,
        "std": [4, 5, 6],
        "names": ["cat", "dog"],
    }


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("served"), "--model", "classifier=zoo:classifier")
    server.wait_until_ready()
    yield server
    server.check_clean_end()


@pytest.fixture
def client(served: Server) -> Iterator[Client]:
    with served.client() as client:
        yield client


def test_what_is_loaded_says_what_it_was_taken_for(served: Server, client: Client, tmp_path: Path) -> None:
    path = saved(tiny(SIX), tmp_path)
    loaded = client.load("guess", path, mean=0, std=255, names={0: "cat", 1: "dog"}, background=3)
    (warning,) = loaded["warnings"]
    assert "background has no effect" in warning
    assert loaded["evidence"]
    listed = next(model for model in client.models() if model["name"] == "guess")
    assert (listed["warnings"], listed["evidence"]) == (loaded["warnings"], loaded["evidence"])
    assert listed["classes"] == ["cat", "dog"]
    (model,) = [model for model in client.status()["served"] if model["name"] == "guess"]
    assert model["warnings"] == loaded["warnings"]
    for command in (["models", "list"], ["status"]):
        result = CliRunner().invoke(main, [*command, "--server", served.address])
        assert f"warning: guess: {warning}" in result.output
    client.unload("guess")


def test_load_by_command_prints_the_warnings(served: Server, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    path = saved(tiny(SIX), tmp_path)
    load = ["models", "load", "told", str(path), "--server", served.address, "--option", "mean=0"]
    result = CliRunner().invoke(main, [*load, "--option", "pad=3", "--option", "resize=crop"])
    assert result.exit_code == 0, result.output
    assert "warning: told: the option pad has no effect: resize is crop" in result.output
    result = CliRunner().invoke(main, [*load, "--option", f"names={tmp_path}/names.txt", "--json"])
    assert "no class names" not in " ".join(json.loads(result.output)["warnings"])
    assert CliRunner().invoke(main, ["models", "unload", "told", "--server", served.address]).exit_code == 0


def dense(channels: int) -> onnx.ModelProto:
    """A picture [batch, channels, 4, 6] -> dense [batch, channels, 4, 6]: twice what went in."""
    dims = ["batch", channels, 4, 6]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name in ("image", "dense")]
    nodes = [helper.make_node("Add", ["image", "image"], ["dense"])]
    return finished(helper.make_graph(nodes, "dense", ports[:1], ports[1:]))


def test_a_picture_goes_into_any_model_and_tensors_come_out(client: Client, tmp_path: Path) -> None:
    loaded = client.load("dense", saved(dense(3), tmp_path))
    assert any("set resize, color, mean, std" in warning for warning in loaded["warnings"])
    frame = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    row = frame[..., ::-1].transpose(2, 0, 1) / np.float32(255)
    answer = client.infer("dense", frame)
    np.testing.assert_allclose(answer.tensors["dense"], 2 * row, rtol=1e-6)
    assert (answer.width, answer.height) == (6, 4)
    png = cv2.imencode(".png", frame)[1].tobytes()
    np.testing.assert_allclose(client.infer("dense", png).tensors["dense"], 2 * row, rtol=1e-6)
    given = np.random.default_rng(1).random((3, 4, 6), np.float32)
    np.testing.assert_array_equal(client.infer("dense", {"image": given}).tensors["dense"], 2 * given)
    client.load("dense", saved(dense(3), tmp_path), mean=[1, 2, 3], std=2, color="bgr", resize="stretch")
    row = (frame.transpose(2, 0, 1) - np.array([1, 2, 3], np.float32).reshape(3, 1, 1)) / 2
    np.testing.assert_allclose(client.infer("dense", frame).tensors["dense"], 2 * row, rtol=1e-6)
    client.unload("dense")


def gray(dims: Dims) -> onnx.ModelProto:
    """Twice a picture of one channel."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name in ("image", "dense")]
    return finished(
        helper.make_graph([helper.make_node("Add", ["image", "image"], ["dense"])], "gray", ports[:1], ports[1:])
    )


@pytest.mark.parametrize("dims", [("batch", 1, 8, 16), ("batch", 8, 16, 1)], ids=str)
def test_pictures_for_a_model_of_one_channel_become_gray(client: Client, tmp_path: Path, dims: Dims) -> None:
    client.load("gray", saved(gray(dims), tmp_path))
    frame = np.random.default_rng(0).integers(0, 256, (8, 16, 3), np.uint8)
    expected = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY).reshape([int(dim) for dim in dims[1:]]) / np.float32(255)
    dense = client.infer("gray", frame).tensors["dense"]
    np.testing.assert_allclose(dense, 2 * expected, rtol=1e-6)
    only = client.infer("gray", frame[..., 0]).tensors["dense"]
    np.testing.assert_allclose(only.ravel(), 2 * (frame[..., 0].ravel() / np.float32(255)), rtol=1e-6)
    client.unload("gray")


def test_an_option_in_a_form_that_cannot_be_is_named(client: Client, tmp_path: Path) -> None:
    path = saved(tiny(SIX, metadata={"names": names(2)}), tmp_path)
    with pytest.raises(BadInput, match="mean .*expected a number or a list"):
        client.load("wrong", path, mean="much")
