"""The OpenAPI 3.1 document of the HTTP door: every route, what it takes and what it gives. Pure."""

from __future__ import annotations

from typing import Any

from parallel_infer.doors.http.oip_codec import LENGTH_HEADER
from parallel_infer.doors.http.reference.schemas import OPTIONS, SCHEMAS, Schema, number, ref, text, whole
from parallel_infer.protocol import MAX_TIMEOUT

PLAIN, OIP, REPOSITORY, ROBOFLOW, WATCH = (
    "Pictures",
    "Open Inference Protocol",
    "Model repository",
    "Roboflow's API",
    "Health and metrics",
)
_TAGS = {
    PLAIN: "A picture in, its answer out: for curl and scripts.",
    OIP: "Version 2, as KServe, Triton and their clients speak it. NAME takes the tensors of the ONNX file, "
    "NAME.picture encoded pictures. Requests may come in gzip or deflate.",
    REPOSITORY: "Which models there are; loading and unloading takes a key that may manage.",
    ROBOFLOW: "Versions 1 and 0, as Roboflow's inference SDK speaks them.",
    WATCH: "For whatever watches a server.",
}
_ERRORS = {
    "400": "BAD_INPUT: something in the request is wrong; the text names it.",
    "401": "UNAUTHORIZED: the server asks for a key.",
    "403": "UNAUTHORIZED: this key, or this web page, may not do that.",
    "404": "UNKNOWN_MODEL: no such model.",
    "408": "The body stopped coming.",
    "413": "The body is too large (option max_payload_mb).",
    "415": "A Content-Encoding that is not read.",
    "422": "POISON: this request ends the process that works on it.",
    "500": "INTERNAL: the server failed.",
    "503": "RESOURCE_UNAVAILABLE, SERVER_UNAVAILABLE, WORKER_LOST, DROPPED: try again; Retry-After says when.",
    "504": "DEADLINE_EXCEEDED: the deadline passed.",
}
_OF_ALL = ("401", "403", "500")
_OF_BODIES = ("400", "408", "413", "415")
_OF_JOBS = (*_OF_BODIES, "404", "422", "503", "504")
_BINARY: Schema = {}  # any bytes
_BASE64_BODY = text("The picture in base64, whatever the type says.", contentEncoding="base64")


def document(version: str, *, keys: bool) -> dict[str, Any]:
    """The whole document, for a server of this version; `keys`: whether it asks for keys."""
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "parallel-infer",
            "version": version,
            "summary": "A multiprocess inference server for pictures and ONNX models.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": what} for name, what in _TAGS.items()],
        "paths": {**_plain(), **_oip(), **_repository(), **_roboflow(), **_watch()},
        "components": {
            "schemas": SCHEMAS,
            "responses": {status: _error(what) for status, what in _ERRORS.items()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "api_key": {"type": "apiKey", "in": "query", "name": "api_key"},
            },
        },
    }
    if keys:
        found["security"] = [{"bearer": []}, {"api_key": []}]
    return found


def _error(description: str) -> dict[str, Any]:
    return {"description": description, "content": _json(ref("Error"))}


def _json(schema: Schema) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _at(place: str, name: str, schema: Schema, description: str = "") -> dict[str, Any]:
    found = {"name": name, "in": place, "schema": schema} | ({"required": True} if place == "path" else {})
    return found | ({"description": description} if description else {})


def _operation(name: str, tag: str, summary: str, answers: dict[str, Any], *errors: str, **more: Any) -> dict[str, Any]:
    """One operation: `answers` is the content of 200 by type, `errors` are the statuses of what may go wrong."""
    good = {"description": summary} | ({"content": answers} if answers else {})
    refused = {status: {"$ref": f"#/components/responses/{status}"} for status in sorted({*_OF_ALL, *errors})}
    return {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        **more,
        "responses": {"200": good, **refused},
    }


def _body(content: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    return {"required": required, "content": content}


_NOT_READY = {"description": "It is not ready.", "content": _json(ref("Ready"))}
_MODEL = _at("path", "model", text(), "NAME, or NAME.picture for encoded pictures.")
_JPEG = {"image/jpeg": {"schema": _BINARY}}


def _plain() -> dict[str, Any]:
    parameters = [
        _at("path", "model", text(), "The model's name."),
        _at("query", "options", OPTIONS) | {"style": "form", "explode": True},
        _at("query", "timeout", number(exclusiveMinimum=0, maximum=MAX_TIMEOUT), "Seconds."),
        _at("query", "priority", whole(minimum=-100, maximum=100, default=0), "Higher goes first."),
        _at("query", "format", text(enum=["json", "image"], default="json"), "image: the picture, drawn on."),
    ]
    form: Schema = {"type": "object", "properties": {"file": {}}, "required": ["file"]}
    body = _body(
        {
            "image/*": {"schema": _BINARY},
            "application/octet-stream": {"schema": _BINARY},
            "multipart/form-data": {"schema": form},
            **_json(ref("Picture")),
        }
    )
    return {
        "/infer/{model}": {
            "post": _operation(
                *("infer_picture", PLAIN, "The answer about a picture.", _json(ref("Answer")) | _JPEG, *_OF_JOBS),
                parameters=parameters,
                requestBody=body,
            )
        }
    }


def _oip() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, name, summary, schema, errors in (
        ("/v2", "server", "What the server is.", "Server", ()),
        ("/v2/", "server_", "The same.", "Server", ()),
        ("/v2/health/live", "live", "The door lives.", "Live", ()),
        ("/v2/health/ready", "ready", "A picture gets through every stage of every model.", "Ready", ()),
        ("/v2/models/stats", "statistics", "Counters of every model.", "Statistics", ("503",)),
    ):
        found[path] = {"get": _operation(name, OIP, summary, _json(ref(schema)), *errors)}
    found["/v2/health/ready"]["get"]["responses"]["503"] = _NOT_READY
    version = _at("path", "version", text(), "The version that is served.")
    for path, given, suffix in (
        ("/v2/models/{model}", [_MODEL], ""),
        ("/v2/models/{model}/versions/{version}", [_MODEL, version], "_of_version"),
    ):
        for below, name, summary, schema in (
            ("", "model", "Inputs and outputs of a model.", "Model"),
            ("/ready", "model_ready", "A picture gets through every stage of this model.", "Ready"),
            ("/config", "configuration", "A model's configuration in Triton's words.", "Configuration"),
            ("/stats", "model_statistics", "Counters of a model.", "Statistics"),
        ):
            described = _operation(name + suffix, OIP, summary, _json(ref(schema)), "404", "503", parameters=given)
            found[path + below] = {"get": described}
        found[f"{path}/ready"]["get"]["responses"]["400"] = _NOT_READY
        found[f"{path}/infer"] = {"post": _inference("infer" + suffix, given)}
    return found


def _inference(name: str, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    length = _at("header", LENGTH_HEADER, whole(minimum=0), "Bytes of JSON; the blobs of the inputs follow it.")
    blobs = {"application/octet-stream": {"schema": _BINARY}}
    return _operation(
        *(name, OIP, "Tensors in, tensors out.", _json(ref("InferenceResponse")) | blobs, *_OF_JOBS),
        parameters=[*parameters, length],
        requestBody=_body(_json(ref("InferenceRequest")) | blobs),
    )


def _repository() -> dict[str, Any]:
    body = _body(_json(ref("RepositoryParameters")), required=False)
    found = {
        "/v2/repository/index": {
            "post": _operation("index", REPOSITORY, "Which models there are.", _json(ref("Index")), "503")
        }
    }
    for word, summary in (
        ("load", "Load a configured file anew, or the chain of the parameter chain; answers when it is served."),
        ("unload", "Stop serving a model; answers when its last job is answered."),
    ):
        nothing = _json({"type": "object"})
        found[f"/v2/repository/models/{{model}}/{word}"] = {
            "post": _operation(
                *(word, REPOSITORY, summary, nothing, *_OF_BODIES, "404", "503"), parameters=[_MODEL], requestBody=body
            )
        }
    return found


def _roboflow() -> dict[str, Any]:
    registry = _json(ref("RoboflowRegistry"))
    identifier = _body(_json(ref("RoboflowModel")))
    found = {
        "/info": {"get": _operation("info", ROBOFLOW, "What the server is.", _json(ref("RoboflowServer")))},
        "/model/registry": {"get": _operation("registry", ROBOFLOW, "Every name that works.", registry, "503")},
    }
    for word, summary, required in (
        ("add", "A model that is served is there already; others are not fetched.", True),
        ("remove", "Stop serving a model.", True),
        ("clear", "Stop serving every model.", False),
    ):
        body = identifier | {"required": required}
        operation = _operation(
            f"{word}_model", ROBOFLOW, summary, registry, *_OF_BODIES, "404", "503", requestBody=body
        )
        found[f"/model/{word}"] = {"post": operation}
    answers = {"oneOf": [ref("Answer"), {"type": "array", "items": ref("Answer")}]}
    for task in ("object_detection", "instance_segmentation", "classification", "keypoints_detection"):
        operation = _operation(
            *(task, ROBOFLOW, "An answer for a picture, a list for a list.", _json(answers), *_OF_JOBS),
            requestBody=_body(_json(ref("RoboflowRequest"))),
        )
        found[f"/infer/{task}"] = {"post": operation}
    found["/{project}/{number}"] = {"post": _version_zero()}
    return found


def _version_zero() -> dict[str, Any]:
    form: Schema = {"type": "object", "properties": {"file": {}}, "required": ["file"]}
    return _operation(
        *("version_zero", ROBOFLOW, "Version 0: the answer about a picture.", _json(ref("Answer")) | _JPEG, *_OF_JOBS),
        parameters=[
            _at("path", "project", text()),
            _at("path", "number", whole(minimum=0)),
            _at("query", "confidence", number(minimum=0, default=0.4), "From 1 on it is per cent."),
            _at("query", "overlap", number(minimum=0, default=0.3), "From 1 on it is per cent."),
            _at("query", "classes", text(), "With commas between them."),
            _at("query", "format", text(enum=["json", "image", "image_and_json"], default="json")),
        ],
        requestBody=_body(
            {
                "application/x-www-form-urlencoded": {"schema": _BASE64_BODY},
                **_json(_BASE64_BODY),
                "multipart/form-data": {"schema": form},
            }
        ),
    )


def _watch() -> dict[str, Any]:
    own = {"text/html": {"schema": text()}}
    found = {}
    for path, name, summary, answers, errors in (
        ("/healthz", "healthz", "The door and the gateway live.", _json(ref("Live")), ("503",)),
        ("/readyz", "readyz", "A picture gets through every stage of every model.", _json(ref("Ready")), ("503",)),
        ("/metrics", "metrics", "Prometheus' text format.", {"text/plain": {"schema": text()}}, ("503",)),
        ("/openapi.json", "openapi", "This document.", _json({"type": "object"}), ()),
        ("/docs", "docs", "This document as a page.", own, ()),
    ):
        found[path] = {"get": _operation(name, WATCH, summary, answers, *errors)}
    found["/readyz"]["get"]["responses"]["503"] = _NOT_READY
    for path in ("/healthz", "/readyz"):
        found[path]["get"]["security"] = []
    return found
