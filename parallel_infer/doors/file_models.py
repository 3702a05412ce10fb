"""The unchanged graphs of models, for clients that send the tensors of the ONNX file.

A model of pictures has rows of bytes and answers of objects; the file has its own inputs and outputs. Its graph is
loaded a second time at the first use, in float32, as a model of plain tensors under a name of its own. It follows its
model: another content is loaded anew, and what has lost its model is unloaded.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from parallel_infer.doors.gateway_link import GatewayLink
from parallel_infer.doors.model_view import ModelView
from parallel_infer.errors import BadInput, InferError
from parallel_infer.model_spec import FILE, SERVED

_LOOK_AGAIN = 0.2  # seconds, while another door loads the same file


class FileModels:
    """Loads them once, however many requests wait for them."""

    def __init__(self, link: GatewayLink) -> None:
        self._link = link
        self._loading: dict[str, asyncio.Task[None]] = {}

    def served(self, view: ModelView) -> bool:
        """Whether the file's own tensors of a model are taken already."""
        name = view.file_model
        return name == view.name or self._link.files.get(name) == view.digest

    async def load(self, view: ModelView) -> None:
        """Have the file's own tensors of a model served."""
        name = view.file_model
        loading = self._loading.get(name)
        if loading is None:
            loading = self._loading[name] = asyncio.ensure_future(self._load(name, view))
            loading.add_done_callback(lambda done: self._loading.pop(name, None))
        await asyncio.shield(loading)

    async def _load(self, name: str, view: ModelView) -> None:
        await self._forget_orphans()
        while self._link.files.get(name) != view.digest:
            try:
                await self._link.load(name, SERVED + view.name, _options(view))
                return
            except BadInput as error:
                if "being loaded already" not in str(error):
                    raise
                await asyncio.sleep(_LOOK_AGAIN)
                await self._link.models(fresh=True)

    async def _forget_orphans(self) -> None:
        served = await self._link.models(fresh=True)
        for name in [name for name in self._link.files if name.removesuffix(FILE) not in served]:
            with contextlib.suppress(InferError):  # another door was quicker
                await self._link.unload(name)


def _options(view: ModelView) -> dict[str, Any]:
    """How a file is loaded whose values must be those of its graph."""
    shapes = {port.name: _job_shape(port.shape, port.axis) for port in view.inputs}
    return {
        "task": "tensor",
        "precision": "fp32",
        "uint8_rows": False,
        "instances": 1,
        "max_batch_size": view.max_batch_size,
        "shapes": {name: list(shape) for name, shape in shapes.items() if shape and -1 not in shape},
    }


def _job_shape(shape: tuple[int, ...], axis: int | None) -> tuple[int, ...]:
    return shape if axis is None else (*shape[:axis], *shape[axis + 1 :])
