"""Spoilt HTTP requests: Open Inference Protocol, Roboflow, plain pictures, and HTTP itself. Pure."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from random import Random
from typing import Any, NamedTuple

from benchmarks.fuzz_support.spoil import NAMES, RAW_VALUES, spoilt_bytes, spoilt_json

HOST = b"Host: 127.0.0.1\r\n"
KINDS = (
    *("image/jpeg", "application/json", "application/octet-stream", "text/html", "multipart/form-data", ""),
    *("multipart/form-data; boundary=b", "multipart/form-data; boundary=", "application/x-python-pickle", "a" * 300),
)
HEADERS = (
    *(
        "Inference-Header-Content-Length: 0",
        "Inference-Header-Content-Length: -1",
        "Inference-Header-Content-Length: 9e9",
    ),
    *("Inference-Header-Content-Length: 5", "Inference-Header-Content-Length: 99999999999999999999"),
    *(
        "Inference-Header-Content-Length: \u00b2",
        "Content-Encoding: gzip",
        "Content-Encoding: deflate",
        "Expect: 100-continue",
    ),
    *("Content-Encoding: br", "Content-Encoding: gzip, gzip", "Content-Encoding: zstd", "Accept-Encoding: gzip"),
    *("X: " + "a" * 8000, "X: " + "a" * 9000, "Cookie: " + "; ".join("a=b" for _ in range(500)), "Range: bytes=0-5"),
    *(
        "Authorization: Bearer " + "x" * 500,
        "Origin: null",
        "Sec-Fetch-Site: cross-site",
        "X\x01: y",
        "Upgrade: websocket",
    ),
    *("Connection: Upgrade, HTTP2-Settings", "Transfer-Encoding: identity", "Expect: a miracle", "Host: evil.example"),
)
SMUGGLED = (
    b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n",
    b'Transfer-Encoding: chunked\r\n\r\n5;ext="' + b"a" * 9000 + b'"\r\nabcde\r\n0\r\n\r\n',
    b"Content-Length: 0x5\r\n\r\nabcde",
    b"Content-Length: +5\r\n\r\nabcde",
    b"Content-Length: 5 5\r\n\r\nabcde",
    b"Content-Length: 99999999999999999999\r\n\r\nabcde",
    b"Content-Length: -1\r\n\r\n",
    b"Content-Length: 5\r\n Content-Length: 6\r\n\r\nabcde",
    b"Content-Length:\r\n\r\n",
)


class Sent(NamedTuple):
    """Bytes of one request. `whole`: HTTP has no doubt where it ends, so that the connection may be used again."""

    data: bytes
    whole: bool


class HttpRequests:
    """Makes them, from a good picture as a JPEG."""

    def __init__(self, picture: bytes, chance: Random) -> None:
        self._picture = picture
        self._base64 = base64.b64encode(picture).decode()
        self._chance = chance

    def next(self) -> Sent:
        """One of any kind."""
        makers = (self._json_oip, self._binary_oip, self._raw, self._roboflow, self._zero, self._plain, self._other)
        match self._chance.randrange(10):
            case 0:
                return self._framing()
            case 1:
                sent = self._chance.choice(makers)()
                return Sent(spoilt_bytes(sent.data, self._chance), whole=False)
            case _:
                return self._chance.choice(makers)()

    def _post(self, path: str, body: bytes, kind: str = "application/json", *headers: str) -> Sent:
        """A request, with a wrong header, a wrong type or a packed body now and then."""
        chance = self._chance
        named = list(headers)
        if chance.randrange(6) == 0:
            kind = chance.choice(KINDS)
        if chance.randrange(6) == 0:
            named.append(chance.choice(HEADERS))
        if chance.randrange(12) == 0:
            named = [name for name in named if not name.startswith("Content-Encoding")]
            named.append(f"Content-Encoding: {chance.choice(['gzip', 'deflate'])}")
            packed = gzip.compress(body, 1) if chance.randrange(2) else zlib.compress(body, 1)
            body = spoilt_bytes(packed, chance) if chance.randrange(2) else packed
        head = [f"POST {path} HTTP/1.1", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *named]
        asks_first = any(name.startswith(("Expect", "Upgrade", "Connection")) for name in named)
        return Sent("\r\n".join(head).encode() + b"\r\n" + HOST + b"\r\n" + body, whole=not asks_first)

    def _name(self) -> str:
        return self._chance.choice(NAMES) if self._chance.randrange(6) == 0 else "detector.picture"

    def _oip(self, **tensor: Any) -> dict[str, Any]:
        image = {"name": "image", "datatype": "BYTES", "shape": [1, 1], **tensor}
        outputs = [{"name": "scores", "parameters": {"binary_data": False, "classification": 2}}]
        return {
            "id": "1",
            "parameters": {"confidence": 0.5, "timeout": 5_000_000},
            "inputs": [image],
            "outputs": outputs,
        }

    def _json_oip(self) -> Sent:
        data = self._base64 if self._chance.randrange(20) == 0 else "aGVsbG8="
        body = spoilt_json(self._oip(data=[data]), self._chance)
        if self._chance.randrange(4) == 0:
            numbers = {"name": "images", "datatype": self._datatype(), "shape": self._shape(), "data": [1, 2.5, 3]}
            body = spoilt_json({"inputs": [numbers]}, self._chance)
            return self._post("/v2/models/detector/infer", body)
        return self._post(f"/v2/models/{self._name()}/infer", body)

    def _datatype(self) -> str:
        return self._chance.choice(["FP32", "FP16", "INT8", "UINT64", "BOOL", "BYTES", "FP99", ""])

    def _shape(self) -> list[int]:
        sizes = (0, 1, -1, 3, 416, 2**31, 2**40, 2**63 - 1, -(2**63))
        return [self._chance.choice(sizes) for _ in range(self._chance.randint(0, 9))]

    def _binary_oip(self) -> Sent:
        blob = (
            len(self._picture).to_bytes(4, "little") + self._picture[: self._chance.choice([0, 20, len(self._picture)])]
        )
        if self._chance.randrange(2):
            blob = spoilt_bytes(blob, self._chance)
        size = len(blob) + self._chance.choice([0, 0, 0, -1, 1, 2**40, -(2**40)])
        described = self._oip(parameters={"binary_data_size": size}, shape=self._shape() or [1, 1])
        text = (
            spoilt_json(described, self._chance) if self._chance.randrange(3) == 0 else json.dumps(described).encode()
        )
        length = len(text) + self._chance.choice([0, 0, 0, -1, 1, 10**12])
        return self._post(
            f"/v2/models/{self._name()}/infer",
            text + blob,
            "application/octet-stream",
            f"Inference-Header-Content-Length: {length}",
        )

    def _raw(self) -> Sent:
        size = self._chance.choice([0, 1, 3, 4, 4096])
        name = self._chance.choice(["detector", "detector.picture", "nobody"])
        body = self._chance.randbytes(size)
        return self._post(f"/v2/models/{name}/infer", body, "", "Inference-Header-Content-Length: 0")

    def _roboflow(self) -> Sent:
        kind = self._chance.choice(["base64", "base64", "url", "numpy", "", "multipart"])
        value = self._chance.choice(
            ["aGVsbG8=", "http://127.0.0.1/x.jpg", "file:///etc/passwd", "", "a", "\ud83d\ude00"]
        )
        image: Any = {"type": kind, "value": value}
        asked = {"model_id": "detector/1", "api_key": "k", "image": image, "confidence": 0.4, "iou_threshold": 0.3}
        asked |= {"class_filter": ["person"], "max_detections": 3, "visualize_predictions": True}
        tasks = ["object_detection", "classification", "instance_segmentation", "keypoints_detection", "x"]
        return self._post(f"/infer/{self._chance.choice(tasks)}", spoilt_json(asked, self._chance))

    def _zero(self) -> Sent:
        body = spoilt_bytes(self._chance.choice([b"aGVsbG8=", self._base64.encode()[:400], b""]), self._chance)
        value = self._chance.choice([*RAW_VALUES[:28], "0.5", "50"])
        query = self._chance.choice(["confidence", "overlap", "format", "classes", "image", "a" * 3000])
        return self._post(
            f"/detector/{self._chance.choice(['1', '0', '99999999999', '-1', 'x'])}?{query}={value}", body
        )

    def _plain(self) -> Sent:
        body = spoilt_bytes(self._picture[: self._chance.choice([0, 50, len(self._picture)])], self._chance)
        options = ["timeout", "priority", "confidence", "format", "class_filter", "max_detections", "mask_format", "zz"]
        query = f"?{self._chance.choice(options)}={self._chance.choice(RAW_VALUES[:28])}" * self._chance.randrange(2)
        match self._chance.randrange(4):
            case 0:
                fields = {"image": "aGVsbG8=", "confidence": 0.5, "class_filter": ["person"], "api_key": "k"}
                return self._post(f"/infer/{self._name()}{query}", spoilt_json(fields, self._chance))
            case 1:
                head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
                form = spoilt_bytes(head + body[:200] + b"\r\n--b--\r\n", self._chance)
                return self._post(f"/infer/detector{query}", form, "multipart/form-data; boundary=b")
            case _:
                return self._post(f"/infer/{self._name()}{query}", body, "image/jpeg")

    def _other(self) -> Sent:
        name, value = self._chance.choice(NAMES), self._chance.choice(RAW_VALUES[:28])
        paths = (
            *(
                f"/v2/models/{name}",
                f"/v2/models/{name}/config",
                f"/v2/models/{name}/ready",
                f"/v2/models/{name}/stats",
            ),
            *(
                f"/v2/models/detector/versions/{value}",
                f"/{name}",
                f"/{name}/1",
                "//",
                "/../etc/passwd",
                "*",
                "/infer/",
            ),
            *(
                "http://evil.example/",
                "/model/registry?api_key=%00",
                "/metrics?x=%ff",
                "/healthz/../x",
                "/" + "a/" * 2000,
            ),
        )
        method = self._chance.choice(
            ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "BREW", "get"]
        )
        if self._chance.randrange(3) == 0:
            action = self._chance.choice(["load", "index"])
            place = "index" if action == "index" else f"models/nobody/{action}"
            body = spoilt_json({"parameters": {"config": "{}", "file:1/model.onnx": "aGVsbG8="}}, self._chance)
            return self._post(f"/v2/repository/{place}", body)
        whole = method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS")
        return Sent(f"{method} {self._chance.choice(paths)} HTTP/1.1\r\n".encode() + HOST + b"\r\n", whole=whole)

    def _framing(self) -> Sent:
        """HTTP of which it may be doubtful where a request ends."""
        line = self._chance.choice(
            [b"POST /infer/detector HTTP/1.1\r\n", b"POST /infer/detector HTTP/1.0\r\n", b"", b"\r\n" * 9]
        )
        return Sent(line + HOST + self._chance.choice(SMUGGLED), whole=False)
