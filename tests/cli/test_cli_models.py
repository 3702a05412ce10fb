"""`models load` and `models unload`: what is asked of the server, and what is made of its reply."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from click.testing import CliRunner, Result

from parallel_infer import protocol
from parallel_infer.cli import main

STOP = b"stop"


class Recorder:
    """A server on a real socket that keeps the requests it gets, and answers each with `reply`."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.requests: list[Any] = []
        self.error: tuple[str, str] | None = None
        self.facts: dict[str, Any] = {"name": "x"}
        self._thread = threading.Thread(target=self._serve)
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.bind(address)
        self._ending = self._context.socket(zmq.PAIR)
        self._ending.bind("inproc://ending")
        self._thread.start()

    def stop(self) -> None:
        self._ending.send(STOP)
        self._thread.join()
        self._ending.close(0)
        self._context.term()

    def _serve(self) -> None:
        decoder = msgspec.msgpack.Decoder(protocol.Request)
        ending = self._context.socket(zmq.PAIR)
        ending.connect("inproc://ending")
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(ending, zmq.POLLIN)
        while ending not in dict(poller.poll()):
            client, header, *_ = self._router.recv_multipart()
            if not header:  # the client says that it is there
                continue
            request = decoder.decode(header)
            if not isinstance(request, protocol.Hello):  # the client says it by itself
                self.requests.append(request)
            self._router.send_multipart([client, msgspec.msgpack.encode(self._reply(request.id))])
        ending.close(0)
        self._router.close(0)

    def _reply(self, number: int) -> protocol.Reply:
        if self.error is not None:
            return protocol.Error(id=number, code=self.error[0], message=self.error[1])
        return protocol.Result(id=number, result=msgspec.Raw(msgspec.msgpack.encode(self.facts)))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Recorder]:
    recorder = Recorder(f"ipc://{tmp_path}/s")
    yield recorder
    recorder.stop()


def models(server: Recorder, *arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["models", *map(str, arguments), "--server", server.address])


def test_load_sends_settings_in_their_types(server: Recorder) -> None:
    given = {
        "conf": ("0.4", 0.4),
        "max-batch-size": ("4", 4),
        "names": ("cat, dog", ["cat", "dog"]),
        "imgsz": ("640", 640),
        "std": ("[1, 2, 3]", [1.0, 2.0, 3.0]),
        "uint8_rows": ("off", False),
        "shapes": ('{"x": [1, 2]}', {"x": [1, 2]}),
    }
    options = [word for key, (text, _) in given.items() for word in ("--option", f"{key}={text}")]
    result = models(server, "load", "x", "zoo:pose", *options)
    assert (result.exit_code, result.stdout) == (0, "x is loaded\n")
    (request,) = server.requests
    assert isinstance(request, protocol.Load)
    assert (request.name, request.path) == ("x", "zoo:pose")
    assert request.options == {key.replace("-", "_"): value for key, (_, value) in given.items()}


def test_load_makes_a_path_absolute_that_is_one_here(
    server: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.onnx").touch()
    monkeypatch.chdir(tmp_path)
    for path in ("a.onnx", "elsewhere.onnx"):
        assert models(server, "load", "x", path).exit_code == 0
    assert [request.path for request in server.requests] == [str(tmp_path / "a.onnx"), "elsewhere.onnx"]


def test_a_chain_is_loaded(server: Recorder) -> None:
    result = models(server, "load-chain", "x", "a > b")
    assert (result.exit_code, result.stdout) == (0, "x is served: new\n")
    (request,) = server.requests
    assert isinstance(request, protocol.LoadChain)
    assert (request.name, request.steps) == ("x", "a > b")


def test_unload(server: Recorder) -> None:
    result = models(server, "unload", "x", "--json")
    assert (result.exit_code, result.stdout) == (0, '{"name": "x"}\n')
    assert [(type(request), request.name) for request in server.requests] == [(protocol.Unload, "x")]


def test_what_the_server_refuses_is_told(server: Recorder) -> None:
    server.error = ("MODEL_REJECTED", "not an ONNX file")
    for arguments in (("load", "x", "y"), ("unload", "x")):
        result = models(server, *arguments)
        assert (result.exit_code, result.stderr) == (1, "Error: MODEL_REJECTED: not an ONNX file\n")


def test_load_says_what_it_did(server: Recorder) -> None:
    server.facts |= {"version": 2, "digest": "0123456789abcdef", "became": "changed (its content)"}
    said = models(server, "load", "x", "y").stdout.splitlines()
    assert said[0] == "x is loaded: changed (its content), version 2, sha256 0123456789ab"
    server.facts |= {"version": 1, "became": "unchanged"}
    said = models(server, "load", "x", "y").stdout.splitlines()
    assert said[0] == "x is served as before: unchanged, version 1, sha256 0123456789ab"
