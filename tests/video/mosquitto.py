"""A broker for the tests: Debian's mosquitto, on a port of this machine, and somebody who listens to a topic."""

from __future__ import annotations

import queue
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Self

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

PROGRAM = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Mosquitto:
    """Runs between `start` and `stop`; may be started again at its port."""

    def __init__(self, folder: Path, port: int, *settings: str) -> None:
        self.port = port
        self._config = folder / f"{port}.conf"
        self._config.write_text("\n".join([f"listener {port} 127.0.0.1", "log_dest stderr", "user root", *settings]))
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Self:
        assert PROGRAM is not None
        self._process = subprocess.Popen([PROGRAM, "-c", self._config], stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        said = []
        while (line := self._process.stderr.readline()) and " running" not in line:
            said.append(line)
        assert line, "".join(said)
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


class Listener:
    """Hears everything that is sent to a topic. Its session outlasts a broker that is started again."""

    def __init__(self, port: int, topic: str) -> None:
        self.heard: queue.Queue[bytes] = queue.Queue()
        ready: queue.Queue[None] = queue.Queue()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: ready.put(None)
        self._client.on_message = lambda _client, _data, message: self.heard.put(message.payload)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        ready.get(timeout=30)

    def next(self) -> bytes:
        return self.heard.get(timeout=30)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
