"""KServe's clients, REST and gRPC: kserve_client.py HTTP GRPC PICTURE [KEY]. Prints what they were told."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

HTTP, GRPC, PICTURE, *KEY = sys.argv[1:]
GRPC_KEY = {"headers": [("authorization", f"Bearer {KEY[0]}")]} if KEY else {}
BASE = f"http://{HTTP}"
VALUES = np.linspace(-2, 2, 3 * 224 * 224, dtype=np.float32).reshape(1, 3, 224, 224)


def rest_key() -> dict[str, Any]:
    """Made anew for each call: the client adds headers of that call to it."""
    return {"headers": {"Authorization": f"Bearer {KEY[0]}"}} if KEY else {}


def tensor(binary: bool) -> InferRequest:
    given = InferInput("images", list(VALUES.shape), "FP32")
    given.set_data_from_numpy(VALUES, binary_data=binary)
    outputs = [RequestedOutput("probs", parameters={"binary_data": binary})]
    return InferRequest("classifier", [given], request_outputs=outputs)


def picture(binary: bool, **parameters: Any) -> InferRequest:
    data = Path(PICTURE).read_bytes()
    given = InferInput("image", [1, 1], "BYTES")
    given.set_data_from_numpy(np.array([[data if binary else base64.b64encode(data)]], object), binary_data=binary)
    return InferRequest("detector.picture", [given], parameters=parameters)


def best(answer: Any) -> int:
    return int(answer.outputs[0].as_numpy().argmax())


def boxes(answer: Any) -> list[int]:
    return next(list(output.as_numpy().shape) for output in answer.outputs if output.name == "boxes")


async def rest() -> dict[str, Any]:
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=60))
    found = {
        "live": await client.is_server_live(BASE, **rest_key()),
        "ready": await client.is_server_ready(BASE, **rest_key()),
        "model": await client.is_model_ready(BASE, "classifier", **rest_key()),
        "nobody": await client.is_model_ready(BASE, "nobody", **rest_key()),
        "best": [
            best(await client.infer(BASE, tensor(binary), model_name="classifier", **rest_key()))
            for binary in (True, False)
        ],
        "boxes": [
            boxes(
                await client.infer(BASE, picture(binary, confidence=0.5), model_name="detector.picture", **rest_key())
            )
            for binary in (True, False)
        ],
    }
    try:
        await client.infer(BASE, picture(True, confidance=0.5), model_name="detector.picture", **rest_key())
    except Exception as error:
        found["refused"] = str(error)
    await client.close()
    return found


async def grpc() -> dict[str, Any]:
    client = InferenceGRPCClient(GRPC, timeout=60)
    found = {
        "live": await client.is_server_live(**GRPC_KEY),
        "ready": await client.is_server_ready(**GRPC_KEY),
        "model": await client.is_model_ready("classifier", **GRPC_KEY),
        "best": [best(await client.infer(tensor(binary), **GRPC_KEY)) for binary in (True, False)],
        "boxes": [boxes(await client.infer(picture(True, confidence="0.5"), **GRPC_KEY))],
    }
    try:
        await client.infer(picture(True, confidance="0.5"), **GRPC_KEY)
    except Exception as error:
        found["refused"] = str(error)
    await client.close()
    return found


async def main() -> None:
    print(json.dumps({"rest": await rest(), "grpc": await grpc()}))


asyncio.run(main())
