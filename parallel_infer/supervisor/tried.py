"""Settings of models by a trial: kept from an earlier start, found now, or the default, and always a word why."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from parallel_infer.config.schema import ModelConfig, ServerConfig
from parallel_infer.config.sources import zoo_models
from parallel_infer.errors import ConfigError, InferError
from parallel_infer.execution_providers import SLOW_TO_BUILD
from parallel_infer.ipc.messages import ModelPlan
from parallel_infer.loading import load_by_name
from parallel_infer.machine.cores import usable_cores
from parallel_infer.machine.memory import available_memory
from parallel_infer.machine.occupation import moment, taken_by_others
from parallel_infer.model_spec import ModelSpec
from parallel_infer.supervisor.child_specs import POLICY, STAGES
from parallel_infer.supervisor.memory_report import FOLDER, shared_memory
from parallel_infer.supervisor.plan import UNTRIED, Plan, gpus_of, plan_model, planned_again, with_chosen
from parallel_infer.trial.record import Record, Records, ident, key_of, machine_facts, trials_folder
from parallel_infer.trial.settings import Choice, Setting
from parallel_infer.trial.stand import Told
from parallel_infer.trial.trial import Unusable, run_trial
from parallel_infer.trial.worker import Code

_ROUND = 0.6  # seconds of a measurement that are counted at least,
_ATTEMPTS = 2  # trials whose time was over, after which the next start waits for none
_BUSY = 0.2  # part of the cores that other programs take, beyond which measurements are theirs as well
_SHARE = 0.03  # or this part of the time, where there is little
GIVEN = "not tried: instances, threads and max_batch_size are given"
SLOW = "not tried: tensorrt builds engines for minutes; the default (`parallel-infer tune --provider tensorrt` tries)"
log = logging.getLogger(__name__)


class _Model(NamedTuple):
    """One model of a plan, and what may be decided about it."""

    plan: ModelPlan
    choice: Choice
    make: Callable[[Setting], ModelPlan]
    ident: bytes


def tried(config: ServerConfig, plan: Plan, folder: Path, waiting: Callable[[str], object]) -> Plan:
    """The plan with what a trial chose, at this start or at an earlier one.

    `folder` is the run's; `waiting` is told why the start takes longer. Nothing here keeps a server from starting: what
    goes wrong is a warning, and the default is served.
    """
    known = known_settings(config, plan)
    if known.trial:
        return known
    models = sorted(_models(config, plan), key=lambda model: model.ident)
    try:
        records = Records(trials_folder(config.cache))
        with records.locked() as alone:
            if not alone:
                return _default(plan, config, "not tried: another server here tries its models at the moment")
            waiting(
                f"trying settings of {_names(models)} for at most {config.trial_seconds:g} s (option trial_seconds)"
            )
            record = _run(config, plan, models, folder / "trial")
            record = _kept(records, _key(config, plan, models), record)
    except (ConfigError, InferError, Unusable, OSError, msgspec.MsgspecError) as error:
        log.warning("settings were not tried, and the default is served (option trial): %s", error)
        return _default(plan, config, f"not tried: {error}")
    for setting, why in record.unusable.items():
        log.warning("the setting %s cannot be used: %s", setting, why)
    found = _chosen(config, plan, models, record)
    log.info("%s: %s", _names(models), found.trial)
    return found


def known_settings(config: ServerConfig, plan: Plan) -> Plan:
    """The plan with what an earlier trial chose; its `trial` is empty where only a trial can tell."""
    models = sorted(_models(config, plan), key=lambda model: model.ident)
    if not config.trial:
        return _default(plan, config, UNTRIED)
    if not any(choice.instances or choice.threads or choice.max_batch for _, choice, _, _ in models):
        return _default(plan, config, GIVEN)
    if any(model.plan.session.provider in SLOW_TO_BUILD for model in models):
        return _default(plan, config, SLOW)
    try:
        record = Records(trials_folder(config.cache)).find(_key(config, plan, models), len(models))
    except ConfigError as error:
        log.warning("what an earlier trial found is not used: %s", error)
        return plan
    if record is None or _is_worth_another(record, config):
        return plan
    return _chosen(config, plan, models, record)


def _kept(records: Records, key: str, record: Record) -> Record:
    """The record as it is kept, with the attempts before it; what cannot be kept is used all the same."""
    before = None
    with contextlib.suppress(ConfigError):  # a damaged one, which was told
        before = records.find(key, len(record.settings))
    if before is not None and before.trial_seconds == record.trial_seconds:
        record = msgspec.structs.replace(record, attempts=before.attempts + 1)
    try:
        records.save(key, record)
    except ConfigError as error:
        log.warning("what the trial found cannot be kept, so that the next start tries again: %s", error)
    return record


def _is_worth_another(record: Record, config: ServerConfig) -> bool:
    """Whether a trial whose time was over is done once more: there is more time, or the machine may have been busy."""
    if record.complete and record.others <= _BUSY:
        return False
    return record.trial_seconds < config.trial_seconds or record.attempts < _ATTEMPTS


def _run(config: ServerConfig, plan: Plan, models: list[_Model], folder: Path) -> Record:
    stages = load_by_name(STAGES)
    told = Told(
        folder=folder,
        code=Code(stages["infer"], stages["decode"], POLICY),
        plans=[model.make for model in models],
        default=tuple(model.choice.default for model in models),
        decode_workers=plan.decode_workers,
        round=min(_ROUND, _SHARE * config.trial_seconds),
        log_format=config.log_format,
        log_level="debug" if config.log_level == "debug" else "error",  # what is to be said, workers say once more
    )
    began, before = time.monotonic(), moment()
    found = run_trial(
        told, [model.choice for model in models], usable_cores(), available_memory() // 2, config.trial_seconds
    )
    others = taken_by_others(before, moment(), usable_cores(), len(os.sched_getaffinity(0)))
    return Record(
        models=tuple(model.plan.name for model in models),
        settings=found.chosen if others <= _BUSY else told.default,
        rate=round(found.rate, 1),
        default_rate=round(found.default_rate, 1),
        gain=round(found.gain, 2),
        default=told.default,
        rates=found.rates,
        seconds=round(time.monotonic() - began, 1),
        unusable=found.unusable,
        complete=found.complete,
        others=round(others, 2),
        trial_seconds=config.trial_seconds,
    )


def _models(config: ServerConfig, plan: Plan) -> Iterator[_Model]:
    configs = config.models or zoo_models()
    for model in plan.models:
        of_model = configs[model.name]
        choice = _choice(config, of_model, model)
        make = partial(_with_setting, config, plan, model.spec)
        open_fields = bytes((choice.instances, choice.threads, choice.max_batch))
        yield _Model(model, choice, make, open_fields + ident(model))


def _choice(config: ServerConfig, of_model: ModelConfig, model: ModelPlan) -> Choice:
    return Choice(
        default=Setting(model.instances, model.session.threads, model.max_batch),
        instances=not (of_model.instances or config.instances),
        threads=not (of_model.threads or config.threads),
        max_batch=not (
            of_model.max_batch_size or config.max_batch_size or of_model.preferred_batch_size or model.fixed_batch
        ),
        gpus=gpus_of(config, of_model),
        most_batch=model.spec.largest_batch or 4096,
    )


def _with_setting(config: ServerConfig, plan: Plan, spec: ModelSpec, setting: Setting) -> ModelPlan:
    of_model = (config.models or zoo_models())[spec.name]
    return plan_model(config, of_model, spec, *plan.around, chosen=setting)


def _key(config: ServerConfig, plan: Plan, models: list[_Model]) -> str:
    facts = machine_facts() | {
        "cores": usable_cores(),
        "decode_workers": plan.decode_workers,
        "postprocess_workers": plan.postprocess_workers,
    }
    return key_of([model.ident for model in models], facts)


def _default(plan: Plan, config: ServerConfig, trial: str) -> Plan:
    return with_chosen(plan, config, {}, trial)


def _chosen(config: ServerConfig, plan: Plan, models: list[_Model], record: Record) -> Plan:
    chosen = {model.plan.name: setting for model, setting in zip(models, record.settings, strict=True)}
    return within(config, plan, with_chosen(plan, config, chosen, summary(record, list(chosen))), shared_memory().free)


def within(config: ServerConfig, default: Plan, chosen: Plan, free: int) -> Plan:
    """What was chosen, or less of it where `free` bytes of shared memory are too few: no reason not to start."""
    if chosen.total <= free:
        return chosen
    smaller = planned_again(chosen, config)
    if smaller.total <= free:
        return with_chosen(default, config, smaller.chosen, f"{chosen.trial}; {FOLDER} has no room for such batches")
    return _default(default, config, f"{chosen.trial}; {FOLDER} has no room for that, so the default is served")


def summary(record: Record, names: Sequence[str]) -> str:
    """What came of a trial of the models of these names, for people."""
    took = f"tried {len(record.rates)} settings in {record.seconds:g} s"
    more = "the next start tries again" if record.attempts < _ATTEMPTS else "with more trial_seconds it is tried again"
    if record.others > _BUSY:
        return f"{took}, but other programs took {record.others:.0%} of the cores meanwhile; the default, {more}"
    if not record.rates and record.complete:
        return "there was nothing else to try, or no memory for it; the default"
    if not record.rates:
        return f"{record.trial_seconds:g} s were too short to try settings (option trial_seconds); the default, {more}"
    short = "" if record.complete else f" (others did not fit into the time, option trial_seconds; {more})"
    default = _named(record.default, names)
    if record.settings == record.default:
        return f"{took}{short}: kept the default {default}, {record.rate:g}/s"
    chosen = f"{took}{short}: chose {_named(record.settings, names)}"
    if len(names) == 1:
        return f"{chosen}, {record.rate:g}/s against {record.default_rate:g}/s of the default {default}"
    # Each model counts alike, so what is better may be less of a quick model and more of a slow one.
    together = f"all together {record.rate:g}/s against {record.default_rate:g}/s"
    return f"{chosen}, on average {record.gain:g} times the rates of the default {default}; {together}"


def _named(settings: Sequence[Setting], names: Sequence[str]) -> str:
    """Settings for people; of several models, whose each is."""
    if len(settings) == 1:
        return str(settings[0])
    return " and ".join(f"{name} {setting}" for name, setting in zip(names, settings, strict=True))


def _names(models: list[_Model]) -> str:
    return ", ".join(model.plan.name for model in models)
