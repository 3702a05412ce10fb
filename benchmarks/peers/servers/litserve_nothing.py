"""LitServe with a graph that does nothing: one tensor of bytes in, one byte out."""
# mypy: disable-error-code="import-not-found, no-any-return, misc"

# LitServe reads the annotations of decode_request, so they must be real: no `from __future__ import annotations` here.
from typing import Annotated, Any

import litserve
import numpy as np
import onnxruntime as ort
from fastapi import Depends, Request, Response
from work import Setup


async def read_body(request: Request) -> bytes:
    """The tensor as it came."""
    return await request.body()


class Api(litserve.LitAPI):
    """The graph, a batch at a time."""

    def setup(self, device: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(Setup.from_environment().model, options, providers=["CPUExecutionProvider"])

    def decode_request(self, request: Annotated[bytes, Depends(read_body)]) -> Any:
        return np.frombuffer(request, np.uint8)

    def batch(self, inputs: list[Any]) -> Any:
        return np.stack(inputs)

    def predict(self, rows: Any) -> Any:
        return self.session.run(None, {"x": rows if rows.ndim == 2 else rows[None]})[0]

    def unbatch(self, output: Any) -> list[Any]:
        return list(output)

    def encode_response(self, output: Any) -> Response:
        return Response(content=output.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    setup = Setup.from_environment()
    api = Api(max_batch_size=setup.batch, batch_timeout=setup.delay_ms / 1000)
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        devices=1,
        workers_per_device=setup.workers,
        timeout=setup.timeout_ms / 1000,
    )
    server.run(host="127.0.0.1", port=setup.port, log_level="warning", generate_client_file=False)
