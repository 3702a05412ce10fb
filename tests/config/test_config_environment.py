"""Variables of others neither keep a server from starting nor outrank what is ours; misspelt ones are told of."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from parallel_infer.cli import main
from parallel_infer.config.sources import load_config, read_config
from parallel_infer.errors import ConfigError
from parallel_infer.keys.client import Key
from tests.conftest import StartServer

PLAIN = load_config({}, None, {})


def links(service: str, port: int = 5555, protocol: str = "tcp") -> dict[str, str]:
    """What Kubernetes sets in every container for a Service with a named port."""
    name = service.upper().replace("-", "_")
    address = f"{protocol}://10.96.0.7:{port}"
    one = f"{name}_PORT_{port}_{protocol.upper()}"
    return {
        f"{name}_SERVICE_HOST": "10.96.0.7",
        f"{name}_SERVICE_PORT": str(port),
        f"{name}_SERVICE_PORT_ZMQ": str(port),
        f"{name}_PORT": address,
        one: address,
        f"{one}_PROTO": protocol,
        f"{one}_PORT": str(port),
        f"{one}_ADDR": "10.96.0.7",
    }


@pytest.mark.parametrize(
    "service",
    ["parallel-infer", "parallel-infer-http", "parallel-infer-metrics", "parallel-infer-server", "parallel-infer-2"],
)
def test_links_of_kubernetes_are_nobodys_settings(service: str) -> None:
    for environment in (links(service), links(service, 9090, "udp"), links(service) | links(service, 8080)):
        found = read_config({}, None, environment)
        assert (found.config, found.warnings) == (PLAIN, ())


def test_links_of_docker_are_nobodys_settings() -> None:
    environment = {
        "PARALLEL_INFER_NAME": "/web/parallel-infer",
        "PARALLEL_INFER_ENV_PYTHON_VERSION": "3.12",
        "PARALLEL_INFER_PORT": "tcp://[fd00::7]:5555",
        "PARALLEL_INFER_1_PORT_5555_TCP_ADDR": "172.17.0.5",
    }
    found = read_config({}, None, environment)
    assert (found.config, found.warnings) == (PLAIN, ())


def test_a_field_that_is_called_like_a_link_is_still_a_field() -> None:
    environment = links("parallel-infer-metrics") | {"PARALLEL_INFER_METRICS_PORT": "9100"}
    assert load_config({}, None, environment).metrics_port == 9100


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MAX_BATCHSIZE", "MAX_BATCH_SIZE"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("METRIC_PORT", "METRICS_PORT"),
        ("TIMEOUT", "TIMEOUT_MS"),
        ("SERVERS", "SERVER"),
    ],
)
def test_a_misspelt_variable_is_an_error(name: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"PARALLEL_INFER_{name}; did you mean PARALLEL_INFER_{meant}?"):
        load_config({}, None, {f"PARALLEL_INFER_{name}": "1"})


@pytest.mark.parametrize(("name", "hint"), [("VERSION", "PRECISION"), ("WORKERS", "DECODE_WORKERS"), ("PORT", "")])
def test_what_may_be_anybodys_is_a_warning(name: str, hint: str) -> None:
    found = read_config({}, None, {f"PARALLEL_INFER_{name}": "1"})
    assert found.config == PLAIN
    assert found.warnings[0].startswith(f"the environment variable PARALLEL_INFER_{name} is no setting and is ignored")
    assert (f"did you mean PARALLEL_INFER_{hint}?" in found.warnings[0]) == bool(hint)


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"HOST": "x86_64-conda-linux-gnu"}, 'HOST is passed over: it is "x86_64-conda-linux-gnu", neither an IP'),
        ({"HOST": "0.0.0.0"}, "other machines can reach, and nothing says who may connect; PARALLEL_INFER_BIND or"),
        ({"PORT": "tcp://10.0.0.1:80"}, "PORT is passed over"),
        ({"PORT": "http"}, "PORT is passed over"),
        ({"PORT": "70000"}, "expected 0 to 65535"),
        ({"MAX_BATCH_SIZE": "auto"}, 'MAX_BATCH_SIZE is passed over: it is "auto"; expected a whole number'),
        ({"MAX_BATCH_SIZE": "0"}, "PARALLEL_INFER_MAX_BATCH_SIZE or --max-batch-size sets max_batch_size"),
    ],
)
def test_plain_names_that_make_no_sense_are_passed_over(environment: dict[str, str], reason: str) -> None:
    found = read_config({}, None, environment)
    assert found.config == PLAIN
    assert len(found.warnings) == 1
    assert reason in found.warnings[0]
    ours = {"bind": ["tcp://127.0.0.1:1"], "max_batch_size": 2}
    assert read_config(ours, None, environment).warnings == ()


def test_localhost_needs_no_hosts_file() -> None:
    assert load_config({"bind": ["tcp://localhost:7"]}, None, {}).bind == ["tcp://127.0.0.1:7"]
    assert load_config({}, None, {"HOST": "localhost"}).bind == ["tcp://127.0.0.1:5555"]


def test_one_plain_name_is_followed_where_the_other_cannot_be() -> None:
    found = read_config({}, None, {"HOST": "mybox", "PORT": "8080"})
    assert found.config.bind == ["tcp://127.0.0.1:8080"]
    assert found.origins["bind"] == "environment PORT"


def test_a_plain_name_does_not_spoil_a_model_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('[models.a]\npath = "zoo:pose"\npreferred_batch_size = 8\n')
    found = read_config({}, file, {"MAX_BATCH_SIZE": "4"})
    assert found.config.max_batch_size == PLAIN.max_batch_size
    assert "preferred_batch_size of 8" in found.warnings[0]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_of_other_editors_are_read(encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('metrics_host = "ü"\r\n', encoding)
    assert load_config({}, file, {}).metrics_host == "ü"
    file.write_text("".join(f"{name} = {'0' * 40}\r\n" for name in ("public", "secret", "server")), encoding)
    assert Key.of(file).public == "0" * 40


def test_a_dry_run_says_what_it_ignores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "mybox")
    result = CliRunner().invoke(main, ["serve", "--print-config"])
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: the environment variable HOST is passed over")


def test_a_server_beside_a_service_of_its_name_starts(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (links("parallel-infer") | {"MAX_BATCH_SIZE": "auto", "PARALLEL_INFER_VERSION": "2"}).items():
        monkeypatch.setenv(name, text)
    server = start_server(toml='bind = ["ipc://{folder}/door"]\n[models.pair]\npath = "{models}/pair.onnx"\n')
    assert server.address == f"ipc://{server.folder}/door"
    log = server.log.read_text()
    assert "MAX_BATCH_SIZE is passed over" in log
    assert "PARALLEL_INFER_VERSION is no setting" in log
    assert "SERVICE" not in log
