"""A small HTTP server that plays a camera: MJPEG as IP cameras send it, and everything that can go wrong with one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np

BOUNDARY = "frame"
Play = Callable[["Viewer"], None]


def jpeg(height: int, width: int, shade: int) -> bytes:
    """A picture of one shade with a lighter square in it."""
    frame = np.full((height, width, 3), shade % 200, np.uint8)
    frame[height // 4 : height // 2, width // 4 : width // 2] = 255
    return cv2.imencode(".jpg", frame)[1].tobytes()


class Viewer:
    """One connection of somebody who watches. Raises OSError when they are gone."""

    def __init__(self, handler: BaseHTTPRequestHandler, number: int) -> None:
        self._handler = handler
        self.number = number  # of the connection, from 0

    def begin(self) -> None:
        self._handler.send_response(200)
        self._handler.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        self._handler.end_headers()

    def send(self, picture: bytes) -> None:
        head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
        self.send_bytes(head.encode() + picture + b"\r\n")

    def send_bytes(self, data: bytes) -> None:
        self._handler.wfile.write(data)
        self._handler.wfile.flush()

    def wait_until_gone(self) -> None:
        """Send nothing more until the other side hangs up."""
        self._handler.connection.settimeout(30)
        while self._handler.rfile.read(1):
            pass


class CameraServer:
    """Plays `play` to everybody who connects. `close` hangs up on all."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self.count = 0
        self.authorizations: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.authorizations.append(self.headers.get("Authorization"))
                viewer = Viewer(self, outer.count)
                outer.count += 1
                try:
                    outer.play(viewer)
                except OSError:
                    return

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.host}/camera"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
