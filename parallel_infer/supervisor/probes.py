"""What a model file is, found out in throwaway processes: a file that crashes the runtime harms nobody."""

from __future__ import annotations

from multiprocessing.connection import wait

import msgspec

from parallel_infer.config.schema import ModelConfig, ServerConfig
from parallel_infer.errors import ModelRejected
from parallel_infer.ipc.messages import Probed, StartFailed
from parallel_infer.model_files.store import CopyOrder, ModelStore
from parallel_infer.model_spec import ModelSpec
from parallel_infer.process.options import ProbeOptions
from parallel_infer.process.spawn import Process

_PROBE = "stages.pipeline:probe"


def probe(
    models: dict[str, ModelConfig], config: ServerConfig, store: ModelStore | None = None
) -> dict[str, ModelSpec]:
    """What each model file is. Raises ModelRejected."""
    orders = {name: store.order() if store is not None else CopyOrder() for name in models}
    waiting = [(name, start_probe(name, model, config, orders[name])) for name, model in models.items()]
    specs = {}
    try:
        for name, process in waiting:
            if not wait([process.connection], config.start_timeout_ms / 1000):
                raise ModelRejected(f"model {name!r}: {too_slow(config)}")
            spec = probed(name, process)
            assert spec is not None  # nothing was known that could be unchanged
            specs[name] = store.keep(spec) if store is not None else spec
    finally:
        for _, process in waiting:
            process.kill()
            process.close()
    return specs


def start_probe(name: str, model: ModelConfig, config: ServerConfig, order: CopyOrder, known: str = "") -> Process:
    """Start a process that looks into a model file and says what it found, or that its digest is still `known`."""
    options = ProbeOptions(
        log_format=config.log_format,
        log_level=config.log_level,
        name=name,
        path=model.path,
        overrides=msgspec.Raw(msgspec.msgpack.encode(model.overrides())),
        uint8_rows=config.uint8_rows if model.uint8_rows is None else model.uint8_rows,
        order=order,
        known=known,
        start_timeout=config.start_timeout_ms / 1000,
    )
    return Process(f"probe {name}", _PROBE, options)


def probed(name: str, process: Process) -> ModelSpec | None:
    """What a probe has found, None where nothing has changed; call it once its connection is readable.

    Raises ModelRejected.
    """
    message = process.receive()
    if isinstance(message, Probed):
        return message.spec
    if isinstance(message, StartFailed):
        raise ModelRejected(f"model {name!r}: {message.text}")
    process.ended(None)
    raise ModelRejected(f"model {name!r}: loading it ended the probing process (exit code {process.exit_code})")


def too_slow(config: ServerConfig) -> str:
    """What to say of a model that takes too long."""
    return f"loading it took longer than {config.start_timeout_ms / 1000:.0f} s (option start_timeout_ms)"
