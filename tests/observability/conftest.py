"""Servers with a metrics page, and what stands on it."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.engine.serving import Server

LINEAR = """
bind = ["ipc://{{folder}}/door"]
provider = "cpu"
threads = 1
decode_workers = 1
postprocess_workers = 1
shared_memory_mb = 64
{more}
instances = 1

[models.pair]
path = "{{models}}/pair.onnx"
"""


class Page:
    """A metrics page as Prometheus reads it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/metrics"

    def read(self) -> list[Any]:
        with urllib.request.urlopen(self.url, timeout=20) as reply:
            return list(text_string_to_metric_families(reply.read().decode()))

    def samples(self) -> dict[str, list[tuple[Mapping[str, str], float]]]:
        """Labels and values by the name of the sample."""
        found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
        for family in self.read():
            for sample in family.samples:
                found.setdefault(sample.name.removeprefix("parallel_infer_"), []).append((sample.labels, sample.value))
        return found

    def value(self, name: str, **labels: str) -> float:
        """The one sample of this name whose labels include these."""
        (found,) = (value for given, value in self.samples()[name] if all(given.get(k) == v for k, v in labels.items()))
        return found


@pytest.fixture
def start_one_of_each(start_server: Callable[..., Server]) -> Callable[..., Server]:
    """Starts a server of the model pair with one worker of each stage; `more` lines of TOML."""
    return lambda more="": start_server(toml=LINEAR.format(more=more))
