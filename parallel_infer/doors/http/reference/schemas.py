"""The bodies of the HTTP door as JSON Schema, under the names by which `operations` refers to them. Pure."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    """A reference to one of these schemas."""
    return {"$ref": f"#/components/schemas/{name}"}


def thing(*required: str, **properties: Schema) -> Schema:
    """An object with these properties, and any others."""
    found: Schema = {"type": "object", "properties": properties}
    return found | ({"required": list(required)} if required else {})


def listed(item: Schema) -> Schema:
    """A list of such items."""
    return {"type": "array", "items": item}


def text(description: str = "", **more: Any) -> Schema:
    """A text."""
    return {"type": "string"} | ({"description": description} if description else {}) | more


def number(description: str = "", **more: Any) -> Schema:
    """A number."""
    return {"type": "number"} | ({"description": description} if description else {}) | more


def whole(description: str = "", **more: Any) -> Schema:
    """A whole number."""
    return {"type": "integer"} | ({"description": description} if description else {}) | more


def flag(description: str = "") -> Schema:
    """True or false."""
    return {"type": "boolean"} | ({"description": description} if description else {})


_SHAPE = listed(whole()) | {"description": "-1 is a dimension of any size."}
_PARAMETERS = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
_BASE64 = text("A picture in base64, with or without a data: prefix.", contentEncoding="base64")

OPTIONS: Schema = thing(
    confidence=number("Least score of an object.", minimum=0, maximum=1),
    iou=number("Overlap above which the worse of two boxes goes.", minimum=0, maximum=1),
    class_filter=text("Names or numbers of classes, with commas between them."),
    max_detections=whole("Most objects of an answer.", minimum=1),
) | {"description": "Options of the model's task; an unknown one is refused by name.", "additionalProperties": True}

_POINT = thing("x", "y", x=number(), y=number())
_KEYPOINT = thing("x", "y", x=number(), y=number(), confidence=number(), class_id=whole()) | {
    "description": "One named point of an object."
}
_PREDICTION = thing(
    "class",
    "confidence",
    **{"class": text("The class's name.")},
    class_id=whole(),
    confidence=number(minimum=0, maximum=1),
    x=number("Centre of the box, in pixels of the picture."),
    y=number(),
    width=number(),
    height=number(),
    detection_id=text(),
    points=listed(_POINT) | {"description": "The outline of a mask, or the corners of a rotated box."},
    rotation=number("Of a rotated box, in radians."),
    rle={"type": "object", "description": "A mask, run-length encoded: size and counts."},
    keypoints=listed(_KEYPOINT),
)
_STATISTIC = thing("count", "ns", count=whole(), ns=whole("Nanoseconds, all together."))
_PORT = thing("name", "datatype", "shape", name=text(), datatype=text("FP32, BYTES, ..."), shape=_SHAPE)
_CONFIGURED = thing("name", "data_type", "dims", name=text(), data_type=text("TYPE_FP32, ..."), dims=_SHAPE)

SCHEMAS: dict[str, Schema] = {
    "Error": thing(
        *("code", "error", "message"),
        code=text("BAD_INPUT, UNKNOWN_MODEL, ..."),
        error=text("What is wrong."),
        message=text("The same text."),
    ),
    "Answer": thing(
        "time",
        inference_id=text(),
        time=number("Seconds in the server."),
        image=thing("width", "height", width=whole(), height=whole()),
        predictions={
            "oneOf": [listed(ref("Prediction")), {"type": "object"}],
            "description": "A list; of a classifier with several labels at a time a map by class.",
        },
        top=text("The best class, of a classifier."),
        confidence=number("Its score."),
    ),
    "Prediction": _PREDICTION,
    "Picture": thing("image", image=_BASE64, api_key=text("A key, where the server asks for one."))
    | {"description": "A picture, and options of the task beside it.", "additionalProperties": True},
    "Live": thing("live", live=flag()),
    "Ready": thing("ready", ready=flag("Whether a picture gets through every stage.")),
    "Server": thing(*("name", "version", "extensions"), name=text(), version=text(), extensions=listed(text())),
    "Model": thing(
        *("name", "versions", "platform", "inputs", "outputs"),
        name=text(),
        versions=listed(text()),
        platform=text(),
        inputs=listed(_PORT),
        outputs=listed(_PORT),
    ),
    "Configuration": thing(
        *("name", "platform", "max_batch_size", "input", "output"),
        name=text(),
        platform=text(),
        backend=text(),
        max_batch_size=whole("0 where the first dimension is no batch."),
        input=listed(_CONFIGURED),
        output=listed(_CONFIGURED),
        parameters={"type": "object", "description": "`metadata` is what Ultralytics reads of a model."},
    ),
    "Statistics": thing(
        "model_stats",
        model_stats=listed(
            thing(
                *("name", "version", "inference_count", "inference_stats"),
                name=text(),
                version=text(),
                inference_count=whole(),
                execution_count=whole(),
                inference_stats={"type": "object", "additionalProperties": _STATISTIC},
            )
        ),
    ),
    "Index": listed(
        thing(
            *("name", "version", "state"),
            name=text(),
            version=text(),
            state=text(enum=["READY", "UNAVAILABLE", "LOADING"]),
            reason=text(),
        )
    ),
    "RepositoryParameters": thing(parameters=_PARAMETERS),
    "InferenceRequest": thing(
        "inputs",
        id=text("Comes back with the answer."),
        parameters=_PARAMETERS | {"description": "priority (1 is the highest), timeout (microseconds), options."},
        inputs=listed(
            thing(
                *("name", "datatype", "shape"),
                name=text(),
                datatype=text(),
                shape=listed(whole(minimum=0)),
                parameters=_PARAMETERS | {"description": "binary_data_size: bytes behind the JSON."},
                data=listed({}) | {"description": "Flat or nested as `shape` says; pictures in base64."},
            )
        ),
        outputs=listed(
            thing(
                "name",
                name=text(),
                parameters=_PARAMETERS | {"description": "binary_data, classification (best n classes)."},
            )
        )
        | {"description": "None named: all."},
    ),
    "InferenceResponse": thing(
        *("model_name", "model_version", "outputs"),
        id=text(),
        model_name=text(),
        model_version=text(),
        outputs=listed(
            thing(
                *("name", "datatype", "shape"),
                name=text(),
                datatype=text(),
                shape=listed(whole(minimum=0)),
                parameters=_PARAMETERS,
                data=listed({}),
            )
        ),
    ),
    "RoboflowServer": thing("name", "version", "uuid", name=text(), version=text(), uuid=text()),
    "RoboflowRegistry": thing(
        "models",
        models=listed(
            thing(
                *("model_id", "task_type"),
                model_id=text(),
                task_type=text(),
                batch_size=whole(),
                input_height=whole(),
                input_width=whole(),
            )
        ),
    ),
    "RoboflowModel": thing(model_id=text(), api_key=text()),
    "RoboflowPicture": thing("type", "value", type=text(enum=["base64"]), value=_BASE64),
    "RoboflowRequest": thing(
        *("model_id", "image"),
        model_id=text("NAME/1, NAME or an alias."),
        api_key=text(),
        image={"oneOf": [ref("RoboflowPicture"), listed(ref("RoboflowPicture"))]},
        confidence={"oneOf": [number(minimum=0, maximum=1), text(enum=["default", "best"])], "default": 0.4},
        iou_threshold=number(minimum=0, maximum=1, default=0.3),
        class_filter=listed(text()),
        class_agnostic_nms=flag(),
        max_detections=whole(minimum=1),
        max_candidates=whole(minimum=1),
        mask_decode_mode=text(),
        tradeoff_factor=number(),
        response_mask_format=text(enum=["polygon", "rle"]),
        keypoint_confidence=number("Keypoints below it are left out."),
        visualize_predictions=flag("Adds `visualization`, a JPEG in base64."),
    ),
}
