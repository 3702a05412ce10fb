"""Where a configuration comes from, who wins, and that it can be printed and read again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parallel_infer.cli.config_options import ON_COMMAND_LINE
from parallel_infer.config.fields import MODEL_FIELDS, SERVER_FIELDS, toml_value
from parallel_infer.config.schema import ModelConfig, ServerConfig
from parallel_infer.config.sources import (
    check_addresses,
    load_config,
    model_config,
    provenance,
    read_config,
    zoo_models,
)
from parallel_infer.config.toml import to_toml
from parallel_infer.errors import ConfigError
from parallel_infer.model_files.location import ZOO

# for every field a value that is not its default, as TOML has it and as the environment has it
OTHER_VALUES: dict[str, tuple[Any, str]] = {
    "http": (["127.0.0.1:8000", "[::1]:8000"], "127.0.0.1:8000, [::1]:8000"),
    "grpc": (["127.0.0.1:8001"], "127.0.0.1:8001"),
    "frigate_bind": (["tcp://127.0.0.1:5558"], "tcp://127.0.0.1:5558"),
    "frigate_uploads": (2, "2"),
    "page_viewers": (4, "4"),
    "page_picture_pixels": (640, "640"),
    "response_cache_mb": (32, "32"),
    "chain": (
        {"plates": "detector(class_filter=car) > reader", "x": "a > b, c"},
        "plates=detector(class_filter=car) > reader; x = a > b, c",
    ),
    "max_objects": (7, "7"),
    "max_crops": (9, "9"),
    "kept_pictures_mb": (3, "3"),
    "frigate_upload_mb": (64, "64"),
    "keyless_from": (["10.0.0.0/8"], "10.0.0.0/8"),
    "imagezmq_bind": (["tcp://127.0.0.1:5559"], "tcp://127.0.0.1:5559"),
    "imagezmq_model": ("detector", "detector"),
    "alias": (["coco/3=detector"], "coco/3=detector"),
    "http_memory_mb": (64, "64"),
    "grpc_memory_mb": (64, "64"),
    "http_hosts": (["proxy.example"], "proxy.example"),
    "http_idle_ms": (5000.0, "5000"),
    "http_silence_ms": (4000.0, "4000"),
    "bind": (["tcp://127.0.0.1:6001", "ipc:///tmp/a.sock"], "tcp://127.0.0.1:6001, ipc:///tmp/a.sock"),
    "provider": ("cpu", "cpu"),
    "precision": ("fp32", "fp32"),
    "max_batch_size": (3, "3"),
    "max_queue_delay_ms": (1.5, "1.5"),
    "queue_size": (7, "7"),
    "instances": (2, "2"),
    "threads": (4, "4"),
    "trial": (False, "no"),
    "trial_seconds": (5.0, "5"),
    "alone_threads": (4, "4"),
    "decode": ("fast", "fast"),
    "uint8_rows": (False, "no"),
    "max_output_mb": (2.0, "2"),
    "inter_threads": (2, "2"),
    "streams": (2, "2"),
    "optimization": ("basic", "basic"),
    "cpu_arena": (False, "no"),
    "memory_pattern": (False, "no"),
    "device": (1, "1"),
    "gpu_mem_limit_mb": (512, "512"),
    "arena_strategy": ("as-requested", "as-requested"),
    "page_locked": (False, "no"),
    "cuda_graphs": (False, "no"),
    "cuda_overlap": (False, "no"),
    "cache": ("/tmp/cache", "/tmp/cache"),
    "model_copies": ("/tmp/copies", "/tmp/copies"),
    "profile": ("/tmp/profile", "/tmp/profile"),
    "decode_workers": (3, "3"),
    "postprocess_workers": (3, "3"),
    "timeout_ms": (100.0, "100"),
    "silence_limit_ms": (4000.0, "4000"),
    "stage_limit_ms": (200.0, "200"),
    "start_timeout_ms": (3000.0, "3000"),
    "drain_timeout_ms": (0.0, "0"),
    "shared_memory_mb": (64, "64"),
    "fit_shared_memory": (True, "yes"),
    "model_repository": (str(ZOO), str(ZOO)),
    "lent_memory_mb": (0, "0"),
    "max_payload_mb": (8.0, "8"),
    "max_pixels": (1000, "1000"),
    "formats": (["jpeg", "bmp"], "jpeg,bmp"),
    "max_clients": (5, "5"),
    "keys": ("/etc/keys", "/etc/keys"),
    "insecure": (True, "true"),
    "confine": ("off", "off"),
    "restart_budget": (0, "0"),
    "log_format": ("json", "json"),
    "log_level": ("debug", "debug"),
    "metrics_host": ("0.0.0.0", "0.0.0.0"),
    "metrics_port": (9100, "9100"),
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a configuration file."""

    def to_file(text: str) -> Path:
        path = tmp_path / "server.toml"
        path.write_text(text)
        return path

    return to_file


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file that a model may be; nobody opens it here."""
    path = tmp_path / "a model=1.onnx"
    path.touch()
    return path


def test_every_field_has_another_value_here() -> None:
    assert set(OTHER_VALUES) == set(SERVER_FIELDS) - {"models"}
    assert all(value != SERVER_FIELDS[name].default for name, (value, _) in OTHER_VALUES.items())


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_every_field_is_read_from_file_and_environment(name: str, write: Callable[[str], Path]) -> None:
    value, text = OTHER_VALUES[name]
    file = write(f"{name} = {toml_value(value)}")
    assert getattr(load_config({}, file, {}), name) == value
    assert provenance({}, file, {})[name] == str(file)
    variable = f"PARALLEL_INFER_{name.upper()}"
    assert getattr(load_config({}, None, {variable: text}), name) == value
    assert provenance({}, None, {variable: text})[name] == f"environment {variable}"


def test_command_line_beats_environment_beats_file_beats_default(write: Callable[[str], Path]) -> None:
    file = write("max_batch_size = 2\nqueue_size = 2\nthreads = 2")
    environment = {"PARALLEL_INFER_MAX_BATCH_SIZE": "3", "PARALLEL_INFER_QUEUE_SIZE": "3"}
    found = read_config({"max_batch_size": 4, "instances": None, "bind": ()}, file, environment)
    config = found.config
    assert (config.max_batch_size, config.queue_size, config.threads, config.instances) == (4, 3, 2, 0)
    assert [found.origins[name] for name in ("max_batch_size", "queue_size", "threads", "instances")] == [
        "command line",
        "environment PARALLEL_INFER_QUEUE_SIZE",
        str(file),
        "default",
    ]


def test_familiar_variables_count_where_nothing_else_does(write: Callable[[str], Path]) -> None:
    environment = {"MAX_BATCH_SIZE": "5", "HOST": "0.0.0.0", "PORT": "9001"}
    config = load_config({"insecure": True}, None, environment)
    assert (config.max_batch_size, config.bind) == (5, ["tcp://0.0.0.0:9001"])
    file = write('max_batch_size = 3\nbind = ["tcp://127.0.0.1:1"]')
    found = read_config({}, file, environment)
    assert (found.config.max_batch_size, found.config.bind) == (3, ["tcp://127.0.0.1:1"])
    assert found.warnings == ()
    assert load_config({}, None, {"PORT": "9001"}).bind == ["tcp://127.0.0.1:9001"]
    assert load_config({}, None, {"HOST": "::1"}).bind == ["tcp://[::1]:5555"]
    ours = {"MAX_BATCH_SIZE": "5", "PARALLEL_INFER_MAX_BATCH_SIZE": "6", "PORT": "1"}
    config = load_config({}, None, ours | {"PARALLEL_INFER_BIND": "tcp://127.0.0.1:2"})
    assert (config.max_batch_size, config.bind) == (6, ["tcp://127.0.0.1:2"])


def test_variables_of_others_and_empty_ones_are_ignored() -> None:
    environment = {"NUM_WORKERS": "9", "MAX_ACTIVE_MODELS": "x", "PARALLEL_INFER_THREADS": " ", "PORT": ""}
    environment |= {
        "PARALLEL_INFER_PYTHON": "p",
        "PARALLEL_INFER_SERVER": "tcp://a:1",
        "PARALLEL_INFER_KEY": "k",
        "PARALLEL_INFER_PUBLISH": "mqtt://a/t",
        "PARALLEL_INFER_CONFIG": "c",
    }
    assert load_config({}, None, environment) == load_config({}, None, {})


def test_without_a_model_the_zoo_is_served() -> None:
    config = load_config({}, None, {})
    assert list(config.models) == ["detector", "classifier", "segmenter"]
    assert config.models == zoo_models()
    assert all(Path(model.path).is_file() for model in config.models.values())
    assert Path(load_config({"models": ["p=zoo:pose"]}, None, {}).models["p"].path).name == "pose.onnx"


def test_models_of_all_sources_come_together(write: Callable[[str], Path], model: Path) -> None:
    file = write('[models.a]\npath = "a model=1.onnx"\nconf = 0.5\n[models.b]\npath = "zoo:pose"')
    config = load_config({"models": ["a=zoo:detector"]}, file, {"PARALLEL_INFER_MODELS": f"c={model}"})
    assert config.models == {
        "a": ModelConfig(path=zoo_models()["detector"].path, conf=0.5),
        "b": ModelConfig(path=load_config({"models": ["b=zoo:pose"]}, None, {}).models["b"].path),
        "c": ModelConfig(path=str(model)),
    }
    # a relative path starts at the file, and an equals sign may be part of it
    assert load_config({}, file, {}).models["a"].path == str(model)


def test_relative_paths_of_the_command_line_start_here(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    config = load_config({"models": [f"a={model.name}"], "keys": "keys", "bind": ["ipc://s"]}, None, {})
    assert config.models["a"].path == str(model)
    assert config.keys == str(model.parent / "keys")
    assert config.bind == [f"ipc://{model.parent}/s"]


def test_a_folder_of_versions_means_the_highest(tmp_path: Path) -> None:
    for version in ("1", "9", "10", "notes"):
        (tmp_path / "net" / version).mkdir(parents=True)
        (tmp_path / "net" / version / "model.onnx").touch()
    (tmp_path / "net" / "11").mkdir()
    config = load_config({"models": [f"net={tmp_path / 'net'}"]}, None, {})
    assert config.models["net"].path == str(tmp_path / "net" / "10" / "model.onnx")


@pytest.mark.parametrize(
    "address",
    ["tcp://127.0.0.1:1", "tcp://127.3.2.1:*", "tcp://[::1]:1", "tcp://localhost:1", "tcp://lo:1", "ipc:///a"],
)
def test_local_addresses_need_no_keys(address: str) -> None:
    config = load_config({"bind": [address]}, None, {})
    check_addresses(config)  # raises nothing
    assert len(config.bind) == 1


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:1", "tcp://*:1", "tcp://192.0.2.1:1", "tcp://[::]:1"])
def test_other_machines_get_in_with_keys_or_said_out_loud_only(address: str) -> None:
    bind = ["tcp://127.0.0.1:1", address]
    config = load_config({"bind": bind}, None, {})
    with pytest.raises(ConfigError, match=r"can be reached from other machines.*--keys FOLDER.*--insecure"):
        check_addresses(config)
    check_addresses(load_config({"bind": bind, "keys": "/keys"}, None, {}))
    check_addresses(load_config({"bind": bind, "insecure": True}, None, {}))


def test_a_printed_configuration_gives_itself_again(write: Callable[[str], Path], model: Path) -> None:
    arguments = {name: OTHER_VALUES[name][0] for name in ON_COMMAND_LINE}
    environment = {"PARALLEL_INFER_STREAMS": "3"}
    lines = [f"path = {toml_value(str(model))}", 'names = ["a\\"b\\\\", "\\u007f\\n"]', "imgsz = [320, 640]", "pad = 0"]
    lines += ["shapes = {x = [1, 2], 'y.z' = [3]}", "std = [1, 2.5, 1e-7]", "multi_label = true", "conf = 0.1"]
    file = write(
        "max_clients = 9\n['models'.'a.b \"c\"']\n" + "\n".join(lines) + "\n[models.pose]\npath = 'zoo:pose'\n"
    )
    first = read_config(arguments, file, environment)
    printed = to_toml(first)
    assert load_config({}, write(printed), {}) == first.config
    assert 'path = "zoo:pose"  # ' in printed
    assert "max_batch_size = 3  # command line" in printed
    assert "streams = 3  # environment PARALLEL_INFER_STREAMS" in printed
    assert f"max_clients = 9  # {file}" in printed
    assert "restart_budget = 10  # default" in printed


def test_the_default_configuration_prints_and_reads(write: Callable[[str], Path]) -> None:
    printed = to_toml(read_config({}, None, {}))
    assert "# keys is not set" in printed
    assert load_config({}, write(printed), {}) == load_config({}, None, {})


def test_every_model_field_is_read_from_the_file(write: Callable[[str], Path]) -> None:
    values = {
        **dict.fromkeys(("family", "task", "resize", "filter", "color"), "x"),
        **dict.fromkeys(("imgsz", "pad", "background", "max_batch_size", "preferred_batch_size", "queue_size"), 2),
        **dict.fromkeys(("instances", "threads"), 2),
        **dict.fromkeys(("conf", "iou", "max_queue_delay_ms", "weight", "max_output_mb", "crop_fraction"), 0.5),
        "mean": [1.0, 2.0, 3.0],
        "std": [1.0, 2.0, 3.0],
        **dict.fromkeys(("multi_label", "uint8_rows"), False),
        "names": ["a"],
        "shapes": {"x": [1]},
        "kpt_shape": [17, 3],
        "path": "zoo:pose",
        "provider": "cuda",
        "device": [0, 1],
        "precision": "bf16",
        "decode": "fast",
    }
    assert set(values) == set(MODEL_FIELDS)
    file = write("[models.x]\n" + "\n".join(f"{name} = {toml_value(value)}" for name, value in values.items()))
    found = load_config({}, file, {}).models["x"]
    assert all(getattr(found, name) == value for name, value in values.items() if name != "path")


def test_defaults_are_those_of_the_structure() -> None:
    assert load_config({}, None, {}) == ServerConfig(models=zoo_models())


@pytest.mark.parametrize(("path", "hint"), [("models/street.onnx", True), ("/no/street.onnx", False), ("zoo:x", False)])
def test_a_path_that_a_client_gave_and_the_server_cannot_find(path: str, hint: bool) -> None:
    with pytest.raises(ConfigError, match="there is no file|no model 'x' is shipped") as raised:
        model_config(path, {})
    assert ("give an absolute path" in str(raised.value)) == hint
