"""LitServe: decoding in `decode_request`, batches formed by LitServe."""
# mypy: disable-error-code="import-not-found, no-any-return, misc"

# LitServe reads the annotations of decode_request, so they must be real: no `from __future__ import annotations` here.
from typing import Annotated, Any

import litserve
from fastapi import Depends, Request
from work import Row, Setup, Work


async def read_body(request: Request) -> bytes:
    """The JPEG as it came: LitServe's own ways, base64 in JSON and form uploads, cost it more."""
    return await request.body()


class Api(litserve.LitAPI):
    """The pictures of a batch are decoded one by one in the worker, as LitServe calls it."""

    def setup(self, device: str) -> None:
        self.work = Work(Setup.from_environment())

    def decode_request(self, request: Annotated[bytes, Depends(read_body)]) -> Row:
        return self.work.preparation.row(request)

    def predict(self, rows: Any) -> Any:
        return self.work.answers_to_rows(rows if isinstance(rows, list) else [rows])

    def batch(self, inputs: list[Row]) -> list[Row]:
        return inputs

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return output

    def encode_response(self, output: Any) -> dict[str, Any]:
        return output[0] if isinstance(output, list) else output


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
