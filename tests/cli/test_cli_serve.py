"""`serve`: options, --print-config and --dry-run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from parallel_infer.cli import main
from parallel_infer.cli.config_options import ON_COMMAND_LINE
from parallel_infer.config.fields import SERVER_FIELDS
from parallel_infer.config.schema import ServerConfig
from parallel_infer.config.sources import load_config
from parallel_infer.model_files.location import ZOO
from parallel_infer.supervisor import memory_report
from parallel_infer.supervisor import serve as supervisor
from parallel_infer.supervisor.memory_report import SharedMemory, check_memory
from parallel_infer.supervisor.plan import RingPlan

GIVEN = {
    "http": ("127.0.0.1:8000", ["127.0.0.1:8000"]),
    "grpc": ("[::1]:8001", ["[::1]:8001"]),
    "frigate_bind": ("tcp://127.0.0.1:5558", ["tcp://127.0.0.1:5558"]),
    "frigate_uploads": ("2", 2),
    "page_viewers": ("4", 4),
    "page_picture_pixels": ("640", 640),
    "response_cache_mb": ("32", 32),
    "frigate_upload_mb": ("64", 64),
    "keyless_from": ("10.0.0.0/8", ["10.0.0.0/8"]),
    "imagezmq_bind": ("tcp://127.0.0.1:5559", ["tcp://127.0.0.1:5559"]),
    "imagezmq_model": ("detector", "detector"),
    "alias": ("coco/3=detector", ["coco/3=detector"]),
    "http_memory_mb": ("64", 64),
    "grpc_memory_mb": ("64", 64),
    "bind": ("tcp://127.0.0.1:7001", ["tcp://127.0.0.1:7001"]),
    "provider": ("cpu", "cpu"),
    "precision": ("fp32", "fp32"),
    "max_batch_size": ("3", 3),
    "max_queue_delay_ms": ("1.5", 1.5),
    "queue_size": ("9", 9),
    "timeout_ms": ("100", 100.0),
    "decode_workers": ("3", 3),
    "postprocess_workers": ("3", 3),
    "instances": ("2", 2),
    "threads": ("4", 4),
    "trial": (None, True),
    "trial_seconds": ("5", 5.0),
    "device": ("0,1", [0, 1]),
    "chain": ("kinds=detector > classifier", {"kinds": "detector > classifier"}),
    "max_objects": ("8", 8),
    "max_crops": ("9", 9),
    "kept_pictures_mb": ("32", 32),
    "decode": ("fast", "fast"),
    "formats": ("png,tiff", ["png", "tiff"]),
    "shared_memory_mb": ("64", 64),
    "fit_shared_memory": (None, True),
    "model_repository": (str(ZOO), str(ZOO)),
    "max_payload_mb": ("0.5", 0.5),
    "max_pixels": ("1000", 1000),
    "keys": ("/etc/keys", "/etc/keys"),
    "insecure": (None, True),
    "confine": ("off", "off"),
    "log_format": ("json", "json"),
    "log_level": ("debug", "debug"),
    "metrics_host": ("0.0.0.0", "0.0.0.0"),
    "metrics_port": ("9100", 9100),
}


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST", "PORT", "MAX_BATCH_SIZE", "PARALLEL_INFER_CONFIG", "PARALLEL_INFER_TRIAL"):
        monkeypatch.delenv(name, raising=False)


def serve(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["serve", *arguments])


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[ServerConfig, Any]]:
    """What the supervisor was asked to serve, in place of serving."""
    calls: list[tuple[ServerConfig, Any]] = []

    def serve(config: ServerConfig, announce: Any, _reread: Any) -> int:
        calls.append((config, announce))
        return 1

    monkeypatch.setattr(supervisor, "serve", serve)
    return calls


@pytest.mark.parametrize("name", ON_COMMAND_LINE)
def test_every_option_reaches_the_server(name: str, started: list[tuple[ServerConfig, Any]]) -> None:
    text, value = GIVEN[name]
    result = serve(SERVER_FIELDS[name].option, *([text] if text else []))
    assert result.exit_code == 1  # that of the supervisor
    ((config, announce),) = started
    assert getattr(config, name) == value
    assert announce is supervisor.Announce.TEXT


def test_settings_are_not_tried_where_that_is_said(started: list[tuple[ServerConfig, Any]]) -> None:
    serve("--no-trial")
    ((config, _),) = started
    assert config.trial is False


def test_formats_may_be_given_one_by_one_or_together(started: list[tuple[ServerConfig, Any]]) -> None:
    serve("--formats", "jpeg", "--formats", "avif, tiff")
    ((config, _),) = started
    assert config.formats == ["jpeg", "avif", "tiff"]
    result = serve("--formats", "jpeg,heic")
    assert result.exit_code == 2
    assert "'heic' is not one of 'avif', 'bmp', 'gif', 'jp2', 'jpeg', 'png', 'tiff', 'webp'" in result.stderr


def test_models_file_and_environment_reach_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[tuple[ServerConfig, Any]]
) -> None:
    (tmp_path / "s.toml").write_text("max_batch_size = 2\nqueue_size = 2\ninsecure = true\n")
    monkeypatch.setenv("PARALLEL_INFER_QUEUE_SIZE", "3")
    monkeypatch.setenv("PARALLEL_INFER_CONFIG", str(tmp_path / "s.toml"))
    serve("--model", "a=zoo:pose", "--model", "b=zoo:detector", "--bind", "tcp://0.0.0.0:1", "--json")
    ((config, announce),) = started
    assert list(config.models) == ["a", "b"]
    assert (config.max_batch_size, config.queue_size, config.insecure) == (2, 3, True)
    assert announce is supervisor.Announce.JSON


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--bind", "tcp://0.0.0.0:1"], "can be reached from other machines"),
        (["--model", "pose"], "is not NAME=PATH"),
        (["--config", "/nowhere.toml"], "cannot read the configuration file /nowhere.toml"),
        (["--max-batch-size", "0"], "0 is not in the range 1<=x<=4096"),
        (["--provider", "gpu"], "'gpu' is not one of"),
        (["--max-batchsize", "1"], "--max-batch-size"),
    ],
)
def test_mistakes_end_with_two(arguments: list[str], expected: str, started: list[tuple[ServerConfig, Any]]) -> None:
    result = serve(*arguments)
    assert result.exit_code == 2
    assert expected in result.stderr
    assert not started


def test_a_printed_configuration_is_one(tmp_path: Path) -> None:
    result = serve("--print-config", "--queue-size", "9", "--model", "p=zoo:pose", "--bind", "tcp://0.0.0.0:1")
    assert result.exit_code == 0
    (tmp_path / "s.toml").write_text(result.stdout)
    arguments = {"queue_size": 9, "models": ["p=zoo:pose"], "bind": ["tcp://0.0.0.0:1"]}
    assert load_config({}, tmp_path / "s.toml", {}) == load_config(arguments, None, {})


def test_a_dry_run_shows_every_ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # where no trial has left anything
    result = serve("--dry-run", "--json", "--model", "p=zoo:pose", "--shared-memory-mb", "64")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    rings = told["memory"]["rings"]
    assert told["memory"]["total"] == sum(ring["total"] for ring in rings) > 32 << 20
    assert {"p rows", "p outputs"} < {ring["name"] for ring in rings}
    assert told["models"]["p"]["task"] == "keypoints"
    assert told["memory"]["fits"]
    assert told["trial"] == "the default; the start tries others (option trial)"
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_without_room_says_how_to_give_it(monkeypatch: pytest.MonkeyPatch) -> None:
    small = SharedMemory(64 << 20, 60 << 20)
    monkeypatch.setattr("parallel_infer.cli.serve.shared_memory", lambda: small)
    result = serve("--dry-run", "--model", "p=zoo:pose", "--shared-memory-mb", "64")
    assert result.exit_code == 2
    assert "p rows" in result.stdout
    assert "/dev/shm has 60.0 MB free of 64.0 MB" in result.stdout
    assert "not enough shared memory" in result.stderr


class _Plan:
    def __init__(self, *totals: int) -> None:
        self.rings = [RingPlan(f"ring {index}", 1, total, total) for index, total in enumerate(totals)]
        self.total = sum(totals)


def test_the_memory_check_is_exact_and_names_a_size_that_would_do() -> None:
    memory = SharedMemory(size=64 << 20, free=60 << 20)
    check_memory(_Plan(60 << 20), memory)
    with pytest.raises(Exception) as raised:
        check_memory(_Plan(20 << 20, (40 << 20) + 1), memory)
    text = str(raised.value)
    assert "60.0 MB are needed and /dev/shm has 60.0 MB free of 64.0 MB" in text
    assert "--shm-size=128m" in text
    assert "mount -o remount,size=128m /dev/shm" in text
    assert "--fit-shared-memory" in text
    assert "the largest ring is 'ring 1' with 40.0 MB" in text
    check_memory(_Plan((60 << 20) + 1), SharedMemory(128 << 20, 124 << 20))


def test_without_shared_memory_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no shared memory at .*none: No such file"):
        memory_report.shared_memory(tmp_path / "none")
    assert memory_report.shared_memory(tmp_path).size > 0
