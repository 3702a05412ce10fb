"""A model's counters in the form of Triton's statistics extension. Pure.

Times and counts are those of the gateway and the dispatcher, so every door and our own wire are in them. `count` is of
requests, `inference_count` of their rows or pictures, `execution_count` of the batches that these went in. What its
client withdrew is no failure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from parallel_infer.doors.model_view import ModelView
from parallel_infer.errors import Dropped
from parallel_infer.model_spec import PICTURE

# the parts of a job's time (docs/protocol.md, Timing) that make up each of Triton's
_PARTS = {
    "queue": ("queue", "batch_wait"),
    "compute_input": ("decode",),
    "compute_infer": ("infer",),
    "compute_output": ("post_wait", "postprocess"),
}


def model_statistics(view: ModelView, picture: bool, status: Mapping[str, Any]) -> dict[str, Any]:
    """The counters of one model under one of its two names."""
    served = view.name if picture else view.file_model
    counted = status.get("gateway", {}).get("models", {}).get(served, {})
    ends = counted.get("ends", {})
    times = status.get("times", {}).get("models", {}).get(served, {})
    jobs = int(ends.get("answered", 0))  # rows, or pictures
    requests = int(counted.get("requests", 0))
    failed = sum(int(count) for end, count in ends.items() if end not in ("answered", Dropped.code))
    batches = sum(
        int(model.get("batches", 0))
        for key, model in status.get("models", {}).items()
        if model.get("name", key) == served
    )

    def took(*parts: str) -> dict[str, int]:
        seconds = sum(float(times.get(part, {}).get("seconds", 0.0)) for part in parts)
        # Jobs of one request run at the same time: it took about as long as one of them.
        return {"count": requests, "ns": round(1e9 * seconds * requests / jobs) if jobs else 0}

    nothing = {"count": 0, "ns": 0}
    return {
        "name": view.name + PICTURE * picture,
        "version": str(view.version),
        "last_inference": round(1000 * counted.get("last", 0.0)),
        "inference_count": jobs,
        "execution_count": batches,
        "inference_stats": {
            "success": took("total"),
            "fail": {"count": failed, "ns": 0},
            **{name: took(*parts) for name, parts in _PARTS.items()},
            "cache_hit": nothing,
            "cache_miss": nothing,
        },
        "response_stats": {},
        "batch_stats": [],
        "memory_usage": [],
    }
