"""One server with every door, for clients as they come from their packages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import pytest

from tests.engine.serving import Server, running, short_folder


class Doors(NamedTuple):
    """Where each door listens: HOST:PORT, or a ZeroMQ address."""

    server: Server
    http: str
    grpc: str
    frigate: str
    imagezmq: str

    def in_place_of_documented(self, text: str) -> str:
        """A snippet of the documents, with the addresses of this server."""
        for documented, address in (
            ("tcp://127.0.0.1:5558", self.frigate),
            ("tcp://127.0.0.1:5559", self.imagezmq),
            ("127.0.0.1:8000", self.http),
            ("127.0.0.1:8001", self.grpc),
        ):
            text = text.replace(documented, address)
        return text


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> None:
    """Instead of that of all tests: the shared server is looked at when it has ended."""


@pytest.fixture(scope="package")
def doors(_adopt_orphans: None) -> Iterator[Doors]:
    folder = short_folder()
    models = (f"--model={name}=zoo:{name}" for name in ("detector", "classifier", "segmenter", "pose"))
    frigate = f"ipc://{folder}/frigate"
    with running(
        Server(
            folder,
            *("--bind", f"ipc://{folder}/server", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"),
            *(
                "--frigate-bind",
                frigate,
                "--frigate-uploads",
                "1",
                "--frigate-upload-mb",
                "8",
                "--imagezmq-bind",
                "tcp://127.0.0.1:*",
                "--alias",
                "coco/3=detector",
            ),
            *models,
        )
    ) as server:
        by_kind = {address.partition("://")[0]: address for address in server.addresses}
        yield Doors(
            server,
            http=by_kind["http"].removeprefix("http://"),
            grpc=by_kind["grpc"].removeprefix("grpc://"),
            frigate=frigate,
            imagezmq=by_kind["tcp"],
        )


@pytest.fixture
def street(tmp_path: Path, pictures: Path) -> Path:
    """A folder with the picture that snippets read."""
    cv2.imwrite(str(tmp_path / "street.jpg"), cv2.imread(str(pictures / "astronaut.png")))
    return tmp_path
