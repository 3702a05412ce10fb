"""The default settings of a model on this machine, and what else the machine allows."""

from __future__ import annotations

from typing import cast, get_args

from parallel_infer.config.schema import ServerConfig
from parallel_infer.errors import ConfigError
from parallel_infer.execution_providers import PROVIDERS, SLOW_TO_BUILD, ProviderName
from parallel_infer.inference.options import SessionConfig
from parallel_infer.inference.providers import choose, survey
from parallel_infer.machine.cores import usable_cores
from parallel_infer.model_spec import PrecisionName
from parallel_infer.supervisor.plan import make_plan
from parallel_infer.tools.tuning.settings import Settings, Space

DEFAULTS = tuple(name for name in PROVIDERS if name not in SLOW_TO_BUILD)


def default_settings(config: ServerConfig) -> tuple[Settings, Space]:
    """What a server of `config`, which holds one model, does by itself; the space lists no providers yet."""
    plan = make_plan(config)
    (model,) = plan.models
    provider, precision = _choice(model.session.provider, model.session.precision)
    settings = Settings(
        provider=provider,
        precision=precision,
        instances=model.instances,
        threads=model.session.threads,
        max_batch_size=model.max_batch,
        decode_workers=plan.decode_workers,
    )
    return settings, Space(usable_cores(), (), bool(model.fixed_batch))


def available(providers: tuple[str, ...]) -> list[tuple[str, str]]:
    """Provider and precision, those that this machine has of these providers."""
    found: list[tuple[str, str]] = []
    for provider in providers:
        for precision in get_args(PrecisionName):
            try:
                choice = _choice(cast(ProviderName, provider), precision)
            except ConfigError:
                continue
            if choice not in found:
                found.append(choice)
    return found


def _choice(provider: ProviderName, precision: PrecisionName) -> tuple[str, str]:
    config = SessionConfig(provider=provider, precision=precision)
    choice = choose(config, survey(config))
    return choice.provider, choice.precision
