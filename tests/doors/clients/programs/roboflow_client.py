"""Roboflow's inference SDK with supervision: roboflow_client.py HTTP PICTURES [KEY]. Prints what they were told."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import supervision as sv
from inference_sdk import InferenceConfiguration, InferenceHTTPClient
from inference_sdk.http.errors import HTTPCallErrorError

HTTP, PICTURES = sys.argv[1], Path(sys.argv[2])
COFFEE, ASTRONAUT = str(PICTURES / "coffee.png"), str(PICTURES / "astronaut.png")
client = InferenceHTTPClient(f"http://{HTTP}", api_key=(*sys.argv[3:], "none")[0])


def classes(answer: Any) -> list[str]:
    return [found["class"] for found in answer["predictions"]]


def refusal(model: str) -> str:
    try:
        client.infer(COFFEE, model_id=model)
    except HTTPCallErrorError as error:
        return f"{error.status_code} {error.api_message}"
    return ""


def both(found: dict[str, Any]) -> None:
    """What versions 1 and 0 of the API have in common."""
    found["one"] = classes(client.infer(COFFEE, model_id="coco/3"))
    found["array"] = classes(client.infer(cv2.imread(COFFEE), model_id="detector/1"))
    found["list"] = [classes(answer) for answer in client.infer([COFFEE, ASTRONAUT, COFFEE], model_id="coco/3")]
    found["async"] = classes(asyncio.run(client.infer_async(COFFEE, model_id="coco/3")))
    found["async list"] = len(asyncio.run(client.infer_async([COFFEE] * 5, model_id="coco/3")))
    found["refused"] = refusal("nobody/1")
    masks = sv.Detections.from_inference(client.infer(ASTRONAUT, model_id="segmenter/1"))
    found["masks"] = [list(masks.mask.shape), bool(masks.mask.any())]
    points = sv.KeyPoints.from_inference(client.infer(ASTRONAUT, model_id="pose/1"))
    found["points"] = list(points.xy.shape)
    boxes = sv.Detections.from_inference(client.infer(COFFEE, model_id="detector/1"))
    found["boxes"] = [boxes.xyxy.tolist(), list(boxes.data["class_name"])]
    with client.use_configuration(InferenceConfiguration(confidence_threshold=0.01)):
        answer = client.infer(str(PICTURES / "chelsea.png"), model_id="classifier/1")
        found["top"] = [answer["top"], answer["confidence"], "cat" in " ".join(classes(answer))]
    with client.use_configuration(InferenceConfiguration(confidence_threshold=0.99)):
        found["none"] = classes(client.infer(COFFEE, model_id="coco/3"))


def version_1() -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": client.get_server_info().name,
        "models": {model.model_id: model.task_type for model in client.list_loaded_models().models},
        "description": client.get_model_description("coco/3").input_height,
    }
    both(found)
    client.load_model("detector/1", set_as_default=True)
    found["default"] = classes(client.infer(COFFEE))
    found["alias"] = classes(client.infer(COFFEE, model_id="yolov8n-640"))
    configuration = InferenceConfiguration(
        visualize_predictions=True, class_filter=["person"], max_detections=1, confidence_threshold=0.1
    )
    with client.use_configuration(configuration):
        answer = client.infer(ASTRONAUT, model_id="coco/3")
        found["configured"] = [classes(answer), len(answer["visualization"]) > 1000]
    try:
        client.unload_model("nobody/1")
    except HTTPCallErrorError as error:
        found["unload"] = f"{error.status_code} {error.api_message}"
    return found


def version_0() -> dict[str, Any]:
    client.select_api_v0()
    found: dict[str, Any] = {}
    both(found)
    for kind in ("json", "image", "image_and_json"):
        with client.use_configuration(InferenceConfiguration(format=kind)):
            answer = client.infer(COFFEE, model_id="coco/3")
            found[kind] = [len(answer.get("visualization") or "") > 1000, "predictions" in answer]
    return found


print(json.dumps({"1": version_1(), "0": version_0()}))
