"""What trials found, in files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from parallel_infer.config.schema import ModelConfig, ServerConfig
from parallel_infer.errors import ConfigError
from parallel_infer.model_spec import ModelSpec, TensorSpec
from parallel_infer.supervisor.plan import plan_model
from parallel_infer.trial.record import Record, Records, ident, key_of, machine_facts, trials_folder
from parallel_infer.trial.settings import Setting

SETTING = Setting(2, 1, 8)
RECORD = Record(
    models=("m",), settings=(SETTING,), default=(SETTING,), rate=9.5, default_rate=9.5, seconds=3.0, rates={"a": 9.5}
)
SPEC = ModelSpec(
    name="m", path="a.onnx", digest="d", task="tensor", family="tensor", outputs=(),
    inputs=(TensorSpec("x", "float32", (3,)),),
)  # fmt: skip


def test_a_record_is_found_again(tmp_path: Path) -> None:
    records = Records(tmp_path / "a" / "trials")
    assert records.find("key", 1) is None
    records.save("key", RECORD)
    assert records.find("key", 1) == RECORD
    assert records.find("other", 1) is None


def changed(path: Path, **values: Any) -> None:
    path.write_bytes(msgspec.json.encode(msgspec.json.decode(path.read_bytes()) | values))


@pytest.mark.parametrize(
    "values",
    [
        {"settings": [{"instances": 0, "threads": 1, "max_batch": 8}]},
        {"settings": [{"instances": 1, "threads": 1, "max_batch": 100_000}]},
        {"settings": []},
        {"rate": "fast"},
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, values: dict[str, Any]) -> None:
    records = Records(tmp_path)
    records.save("key", RECORD)
    changed(tmp_path / "key.json", **values)
    with pytest.raises(ConfigError, match=r"key\.json is damaged"):
        records.find("key", 1)


def test_what_is_no_record_at_all_is_named(tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text('{"models": [')
    with pytest.raises(ConfigError, match=r"key\.json is damaged"):
        Records(tmp_path).find("key", 1)
    (tmp_path / "other.json").mkdir()
    with pytest.raises(ConfigError, match=r"other\.json cannot be read"):
        Records(tmp_path).find("other", 1)


def test_where_nothing_can_be_written_that_is_said_before_anything_is_tried(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cache"), Records(tmp_path / "file" / "trials").locked():
        pytest.fail("it cannot be made")


def test_one_server_tries_at_a_time(tmp_path: Path) -> None:
    with Records(tmp_path).locked() as first, Records(tmp_path).locked() as second:
        assert (first, second) == (True, False)
    with Records(tmp_path).locked() as again:
        assert again


def test_the_oldest_records_go(tmp_path: Path) -> None:
    records = Records(tmp_path)
    for number in range(260):
        (tmp_path / f"{number}.json").write_text("{}")
        os.utime(tmp_path / f"{number}.json", (number, number))
    records.save("key", RECORD)
    left = {path.stem for path in tmp_path.glob("*.json")}
    assert left == {"key", *(str(number) for number in range(5, 260))}


def key(config: ServerConfig, spec: ModelSpec = SPEC, **facts: object) -> str:
    plan = plan_model(config, config.models["m"], spec, "s-{}".format, 1, 1)
    return key_of([ident(plan)], machine_facts() | facts)


PLAIN = ServerConfig(models={"m": ModelConfig(path="a.onnx")}, provider="cpu")


def test_the_key_is_that_of_content_and_machine_and_not_of_names() -> None:
    elsewhere = msgspec.structs.replace(SPEC, name="m", path="b.onnx", evidence=("so",), warnings=("hm",))
    cached = msgspec.structs.replace(PLAIN, cache="/tmp/somewhere")
    assert key(PLAIN) == key(PLAIN, elsewhere) == key(cached)


@pytest.mark.parametrize(
    "config",
    [
        {"precision": "fp32"},
        {"provider": "openvino"},
        {"max_batch_size": 4},
        {"threads": 3},
        {"streams": 2},
        {"optimization": "basic"},
        {"device": 1},
    ],
)
def test_the_key_is_another_for_whatever_changes_the_answer(config: dict[str, Any]) -> None:
    assert key(PLAIN) != key(msgspec.structs.replace(PLAIN, **config))


def test_the_key_is_another_for_other_content_shapes_and_machines() -> None:
    other = msgspec.structs.replace(SPEC, digest="e")
    larger = msgspec.structs.replace(SPEC, inputs=(TensorSpec("x", "float32", (4,)),))
    assert len({key(PLAIN), key(PLAIN, other), key(PLAIN, larger), key(PLAIN, processor="another")}) == 4


def test_where_records_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trials_folder("/var/cache/ours", {"XDG_CACHE_HOME": "/x"}) == Path("/var/cache/ours/trials")
    assert trials_folder(None, {"XDG_CACHE_HOME": "/x"}) == Path("/x/parallel-infer/trials")
    monkeypatch.setenv("HOME", "/home/somebody")
    for environment in ({}, {"XDG_CACHE_HOME": "relative"}):
        assert trials_folder(None, environment) == Path("/home/somebody/.cache/parallel-infer/trials")
