"""What somebody is told whose configuration cannot be used: the place, the value and what is expected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from parallel_infer.config.sources import check_addresses, load_config
from parallel_infer.errors import ConfigError


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a configuration file."""

    def to_file(text: str) -> Path:
        path = tmp_path / "server.toml"
        path.write_text(text)
        return path

    return to_file


def mistake(arguments: Mapping[str, Any], file: Path | None, environment: Mapping[str, str]) -> str:
    """The text of the error."""
    with pytest.raises(ConfigError) as raised:
        load_config(arguments, file, environment)
    return str(raised.value)


POSE = '[models.x]\npath = "zoo:pose"\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max_batchsize = 3", "server.toml: unknown key 'max_batchsize'; did you mean 'max_batch_size'?"),
        ("max-queue-size = 3", "unknown key 'max-queue-size'; did you mean 'queue_size'?"),
        ("qqqqqq = 3", "unknown key 'qqqqqq'"),
        (POSE + "instancs = 3", "[models.x]: unknown key 'instancs'; did you mean 'instances'?"),
        (POSE + "bind = []", "[models.x]: the key 'bind' does not belong here; it goes to the top of the file"),
        ("conf = 0.3", "the key 'conf' does not belong here; it goes to a [models.NAME] table"),
        ("max_batch_size = true", "max_batch_size is true; expected a whole number from 1 to 4096"),
        ("max_batch_size = 0", "max_batch_size is 0; expected a whole number from 1 to 4096"),
        ("max_batch_size = 1.5", "max_batch_size is 1.5; expected a whole number from 1 to 4096"),
        ("timeout_ms = 0", "timeout_ms is 0; expected a number above 0 and at most 3600000"),
        ("timeout_ms = nan", "timeout_ms is nan; expected a number above 0"),
        ("timeout_ms = 2020-01-01", "timeout_ms is 2020-01-01; expected a number"),
        ('provider = "cud"', 'provider is "cud"; expected one of auto, cpu, cuda, openvino, tensorrt'),
        ("bind = 3", "bind is 3; expected a list, each of it a text"),
        ('formats = ["jpg"]', 'formats is ["jpg"]; expected a list, each of it one of'),
        ("insecure = 1", "insecure is 1; expected true or false"),
        (POSE + 'imgsz = "a"', '[models.x] imgsz is "a"; expected a whole number or a list, each of it a whole number'),
        (POSE + "mean = [inf]", "[models.x] mean is [inf]; expected a number or a list, each of it a number"),
        (POSE + "shapes = {a = [nan]}", "[models.x] shapes is {a = [nan]}; expected a table, each value a list"),
        (POSE + "conf = []", "[models.x] conf is []; expected a number"),
        (f"threads = {['long'] * 30}", '"lon...; expected a whole number from 0 to 256'),
        ("models = 3", "models is 3; expected tables [models.NAME]"),
        ("models.x = 3", "models.x is 3; expected a table [models.x]"),
        ("[models.x]\nconf = 0.5", "[models.x] has no path"),
        ('[models.x]\npath = "nowhere.onnx"', "there is no file"),
        ('[models.x]\npath = "zoo:pos"', "no model 'pos' is shipped, only classifier, detector, pose, segmenter"),
        ('[models."a\\nb"]\npath = "zoo:pose"', "is not 1 to 123 printable characters"),
        ('[models.""]\npath = "zoo:pose"', "is not 1 to 123 printable characters"),
        (POSE + "preferred_batch_size = 9", "preferred_batch_size is 9, but a batch of this model holds at most 8"),
        ("formats = []", "formats is empty"),
        ("bind = []", "server.toml) is empty: nobody could connect"),
        ('bind = ["tcp://127.0.0.1:1", "tcp://127.0.0.1:1"]', "names tcp://127.0.0.1:1 twice"),
        ('bind = ["tcp://127.0.0.1"]', "expected tcp://IP:PORT or ipc://PATH"),
        ('bind = ["http://127.0.0.1:1"]', "expected tcp://IP:PORT or ipc://PATH"),
        ('bind = ["tcp://127.0.0.1:70000"]', "'70000' is no port"),
        ('bind = ["tcp://camera.example:1"]', "'camera.example' is neither an IP address nor a network interface"),
        (f'bind = ["ipc:///{"x" * 120}"]', "a socket's path has 1 to 107 bytes, this one 121"),
        ('bind = ["ipc://"]', "a socket's path has 1 to 107 bytes, this one 0"),
        ("x =", "is not a TOML file"),
    ],
)
def test_a_mistake_in_the_file_is_named(text: str, expected: str, write: Callable[[str], Path]) -> None:
    assert expected in mistake({}, write(text), {})


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    for name in ("one/1", "one/2", "two/1"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "model.onnx").touch()
    example = f"one={tmp_path / 'one'}"
    assert f"holds several models: one, two; name each of them, for example {example}" in mistake(
        {"models": [f"net={tmp_path}"]}, None, {}
    )
    (tmp_path / "empty").mkdir()
    assert "without VERSION/model.onnx" in mistake({"models": [f"net={tmp_path / 'empty'}"]}, None, {})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert "No such file or directory" in mistake({}, tmp_path / "none.toml", {})
    assert "Is a directory" in mistake({}, tmp_path, {})
    (tmp_path / "latin.toml").write_bytes(b'keys = "\xe9"')
    assert "is not a TOML file: it is not text in UTF-8: byte 8 is 0xe9" in mistake({}, tmp_path / "latin.toml", {})
    (tmp_path / "wide.toml").write_bytes("threads = 2".encode("utf-16-le"))
    assert "save it as UTF-8" in mistake({}, tmp_path / "wide.toml", {})


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (
            {"PARALLEL_INFER_MAX_BATCHSIZE": "3"},
            "unknown environment variable PARALLEL_INFER_MAX_BATCHSIZE; did you mean PARALLEL_INFER_MAX_BATCH_SIZE?",
        ),
        (
            {"PARALLEL_INFER_THREADS": "many"},
            'the environment variable PARALLEL_INFER_THREADS is "many"; expected a whole number from 0 to 256',
        ),
        ({"PARALLEL_INFER_CHAIN": "a=b > c; a=d > e"}, "'a' is there twice; give it once"),
        ({"PARALLEL_INFER_CHAIN": '{"a": "b", "a": "c"}'}, "'a' is there twice; give it once"),
        ({"PARALLEL_INFER_INSECURE": "maybe"}, 'is "maybe"; expected true or false'),
        ({"PARALLEL_INFER_FORMATS": "jpeg,xyz"}, 'is "jpeg,xyz"; expected a list, each of it one of'),
        ({"PARALLEL_INFER_MODELS": "detector"}, "is not NAME=PATH"),
        ({"PARALLEL_INFER_CHAIN": "kinds"}, 'PARALLEL_INFER_CHAIN is "kinds"; expected NAME=VALUE, several with ;'),
    ],
)
def test_a_mistake_in_the_environment_is_named(environment: dict[str, str], expected: str) -> None:
    assert expected in mistake({}, None, environment)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"models": ["model.onnx"]}, "the model 'model.onnx' is not NAME=PATH"),
        ({"models": ["=model.onnx"]}, "is not NAME=PATH"),
        ({"models": ["a=zoo:pose", "a=zoo:detector"]}, "--model: the model 'a' is given twice"),
        ({"models": ["a@file=zoo:pose"]}, "the model name 'a@file' ends as the names do under which doors know models"),
        ({"models": ["a.picture=zoo:pose"]}, "the model name 'a.picture' ends as the names do"),
        ({"models": [f"{'a' * 124}=zoo:pose"]}, "is not 1 to 123 printable characters"),
        ({"models": ["a=nowhere"]}, "--model a: there is no file"),
        ({"max_batch_size": 0}, "--max-batch-size is 0; expected a whole number from 1 to 4096"),
        ({"max_batchsize": 1}, "unknown setting 'max_batchsize'; did you mean 'max_batch_size'?"),
    ],
)
def test_a_mistake_on_the_command_line_is_named(arguments: dict[str, Any], expected: str) -> None:
    assert expected in mistake(arguments, None, {})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"metrics_port": 5555}, "bind and metrics_port name the same place to listen at, 127.0.0.1:5555"),
        ({"http": ["localhost:5555"]}, "bind and http name the same place"),
        ({"http": ["127.0.0.1:80"], "grpc": ["0.0.0.0:80"], "insecure": True}, "http and grpc name the same place"),
        ({"http": ["[::1]:80"], "imagezmq_bind": ["tcp://[::1]:80"]}, "http and imagezmq_bind name the same place"),
        ({"bind": ["ipc:///x/d"], "frigate_bind": ["ipc:///x/d"]}, "bind and frigate_bind name the same place"),
        ({"http": ["127.0.0.1:80", "127.0.0.1:80"]}, "http names twice the same place"),
        ({"alias": ["coco/3=a", "coco/3=b"]}, "alias 'coco/3' is given twice"),
    ],
)
def test_two_settings_want_one_place(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_addresses(load_config(settings, None, {}))


def test_ports_that_the_system_chooses_and_other_hosts_are_no_conflict() -> None:
    free = {"bind": ["tcp://127.0.0.1:0", "tcp://127.0.0.1:*"], "http": ["127.0.0.1:0"], "grpc": ["127.0.0.2:5555"]}
    config = load_config({**free, "metrics_port": 5555}, None, {})
    check_addresses(config)  # raises nothing
    assert len(config.bind) == 2
