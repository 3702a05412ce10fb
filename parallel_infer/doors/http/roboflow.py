"""Roboflow's API, versions 1 and 0, as its inference SDK speaks it: JSON with base64 pictures."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Container, Iterable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from parallel_infer.answers.answer import Answer
from parallel_infer.client.requests import encode_options
from parallel_infer.doors.gateway_link import Work
from parallel_infer.doors.http.app import CONTEXT, check_key, check_manages, client_of, is_known, json_response
from parallel_infer.doors.http.json_text import decoded
from parallel_infer.doors.http.oip_codec import base64_bytes
from parallel_infer.doors.http.pictures import drawn, picture_of_form
from parallel_infer.doors.http.plain import answered, is_json
from parallel_infer.doors.http.query import check_apart, check_spelling, once_each
from parallel_infer.doors.model_view import ModelView
from parallel_infer.errors import BadInput, UnknownModel

_TASKS = {  # our task, Roboflow's task type, the last part of its route
    "detect": ("object-detection", "object_detection"),
    "segment": ("instance-segmentation", "instance_segmentation"),
    "classify": ("classification", "classification"),
    "keypoints": ("keypoint-detection", "keypoints_detection"),
    "obb": ("object-detection", "object_detection"),
}
ROUTES = ("object_detection", "instance_segmentation", "classification", "keypoints_detection")
CONFIDENCE, IOU = 0.4, 0.3  # this door's defaults, as Roboflow's
_MOST_PICTURES = 1024
_ZERO = ("confidence", "overlap", "classes", "format", "api_key")  # version 0's options that mean something here
_IGNORED = ("keypoint_confidence", "countinference")  # sent by its clients, and no misspelling


class Aliases:
    """Other names of models, as `--alias coco/3=detector` gives them. `NAME/1` is always one."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = dict(given)

    def model_of(self, identifier: str, served: Container[str]) -> str:
        """The model's name behind an identifier."""
        if identifier in self._given:
            return self._given[identifier]
        if identifier in served:
            return identifier
        stem, _, version = identifier.rpartition("/")
        return stem if stem and version == "1" else identifier

    def identifiers(self, names: Iterable[str]) -> dict[str, str]:
        """Every identifier that works, with the model behind it."""
        found: dict[str, str] = {}
        for name in names:
            found |= {f"{name}/1": name, name: name}
        return found | {alias: model for alias, model in self._given.items() if model in found}


ALIASES: web.AppKey[Aliases] = web.AppKey("aliases", Aliases)


def routes() -> list[web.RouteDef]:
    """Versions 1 and 0 but for the model's own path, which any other route goes before."""
    return [
        web.get("/info", about),
        web.get("/model/registry", registry),
        web.post("/model/add", add),
        web.post("/model/remove", remove),
        web.post("/model/clear", clear),
        *(web.post(f"/infer/{route}", infer) for route in ROUTES),
    ]


def version_zero() -> list[web.RouteDef]:
    """POST /PROJECT/VERSION, the last of all routes."""
    return [web.post(r"/{project:[^/]+}/{number:\d+}", infer_zero)]


async def about(request: web.Request) -> web.Response:
    """What the server is; its version is for those who have a key."""
    version = request.app[VERSION] if is_known(request) else "not told without a key"
    return json_response({"name": "parallel-infer", "version": version, "uuid": request.app[IDENTITY]})


VERSION: web.AppKey[str] = web.AppKey("version", str)
IDENTITY: web.AppKey[str] = web.AppKey("identity", str)


async def _entries(request: web.Request) -> list[dict[str, Any]]:
    models = await request.app[CONTEXT].link.models()
    identifiers = request.app[ALIASES].identifiers(name for name, view in models.items() if view.task in _TASKS)
    return [
        {
            "model_id": identifier,
            "task_type": _TASKS[models[name].task][0],
            "batch_size": models[name].max_batch_size,
            "input_height": models[name].row[0],
            "input_width": models[name].row[1],
        }
        for identifier, name in identifiers.items()
    ]


async def registry(request: web.Request) -> web.Response:
    """Every identifier that works; to somebody without a key there is none."""
    return json_response({"models": await _entries(request) if is_known(request) else []})


class _ModelId(msgspec.Struct, frozen=True):
    model_id: str = ""
    api_key: str | None = None


async def add(request: web.Request) -> web.Response:
    """A model that is served is there already; others are not fetched."""
    async with request.app[CONTEXT].bodies.read(request) as body:
        asked = decoded(body, _ModelId)
    await check_key(request, asked.api_key)
    entries = await _entries(request)
    if not any(entry["model_id"] == asked.model_id for entry in entries):
        known = ", ".join(entry["model_id"] for entry in entries) or "none"
        raise UnknownModel(f"no model {asked.model_id!r} is served, and none is fetched; served are: {known}")
    return json_response({"models": entries})


async def remove(request: web.Request) -> web.Response:
    """Unload one model."""
    async with request.app[CONTEXT].bodies.read(request) as body:
        asked = decoded(body, _ModelId)
    await check_key(request, asked.api_key)
    check_manages(request)
    await _unload(request, [await _meant(request, asked.model_id)])
    return json_response({"models": await _entries(request)})


async def clear(request: web.Request) -> web.Response:
    """Unload every model."""
    async with request.app[CONTEXT].bodies.read(request) as body:
        asked = decoded(body, _ModelId) if len(body) else _ModelId()
    await check_key(request, asked.api_key)
    check_manages(request)
    served = await request.app[CONTEXT].link.models(fresh=True)
    await _unload(request, [name for name, view in served.items() if not view.chain])
    return json_response({"models": await _entries(request)})


async def _meant(request: web.Request, identifier: str) -> str:
    return request.app[ALIASES].model_of(identifier, await request.app[CONTEXT].link.models())


async def _unload(request: web.Request, names: list[str]) -> None:
    for name in names:
        await request.app[CONTEXT].service.unload(name)


class _Image(msgspec.Struct, frozen=True):
    type: str
    value: Any = None


class _Infer(msgspec.Struct, frozen=True):
    """The fields that mean something here; Roboflow's clients send others too, which are ignored."""

    model_id: str
    image: _Image | list[_Image]
    api_key: str | None = None
    confidence: float | str | None = None
    iou_threshold: float | None = None
    class_filter: list[str] | None = None
    class_agnostic_nms: bool | None = None
    max_detections: int | None = None
    max_candidates: int | None = None
    mask_decode_mode: str | None = None
    tradeoff_factor: float | None = None
    response_mask_format: str | None = None
    keypoint_confidence: float | None = None
    visualize_predictions: bool | None = None


async def infer(request: web.Request) -> web.Response:
    """Version 1: an object for one picture, a list for a list. A model may be called like the route: see `plain`."""
    context, route = request.app[CONTEXT], request.path.rpartition("/")[2]
    async with context.bodies.pieces(request) as body:
        theirs = is_json(request, body) and b'"model_id"' in bytes(body.whole())
        if not theirs and (
            route in await context.link.models() or route in await context.link.models(fresh=True)
        ):  # a model that was loaded just now is not in the list that is at hand
            return await answered(request, route, body)
        with context.bodies.parsing(body.whole()):
            return await _inferred(request, decoded(body.whole(), _Infer))


async def _inferred(request: web.Request, asked: _Infer) -> web.Response:
    context = request.app[CONTEXT]
    await check_key(request, asked.api_key)
    view, _ = await context.service.view(await _meant(request, asked.model_id))
    route = request.path.rpartition("/")[2]
    wanted = _TASKS.get(view.task, ("", ""))[1]
    if route != wanted:
        raise BadInput(f"model {asked.model_id!r} does {view.task}: ask at /infer/{wanted or view.name}")
    images = asked.image if isinstance(asked.image, list) else [asked.image]
    if not 1 <= len(images) <= _MOST_PICTURES:
        raise BadInput(f"{len(images)} pictures came; 1 to {_MOST_PICTURES} go in a request")
    several = len(images) > 1
    pictures = [_picture(image, f"image[{index}]" if several else "image") for index, image in enumerate(images)]
    work = Work(model=view.name, options=encode_options(_options(view, asked)), client=client_of(request))
    jobs = [context.service.picture(work, i if several else None, picture) for i, picture in enumerate(pictures)]
    answers = await context.link.together(jobs)
    results = [_result(answer, asked) for answer in answers]
    if asked.visualize_predictions:
        for result, picture, answer in zip(results, pictures, answers, strict=True):
            result["visualization"] = await _visualized(picture, answer)
    return json_response(results if isinstance(asked.image, list) else results[0])


def _picture(image: _Image, what: str) -> bytes:
    if image.type == "url":
        raise BadInput(f"{what}.type is url: this server fetches nothing; send the picture as base64")
    if image.type == "numpy":
        raise BadInput(f"{what}.type is numpy, a pickled array, which is never unpacked here; send base64")
    if image.type != "base64":
        raise BadInput(f"{what}.type is {image.type[:40]!r}; base64 is taken")
    return base64_bytes(image.value, f"{what}.value")


def _options(view: ModelView, asked: _Infer) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if asked.confidence is None:
        options["confidence"] = CONFIDENCE
    elif isinstance(asked.confidence, str):
        if asked.confidence not in ("best", "default"):
            raise BadInput(f"confidence is {asked.confidence[:40]!r}; a number, best or default is taken")
    else:
        options["confidence"] = asked.confidence
    if view.task == "classify":
        return options
    options["iou"] = IOU if asked.iou_threshold is None else asked.iou_threshold
    named: dict[str, Any] = {
        "class_filter": asked.class_filter or None,
        "class_agnostic": asked.class_agnostic_nms,
        "max_detections": asked.max_detections,
        "max_candidates": asked.max_candidates,
    }
    if view.task == "segment":
        named |= {
            "mask_decode_mode": asked.mask_decode_mode,
            "tradeoff_factor": asked.tradeoff_factor,
            "mask_format": asked.response_mask_format,
        }
    return options | {name: value for name, value in named.items() if value is not None}


def _result(answer: Answer, asked: _Infer) -> dict[str, Any]:
    result = answer.to_dict()
    if asked.keypoint_confidence is not None:
        for prediction in result["predictions"]:
            if isinstance(prediction, dict) and "keypoints" in prediction:
                prediction["keypoints"] = [
                    point for point in prediction["keypoints"] if point["confidence"] >= asked.keypoint_confidence
                ]
    return result


async def _visualized(picture: bytes, answer: Answer) -> str:
    """The picture with its answer drawn on it, a JPEG in base64; drawn beside the event loop, which others wait for."""
    return base64.b64encode(await asyncio.to_thread(drawn, picture, answer)).decode()


async def infer_zero(request: web.Request) -> web.Response:
    """Version 0: base64 as the body whatever its type says, or a form's part `file`; options in the query."""
    context = request.app[CONTEXT]
    await check_key(request, None)
    query: Mapping[str, str] = once_each(request.query)
    if "image" in query:
        raise BadInput("image= names something to fetch, and this server fetches nothing; send the picture's bytes")
    identifier = f"{request.match_info['project']}/{request.match_info['number']}"
    view, _ = await context.service.view(await _meant(request, identifier))
    async with context.bodies.read(request) as body:
        if request.content_type == "multipart/form-data":
            picture, fields = picture_of_form(request.headers.get("Content-Type", ""), body)
            check_apart(query, fields)
            query = {**fields, **query}
        else:
            picture = base64_bytes(bytes(body).decode("ascii", "replace"), "the body")
    check_spelling(query, _ZERO, _IGNORED)
    options: dict[str, Any] = {"confidence": _fraction(query, "confidence", CONFIDENCE)}
    if view.task != "classify":
        options["iou"] = _fraction(query, "overlap", IOU)
    if query.get("classes"):
        options["class_filter"] = [part.strip() for part in query["classes"].split(",")]
    work = Work(model=view.name, options=encode_options(options), client=client_of(request))
    answer = await context.link.picture(work, picture)
    kind = query.get("format", "json")
    if kind == "json":
        return json_response(answer.to_dict())
    if kind == "image":
        return web.Response(body=await asyncio.to_thread(drawn, picture, answer), content_type="image/jpeg")
    if kind == "image_and_json":
        return json_response(answer.to_dict() | {"visualization": await _visualized(picture, answer)})
    raise BadInput(f"format is {kind[:40]!r}; json, image and image_and_json are")


def _fraction(query: Mapping[str, str], name: str, default: float) -> float:
    """A number of 0 to 1; from 1 on it is per cent, as Roboflow's hosted API takes it."""
    text = query.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        raise BadInput(f"{name} is {text[:40]!r}; a number is needed") from None
    value = value / 100 if value >= 1 else value
    if not 0 <= value <= 1:
        raise BadInput(f"{name} is {text[:40]!r}; 0 to 1, or 1 to 100 per cent, is taken")
    return value
