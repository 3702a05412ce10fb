"""Addresses that somebody else listens at are told of before anything is started."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from parallel_infer.config.schema import ServerConfig
from parallel_infer.errors import ConfigError
from parallel_infer.supervisor.free_addresses import check_free


@pytest.fixture(scope="module")
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("setting", ["bind", "http", "grpc", "frigate_bind", "imagezmq_bind", "metrics_port"])
def test_a_port_that_is_taken_is_told_with_its_option(taken: int, setting: str, tmp_path: Path) -> None:
    place = f"{'tcp://' if 'bind' in setting else ''}127.0.0.1:{taken}"
    values = {"bind": [f"ipc://{tmp_path}/s"], setting: taken if setting == "metrics_port" else [place]}
    with pytest.raises(ConfigError, match=rf"{taken} \(option {setting}\): something else listens there"):
        check_free(ServerConfig(**values))


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0"])
def test_a_port_that_is_taken_is_taken_under_every_name(taken: int, host: str) -> None:
    with pytest.raises(ConfigError, match="something else listens"):
        check_free(ServerConfig(bind=[], http=[f"{host}:{taken}"]))


def test_an_address_that_is_not_ours_is_told(taken: int) -> None:
    with pytest.raises(ConfigError, match=r"option http\): no interface of this machine"):
        check_free(ServerConfig(bind=[], http=[f"192.0.2.1:{taken}"]))


def test_a_socket_is_taken_while_somebody_listens(tmp_path: Path) -> None:
    config = ServerConfig(bind=[f"ipc://{tmp_path}/s"])
    check_free(config)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/s")
        listener.listen()
        with pytest.raises(ConfigError, match=r"option bind\): something else listens"):
            check_free(config)
    check_free(config)  # a dead server's


def test_what_is_free_is_free_afterwards() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    config = ServerConfig(bind=["tcp://127.0.0.1:*"], http=[f"127.0.0.1:{port}"], grpc=["[::1]:0"])
    for _ in range(2):
        check_free(config)
    socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize("option", ["--http", "--grpc"])
def test_a_server_says_so_in_one_line_before_it_looks_at_models(taken: int, option: str, tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"no model")
    arguments = [
        "serve",
        "--bind",
        f"ipc://{tmp_path}/s",
        option,
        f"127.0.0.1:{taken}",
        "--model",
        f"no={tmp_path}/no.onnx",
    ]
    command = [sys.executable, "-m", "parallel_infer", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 1
    (line,) = ran.stderr.splitlines()
    assert f"cannot listen at 127.0.0.1:{taken} (option {option[2:]})" in line
