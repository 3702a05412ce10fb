"""The same work on other servers and on ours, in turns on one machine.

    benchmarks/peers/build.sh                                  makes an environment per peer
    python benchmarks/peers/run.py                             everything built
    python benchmarks/peers/run.py --short --peers mosec       one peer and model in a few minutes

Prints one table; writes JSON and a picture of the ratios to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shlex
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.machine import processor, versions
from benchmarks.peers.campaign import Campaign, Conditions, Durations, Pair, Provider
from benchmarks.peers.graphs import MAKERS, graph_file
from benchmarks.peers.peer import HERE, PEERS, Peer
from benchmarks.peers.plot import write_plot
from benchmarks.peers.summary import lines, notes, summary
from parallel_infer.inference.options import SessionConfig
from parallel_infer.inference.providers import choose, survey
from parallel_infer.machine.cores import usable_cores
from parallel_infer.tools.bench.plot import load_figure

RESULTS = HERE.parent / "results"
ZOO = HERE.parents[1] / "parallel_infer" / "zoo"
MODELS = ("detector", "classifier", *MAKERS)
SHORT = Durations(trial=1.0, point=2.0, rounds=1)
_PROVIDERS = "of the peers: as ONNX Runtime starts, as our server, or both (auto: both where ours is not the CPU one)"
_START = 3.5  # seconds that starting and stopping a server takes, for the estimate


def parsed() -> argparse.Namespace:
    """The command line."""
    full = Durations()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=",".join(PEERS), help="names, separated by commas (all)")
    parser.add_argument("--models", default="detector,classifier", help=f"of {', '.join(MODELS)} (the first two)")
    parser.add_argument("--in-flight", default="1,8,32,128", help="requests under way at once")
    parser.add_argument("--providers", choices=("auto", "both", "default", "ours"), default="auto", help=_PROVIDERS)
    parser.add_argument("--rounds", type=int, help=f"in turns with ours ({full.rounds})")
    parser.add_argument("--seconds", type=float, help=f"of each point ({full.point:g})")
    parser.add_argument("--trial-seconds", type=float, help=f"of each setting tried ({full.trial:g})")
    parser.add_argument("--overload-seconds", type=float, help=f"at twice the capacity; 0: none ({full.overload:g})")
    parser.add_argument("--deadline", type=float, default=1.0, help="seconds an answer is of use under overload")
    parser.add_argument("--decoder", choices=("cv2", "simplejpeg"), default="cv2", help="of the peers")
    parser.add_argument("--ours", default="", metavar="OPTIONS", help="of our server, such as '--instances 2'")
    parser.add_argument("--tune-ours", action="store_true", help="try settings of our server as of the peers")
    parser.add_argument(
        "--over", choices=("wire", "http"), default="wire", help="how ours is asked; over http as the peers are (wire)"
    )
    parser.add_argument("--short", action="store_true", help="one round of short points")
    parser.add_argument("--name", default="peers", help="of the files in benchmarks/results/")
    return parser.parse_args()


def durations(arguments: argparse.Namespace) -> Durations:
    base = SHORT if arguments.short else Durations()
    given = {
        "rounds": arguments.rounds,
        "point": arguments.seconds,
        "trial": arguments.trial_seconds,
        "overload": arguments.overload_seconds,
    }
    return Durations(**(asdict(base) | {name: value for name, value in given.items() if value is not None}))


def chosen_peers(names: str) -> list[Peer]:
    """The peers that are built; what is not is said."""
    found = []
    for name in names.split(","):
        if name not in PEERS:
            raise SystemExit(f"unknown peer {name!r}; known are {', '.join(PEERS)}")
        if PEERS[name].is_built:
            found.append(PEERS[name])
        else:
            print(f"{PEERS[name].title}: not built, left out; benchmarks/peers/build.sh {name} builds it")
    if not found:
        raise SystemExit("no peer is built; run benchmarks/peers/build.sh")
    return found


def model_path(name: str) -> str:
    if name not in MODELS:
        raise SystemExit(f"unknown model {name!r}; known are {', '.join(MODELS)}")
    return str(graph_file(name, HERE / ".models") if name in MAKERS else ZOO / f"{name}.onnx")


def providers(wanted: str, our_options: list[str]) -> list[Provider]:
    """What the peers run the model with: as ONNX Runtime starts, and as our server does."""
    default = Provider("cpu", "fp32", spins=True, label="default")
    named = dict(itertools.pairwise(word for option in our_options for word in option.split("=", 1)))
    given = {name: named[f"--{name}"] for name in ("provider", "precision") if f"--{name}" in named}
    config = msgspec.convert(given, SessionConfig)
    choice = choose(config, survey(config))
    if choice.provider not in ("cpu", "openvino"):
        raise SystemExit(
            f"our server would run on {choice.provider}, the peers are built for processors only; "
            "add --ours '--provider cpu'"
        )
    same = Provider(choice.provider, choice.precision, spins=False, label="as ours")
    if wanted == "auto":
        wanted = "ours" if same.name == default.name else "both"
    return {"both": [default, same], "default": [default], "ours": [same]}[wanted]


def write_json(summaries: list[dict[str, Any]], facts: dict[str, Any], path: Path) -> None:
    machine = {"processor": processor(), "cores": usable_cores(), "versions": versions()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"command": _command(), "machine": machine, **facts, "pairs": summaries}, indent=1))


def main() -> None:
    """Measure, print, write."""
    arguments = parsed()
    load_figure()  # where matplotlib is missing, that is said before hours of measurements
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the server alive then is stopped too
    print(f"machine: {processor()}, {usable_cores()} cores")
    print(f"versions: {', '.join(f'{name} {number}' for name, number in versions().items())}")
    print(f"command: {_command()}\n")
    our_options = shlex.split(arguments.ours)
    peers, lengths = chosen_peers(arguments.peers), durations(arguments)
    precision = providers("ours", our_options)[0].precision
    pairs = [
        # Random weights are sure of nothing: in another precision they may find other things.
        Pair(model, model_path(model), peer, provider, model not in MAKERS or provider.precision == precision)
        for model in arguments.models.split(",")
        for peer in peers
        for provider in providers(arguments.providers, our_options)
    ]
    in_flight = [int(count) for count in arguments.in_flight.split(",")]
    conditions = Conditions(
        tuple(in_flight),
        tuple(our_options),
        arguments.tune_ours,
        arguments.decoder,
        arguments.deadline,
        arguments.over,
    )
    campaign = Campaign(lengths, conditions, _say)
    _say(f"{len(pairs)} comparisons, about {campaign.seconds(pairs, _START) / 60:.0f} minutes")
    begin = time.monotonic()
    summaries = [summary(record) for record in campaign.run(pairs)]
    _say(f"done after {(time.monotonic() - begin) / 60:.1f} minutes\n")
    print("\n".join([*lines(summaries), "", *notes(summaries)]))
    facts = {"durations": asdict(lengths), "conditions": asdict(conditions)}
    write_json(summaries, facts, RESULTS / f"{arguments.name}.json")
    write_plot(summaries, RESULTS / f"{arguments.name}.png")
    if any(pair["failure"] for pair in summaries):
        raise SystemExit("a peer failed; see above")


def _command() -> str:
    return shlex.join(["python", "benchmarks/peers/run.py", *sys.argv[1:]])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
