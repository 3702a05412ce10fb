"""The execution providers by name, and what is to be known of each outside `inference`. Imports nothing of weight."""

from __future__ import annotations

from typing import Literal, get_args

ProviderName = Literal["auto", "cpu", "openvino", "cuda", "tensorrt"]
PROVIDERS: tuple[ProviderName, ...] = get_args(ProviderName)[1:]  # "auto" is none, it chooses one
ON_GPU: frozenset[ProviderName] = frozenset({"cuda", "tensorrt"})
CACHING: frozenset[ProviderName] = frozenset({"openvino", "tensorrt"})  # compile something that can be kept
SLOW_TO_BUILD: frozenset[ProviderName] = frozenset({"tensorrt"})  # for minutes, so they must be asked for
