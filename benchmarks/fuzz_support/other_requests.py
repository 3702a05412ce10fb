"""Spoilt messages of the gRPC door and spoilt frames of Frigate's and imagezmq's. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Any

from benchmarks.fuzz_support.spoil import NAMES, spoilt_bytes, spoilt_json
from parallel_infer.doors.grpc.messages import message

METHODS = (
    *("ModelInfer", "ModelInfer", "ModelInfer", "ModelInfer", "ModelMetadata", "ModelConfig", "ModelStatistics"),
    *("ModelReady", "RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload", "ServerMetadata", "Nothing"),
)
_REQUESTS = {method: message(f"inference.{method}Request") for method in METHODS if method != "Nothing"}
_SIZES = (0, 1, -1, 3, 416, 2**31, 2**40, 2**63 - 1, -(2**63))
_TYPES = ("BYTES", "FP32", "FP16", "INT8", "UINT64", "BOOL", "FP99", "", "\u2603" * 100)


class GrpcRequests:
    """Makes them, from a good picture as a JPEG."""

    def __init__(self, picture: bytes, chance: Random) -> None:
        self._picture = picture
        self._chance = chance

    def next(self) -> tuple[str, bytes]:
        """A method and the message sent to it."""
        chance = self._chance
        method = chance.choice(METHODS)
        made = self._infer() if method in ("ModelInfer", "Nothing") else self._question(method)
        data = made.SerializeToString()
        return method, spoilt_bytes(data, chance) if chance.randrange(2) else data

    def _name(self) -> str:
        return self._chance.choice([*NAMES, "detector.picture", "detector.picture", "detector"])

    def _question(self, method: str) -> Any:
        made = _REQUESTS[method]()
        for field in made.DESCRIPTOR.fields:
            if field.name in ("name", "model_name", "version"):
                # never a name that is served: nothing shall be unloaded
                served = method.startswith("RepositoryModel")
                setattr(made, field.name, "nobody" if served else self._name()[:300])
        return made

    def _infer(self) -> Any:
        chance = self._chance
        made = _REQUESTS["ModelInfer"](model_name=self._name(), model_version=chance.choice(["", "1", "9", "x"]))
        for _ in range(chance.choice([1, 1, 1, 1, 0, 2, 65])):
            shape = [1, 1] if chance.randrange(2) else [chance.choice(_SIZES) for _ in range(chance.randint(0, 9))]
            tensor = made.inputs.add(
                name=chance.choice(["image", "images", ""]), datatype=chance.choice(_TYPES), shape=shape
            )
            if chance.randrange(5) == 0:
                tensor.contents.bytes_contents.append(self._picture[:100])
        for _ in range(len(made.inputs) + chance.choice([0, 0, 0, -1, 1])):
            picture = self._picture if chance.randrange(10) == 0 else self._picture[: chance.randint(0, 200)]
            made.raw_input_contents.append(len(picture).to_bytes(4, "little") + picture)
        for name in ("priority", "timeout", "confidence", "sequence_id", "binary_data_output", "a" * 200):
            if chance.randrange(6) == 0:
                kind = chance.choice(["string_param", "int64_param", "double_param", "bool_param"])
                values = {"string_param": "NaN", "int64_param": chance.choice(_SIZES), "bool_param": True}
                setattr(made.parameters[name], kind, values.get(kind, chance.choice([float("nan"), 1e308, -1.0])))
        if chance.randrange(4) == 0:
            made.outputs.add(name=chance.choice(["scores", "answer", "nothing"])).parameters[
                "classification"
            ].int64_param = chance.choice(_SIZES)
        return made


class FrigateFrames:
    """Makes them, from a good picture of the model's size."""

    def __init__(self, pixels: bytes, shape: Sequence[int], chance: Random) -> None:
        self._pixels = pixels
        self._header = {"shape": list(shape), "dtype": "uint8", "model_type": "yologeneric"}
        self._chance = chance

    def next(self) -> list[bytes]:
        """The frames of one message."""
        chance = self._chance
        match chance.randrange(6):
            case 0:
                return [spoilt_json({"model_request": True, "model_name": "detector.onnx"}, chance)]
            case 1:
                asked = {"model_data": True, "model_name": "../../x.onnx"}
                return [spoilt_json(asked, chance), chance.randbytes(50)]
            case 2:
                return _other_frames(json.dumps(self._header).encode(), chance)
            case _:
                pixels = self._pixels if chance.randrange(10) == 0 else chance.randbytes(chance.choice([0, 1, 1200]))
                return [spoilt_json(self._header, chance), pixels]


class ImagezmqFrames:
    """Makes them, from a good picture as a JPEG."""

    def __init__(self, picture: bytes, chance: Random) -> None:
        self._picture = picture
        self._chance = chance

    def next(self) -> list[bytes]:
        """The frames of one message."""
        chance = self._chance
        match chance.randrange(5):
            case 0:
                return _other_frames(b'{"msg": "camera"}', chance)
            case 1:
                whole = self._picture if chance.randrange(8) == 0 else self._picture[: chance.randint(0, 400)]
                return [b'{"msg": "camera"}', spoilt_bytes(whole, chance)]
            case _:
                header = {"msg": "camera", "dtype": "uint8", "shape": [20, 20, 3]}
                return [spoilt_json(header, chance), chance.randbytes(chance.choice([0, 1, 400, 1200]))]


def _other_frames(header: bytes, chance: Random) -> list[bytes]:
    """A header that is no JSON, or a wrong number of frames."""
    return [spoilt_bytes(header, chance), *(chance.randbytes(4) for _ in range(chance.randint(0, 4)))]
