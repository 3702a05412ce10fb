"""What the trial at a first start chooses, beside what `tune` finds and the default, served side by side and in turns.

    python benchmarks/trial.py [--models zoo:classifier,zoo:detector,resnet50] [--provider auto] [--mix]
                               [--in-flight 32] [--seconds 3] [--rounds 5] [--trial-seconds 20]

For each model: a server with an empty cache tries its settings; then instances, threads, largest batch and decode
workers are searched as `parallel-infer tune` does, with the provider the server takes; then default, the trial's choice
and the search's best two are measured in turns. `--mix` serves all of the models at once instead, the trial's choice
beside the default, with so many pictures in flight for each of them. resnet50 and yolov8n are graphs of those layers
with random weights, made here.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import print_header
from benchmarks.peers.graphs import MAKERS
from parallel_infer import Client
from parallel_infer.config.sources import load_config
from parallel_infer.model_files.location import find_model
from parallel_infer.tools.bench.generators import Generators, Target
from parallel_infer.tools.bench.measure import Bench, Demand, source_for
from parallel_infer.tools.bench.payloads import shipped_pictures
from parallel_infer.tools.local_server import local_server
from parallel_infer.tools.tuning.machine_space import default_settings
from parallel_infer.tools.tuning.search import Outcome, Throughput, Trial, explore, finalists
from parallel_infer.tools.tuning.settings import Settings
from parallel_infer.tools.tuning.trials import Finals, Subject

Models = dict[str, str]  # name to path


def found_by_trial(models: Models, arguments: argparse.Namespace) -> dict[str, Any]:
    """What a first start chooses: the record that it keeps."""
    words = [word for name, path in models.items() for word in ("--model", f"{name}={path}")]
    words += ["--provider", arguments.provider, "--trial", "--trial-seconds", str(arguments.trial_seconds)]
    with tempfile.TemporaryDirectory() as cache, changed("XDG_CACHE_HOME", cache):
        with local_server(*words, "--log-level", "warning") as server, Client(server.address) as client:
            print(
                f"{server.seconds_to_ready:.1f} s to ready; {next(iter(client.status()['models'].values()))['trial']}"
            )
        records = list(Path(cache).rglob("*.json"))
        if not records:
            raise SystemExit("the server has tried nothing; the line above and its log say why")
        record: dict[str, Any] = json.loads(records[0].read_text())
    print("; ".join(f"{setting}: {rate}/s" for setting, rate in record["rates"].items()))
    return record


def of_one(name: str, path: str, folder: str, arguments: argparse.Namespace) -> None:
    """One model: the trial's choice beside the search's."""
    record = found_by_trial({name: path}, arguments)
    (chosen,) = record["settings"]
    config = load_config({"models": [f"{name}={path}"], "provider": arguments.provider}, None, {})
    base, space = default_settings(config)
    tried = replace(base, instances=chosen["instances"], threads=chosen["threads"], max_batch_size=chosen["max_batch"])
    subject = Subject(name, path, folder, Demand(in_flight=arguments.in_flight, seconds=arguments.seconds))

    def measure(settings: Settings) -> Outcome:
        outcome = subject.measure(settings)
        print(
            f"  searching: {difference(settings, base)}: {outcome.failure or f'{outcome.per_second:.1f}/s'}", flush=True
        )
        return outcome

    trials = explore(base, space.axes(), measure, Throughput())
    finals = finalists(trials, Throughput())
    if tried not in [trial.settings for trial in finals]:
        finals.append(Trial(tried, Outcome(in_flight=arguments.in_flight)))
    with Finals(subject, finals) as running:
        for number in range(arguments.rounds):
            for trial in running.round(number):
                print(f"  round {number + 1}: {difference(trial.settings, base)}: {trial.rounds[-1].per_second:.1f}/s")
    rates = {trial.settings: trial.median().per_second for trial in finals}
    best = max(rates, key=lambda settings: rates[settings])
    print(f"\n| {name} | setting | pictures/s | of the best |\n|---|---|---|---|")
    for label, settings in (("default", base), ("trial", tried), ("best of the search", best)):
        print(
            f"| {label} | {difference(settings, base)} | {rates[settings]:.1f} | {rates[settings] / rates[best]:.2f} |"
        )
    print(flush=True)


def of_mix(models: Models, folder: str, arguments: argparse.Namespace) -> None:
    """All models in one server: the trial's choice beside the default."""
    record = found_by_trial(models, arguments)
    settings = dict(zip(record["models"], record["settings"], strict=True))
    with contextlib.ExitStack() as stack:
        sides = {
            "default": stack.enter_context(served(models, {}, folder, arguments)),
            "trial": stack.enter_context(served(models, settings, folder, arguments)),
        }
        rounds: dict[str, list[list[float]]] = {label: [] for label in sides}
        for number in range(arguments.rounds):
            for label in list(sides) if number % 2 == 0 else list(sides)[::-1]:
                rounds[label].append(together(sides[label], arguments, number))
    print(f"\n| setting | {' | '.join(models)} | all |\n|---|{'---|' * (len(models) + 1)}")
    for label, rates in rounds.items():
        middle = [statistics.median(of_model) for of_model in zip(*rates, strict=True)]
        print(f"| {label} | {' | '.join(f'{rate:.1f}' for rate in middle)} | {sum(middle):.1f} |")


@contextlib.contextmanager
def served(
    models: Models, settings: dict[str, Any], folder: str, arguments: argparse.Namespace
) -> Iterator[list[Bench]]:
    """A server of these models with settings by hand, or the default, and a load for each of them."""
    keys = {"instances": "instances", "threads": "threads", "max_batch": "max_batch_size"}
    lines = [f"provider = {json.dumps(arguments.provider)}", "trial = false"]
    for name, path in models.items():
        lines += [f"[models.{json.dumps(name)}]", f"path = {json.dumps(path)}"]
        lines += [f"{keys[key]} = {value}" for key, value in settings.get(name, {}).items()]
    with contextlib.ExitStack() as stack:
        file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "server.toml"
        file.write_text("\n".join(lines))
        server = stack.enter_context(local_server("--config", str(file), "--log-level", "warning"))
        client = stack.enter_context(Client(server.address, timeout=60))
        benches = []
        for facts in client.models():
            target = Target(server.address, source_for(facts, folder))
            generators = stack.enter_context(Generators(target))
            generators.ready()
            benches.append(Bench(client, generators, facts["name"], tuple(server.processes())))
        yield sorted(benches, key=lambda bench: list(models).index(bench.model))


def together(benches: Sequence[Bench], arguments: argparse.Namespace, seed: int) -> list[float]:
    """Pictures per second of each model, all under load at once."""
    demand = Demand(in_flight=arguments.in_flight, seconds=arguments.seconds)
    with ThreadPoolExecutor(len(benches)) as pool:
        return [level.per_second for level in pool.map(lambda bench: bench.measure(demand, seed), benches)]


@contextlib.contextmanager
def changed(variable: str, value: str) -> Iterator[None]:
    """An environment variable with another value meanwhile."""
    before = os.environ.get(variable)
    os.environ[variable] = value
    try:
        yield
    finally:
        del os.environ[variable]
        if before is not None:
            os.environ[variable] = before


def difference(settings: Settings, base: Settings) -> str:
    changes = settings.differences(base)
    text = ", ".join(f"{name}={value}" for name, value in changes.items())
    return text or f"default ({base.instances} x {base.threads}, batch {base.max_batch_size})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", default="zoo:classifier,zoo:detector", help="zoo:NAME, files, resnet50, yolov8n")
    parser.add_argument("--provider", default="auto")
    parser.add_argument("--mix", action="store_true", help="serve all of them at once")
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trial-seconds", type=float, default=20.0, help="bound of the trial")
    arguments = parser.parse_args()
    print_header()
    with tempfile.TemporaryDirectory() as made, shipped_pictures() as folder:
        models: Models = {}
        for text in arguments.models.split(","):
            name = Path(text.removeprefix("zoo:")).stem
            if text in MAKERS:
                onnx.save(MAKERS[text](), f"{made}/{name}.onnx")
                text = f"{made}/{name}.onnx"
            models[name] = find_model(text, Path())
        if arguments.mix:
            of_mix(models, str(folder), arguments)
        else:
            for name, path in models.items():
                of_one(name, path, str(folder), arguments)


if __name__ == "__main__":
    main()
