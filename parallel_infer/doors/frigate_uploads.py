"""Models that Frigate sends because it has not found them here. They are strangers' files, so nothing is taken unasked.

A file is kept in a folder of the run, under its own name, and loaded as any model of this machine is: a process of its
own looks into it first, and data beside it is not there, so that a model that names some is rejected. The folder and
what was uploaded end with the server; Frigate asks, and sends it again.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Container
from pathlib import Path

import msgspec

from parallel_infer.doors.gateway_link import GatewayLink
from parallel_infer.errors import BadInput, ResourceUnavailable, Unauthorized

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,119}\.onnx", re.ASCII)


class UploadLimits(msgspec.Struct, frozen=True):
    """What is taken: `most` models at a time (0: none), each of at most `size` bytes."""

    most: int = 0
    size: int = 0


class Uploads:
    """Takes files, one at a time."""

    def __init__(self, link: GatewayLink, limits: UploadLimits, folder: Path) -> None:
        self._link = link
        self._limits = limits
        self._folder = folder
        self._turn = asyncio.Lock()

    async def take(self, file: str, content: memoryview) -> str:
        """Serve an uploaded detector; the name under which it is served when this returns.

        Raises Unauthorized where none is taken, BadInput for a file that is refused as it is, ResourceUnavailable where
        there is no room, ModelRejected where it cannot be served.
        """
        if not self._limits.most:
            raise Unauthorized(
                "models of strangers are not taken (option frigate_uploads); "
                "put the file on the server and serve it under this name"
            )
        if not _NAME.fullmatch(file):
            raise BadInput(
                f"model_name is {file[:60]!r}; the name of a file is taken, NAME.onnx, of letters, digits and . _ -"
            )
        if not 0 < len(content) <= self._limits.size:
            raise BadInput(
                f"the model has {len(content)} bytes; 1 to {self._limits.size} are taken (option frigate_upload_mb)"
            )
        async with self._turn:
            return await self._serve(file, content)

    async def _serve(self, file: str, content: memoryview) -> str:
        name = file.removesuffix(".onnx")
        path = self._folder / file
        served = await self._link.models(fresh=True)
        uploaded = self._uploaded_of(served)
        if name in served:
            if name in uploaded and path.read_bytes() == content:
                return name  # sent again, perhaps because the first answer came too late
            raise BadInput(f"another model {name!r} is served, and stays as it is until it is unloaded")
        if len(uploaded) >= self._limits.most:
            raise ResourceUnavailable(
                f"{len(uploaded)} uploaded models are served, {', '.join(sorted(uploaded))}; "
                "no more are taken (option frigate_uploads)"
            )
        try:
            await asyncio.to_thread(_write, path, content)
            await self._link.load(name, str(path), {})
            view, _ = await self._link.find(name)
            if view.task != "detect":
                await self._link.unload(name)
                raise BadInput(f"{file} is no detector (its task is {view.task})")
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return name

    def _uploaded_of(self, served: Container[str]) -> set[str]:
        """The uploaded models that are served; what is left of others is removed."""
        found = set()
        for path in self._folder.glob("*.onnx"):
            if path.stem in served:
                found.add(path.stem)
            else:
                path.unlink(missing_ok=True)
        return found


def _write(path: Path, content: memoryview) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    partial = path.with_suffix(".part")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ResourceUnavailable(f"the model was not written to {path.parent} ({error.strerror})") from None
