"""The same work on other servers and on ours, in turns on one machine.

    benchmarks/peers/build.sh                                  makes an environment per peer
    python benchmarks/peers/run.py                             everything built
    python benchmarks/peers/run.py --short --peers mosec       one peer in a few minutes

Prints tables; writes JSON and a picture of the ratios to benchmarks/results/. Figures are kept in a journal as they are
made: a run that is cut off goes on with --resume, and --settings-from takes over what another run found out by trials.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import shutil
import signal
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.machine import processor, versions
from benchmarks.peers.campaign import Campaign, estimate
from benchmarks.peers.eight_bits import copies
from benchmarks.peers.filters import LINEAR, OWN, filters
from benchmarks.peers.graphs import MAKERS, graph_file
from benchmarks.peers.journal import Facts, Journal, changed, read
from benchmarks.peers.pairs import AS_OURS, AS_STARTED, TRIAL_IN_FLIGHT, Conditions, Durations, Pair, Provider, is_trial
from benchmarks.peers.peer import CHAINS, HERE, PEERS, Peer
from benchmarks.peers.plot import write_plot
from benchmarks.peers.summary import extents, in_eight_bits, lines, notes, summary, verdict
from parallel_infer.inference.options import SessionConfig
from parallel_infer.inference.providers import choose, survey
from parallel_infer.machine.cores import usable_cores
from parallel_infer.tools.bench.plot import load_figure

RESULTS = HERE.parent / "results"
ZOO = HERE.parents[1] / "parallel_infer" / "zoo"
MODELS = ("detector", "classifier", "chain", *MAKERS)
SECOND = "classifier"  # asked about each object of the chain
SHORT = Durations(trial=1.0, point=2.0, rounds=1)
_PEERS = "names, separated by commas; mosec:default is measured as ONNX Runtime starts only, mosec:ours as ours (all)"
_FILTERS = "how both sides resize: own (as each model asks), linear (all of them so), or both: own,linear"
_PROVIDERS = "of the peers: as ONNX Runtime starts, as our server, or both (auto: both where ours is not the CPU one)"
RUNS = HERE / ".runs"
_DONE = "done"  # the key of a journal that is complete


def parsed() -> argparse.Namespace:
    """The command line."""
    full = Durations()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=",".join(PEERS), help=_PEERS)
    parser.add_argument("--models", default="detector,classifier", help=f"of {', '.join(MODELS)} (the first two)")
    parser.add_argument("--in-flight", default="1,8,32,128", help="requests under way at once")
    parser.add_argument("--providers", choices=("auto", "both", "default", "ours"), default="auto", help=_PROVIDERS)
    parser.add_argument("--filters", default=OWN, help=_FILTERS)
    parser.add_argument("--rounds", type=int, help=f"in turns with ours ({full.rounds})")
    parser.add_argument("--seconds", type=float, help=f"of each point ({full.point:g})")
    parser.add_argument("--trial-seconds", type=float, help=f"of each setting tried ({full.trial:g})")
    parser.add_argument("--overload-seconds", type=float, help=f"at twice the capacity; 0: none ({full.overload:g})")
    parser.add_argument("--deadline", type=float, default=1.0, help="seconds an answer is of use under overload")
    parser.add_argument("--decoder", choices=("cv2", "simplejpeg"), default="cv2", help="of the peers")
    parser.add_argument("--ours", default="", metavar="OPTIONS", help="of our server, such as '--instances 2'")
    parser.add_argument("--tune-ours", action="store_true", help="try settings of our server as of the peers")
    parser.add_argument(
        "--over", default="wire", help="how ours is asked: wire, http as the peers are, or both: wire,http"
    )
    parser.add_argument(
        "--eight-bits", default="", metavar="MODELS", help="ours serves copies in 8 bits of these as well"
    )
    parser.add_argument("--settings-from", type=Path, metavar="JOURNAL", help="of the peers: trials of an earlier run")
    parser.add_argument("--resume", action="store_true", help="go on with the run of this name that was cut off")
    parser.add_argument("--trials-only", action="store_true", help="try the peers' settings, and measure nothing")
    parser.add_argument("--so-far", action="store_true", help="tables of what a run that was cut off has measured")
    parser.add_argument("--estimate", action="store_true", help="say how long it would take, and measure nothing")
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


def chosen_peers(names: str) -> list[tuple[Peer, str]]:
    """The peers that are built, each with the providers asked for ("": those of the run); what is not is said."""
    found = []
    for word in names.split(","):
        name, _, wanted = word.partition(":")
        if name not in PEERS or wanted not in ("", "both", "default", "ours"):
            raise SystemExit(f"unknown peer {word!r}; known are {', '.join(PEERS)}, with :both, :default or :ours")
        if PEERS[name].is_built:
            found.append((PEERS[name], wanted))
        else:
            print(f"{PEERS[name].title}: not built, left out; benchmarks/peers/build.sh {name} builds it")
    if not found:
        raise SystemExit("no peer is built; run benchmarks/peers/build.sh")
    return found


def chosen_words(option: str, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """The words of an option, each once."""
    words = tuple(dict.fromkeys(text.split(",")))
    if unknown := set(words) - set(known):
        raise SystemExit(f"unknown {', '.join(sorted(unknown))} in {option}; known are {' and '.join(known)}")
    return words


def model_path(name: str) -> str:
    if name not in MODELS:
        raise SystemExit(f"unknown model {name!r}; known are {', '.join(MODELS)}")
    zoo = "detector" if name == "chain" else name
    return str(graph_file(name, HERE / ".models") if name in MAKERS else ZOO / f"{zoo}.onnx")


def providers(wanted: str, our_options: list[str]) -> list[Provider]:
    """What the peers run the model with: as ONNX Runtime starts, and as our server does."""
    default = Provider("cpu", "fp32", spins=True, label=AS_STARTED)
    named = dict(itertools.pairwise(word for option in our_options for word in option.split("=", 1)))
    given = {name: named[f"--{name}"] for name in ("provider", "precision") if f"--{name}" in named}
    config = msgspec.convert(given, SessionConfig)
    choice = choose(config, survey(config))
    if choice.provider not in ("cpu", "openvino"):
        raise SystemExit(
            f"our server would run on {choice.provider}, the peers are built for processors only; "
            "add --ours '--provider cpu'"
        )
    same = Provider(choice.provider, choice.precision, spins=False, label=AS_OURS)
    if wanted == "auto":
        wanted = "ours" if same.name == default.name else "both"
    return {"both": [default, same], "default": [default], "ours": [same]}[wanted]


def chosen_pairs(arguments: argparse.Namespace) -> list[Pair]:
    """What is to be compared."""
    our_options = shlex.split(arguments.ours)
    peers, wanted_filters = chosen_peers(arguments.peers), chosen_words("--filters", arguments.filters, (OWN, LINEAR))
    return [
        Pair(model, path, peer, provider, _compared(model, provider), second, each)
        for model in arguments.models.split(",")
        for path, second in [(model_path(model), model_path(SECOND) if model == "chain" else "")]
        for each in filters(wanted_filters, path, *([second] if second else []))
        for peer, wanted in (_with_chains(peers) if second else peers)
        for provider in providers(wanted or arguments.providers, our_options)
    ]


def _shown_filters(pairs: list[Pair]) -> dict[str, list[str]]:
    """By model."""
    return {
        pair.model: list(dict.fromkeys(str(each.filter) for each in pairs if each.model == pair.model))
        for pair in pairs
    }


def _compared(model: str, provider: Provider) -> tuple[str, ...] | None:
    """As the peer runs it. Random weights are sure of nothing: only in float32 they find the same everywhere."""
    if model in MAKERS and provider.precision != "fp32":
        return None
    return "--provider", provider.name, "--precision", provider.precision, "--no-trial"


def _with_chains(peers: list[tuple[Peer, str]]) -> list[tuple[Peer, str]]:
    """Those that have a chain, as what runs it."""
    found = [(CHAINS[peer.name], wanted) for peer, wanted in peers if peer.name in CHAINS]
    if not found:
        raise SystemExit(f"none of the chosen peers has a chain; {', '.join(CHAINS)} has")
    return found


def chosen_conditions(arguments: argparse.Namespace) -> Conditions:
    """What is the same for all, without copies in 8 bits."""
    in_flight = tuple(int(count) for count in arguments.in_flight.split(","))
    if arguments.eight_bits and TRIAL_IN_FLIGHT not in in_flight:
        raise SystemExit(f"--eight-bits is measured at {TRIAL_IN_FLIGHT} in flight, which --in-flight has not")
    return Conditions(
        in_flight,
        tuple(shlex.split(arguments.ours)),
        arguments.tune_ours,
        arguments.decoder,
        arguments.deadline,
        chosen_words("--over", arguments.over, ("wire", "http")),
    )


def journal_of(arguments: argparse.Namespace, facts: Facts) -> Journal:
    """That of this run: empty, with another run's trials, or with all that was measured before it was cut off."""
    path = RUNS / f"{arguments.name}.jsonl"
    known: dict[str, Any] = {}
    if arguments.settings_from:
        values = _read(arguments.settings_from, facts, "machine", "decoder")
        known = {key: value for key, value in values.items() if is_trial(key)}
    if arguments.resume or arguments.so_far:
        known |= _read(path, facts, *facts)
    elif not arguments.estimate and path.exists() and _DONE not in read(path)[1]:
        raise SystemExit(
            f"{path}: that run was cut off, or a peer failed; --resume goes on with it, remove it to begin anew"
        )
    known.pop(_DONE, None)
    return Journal(Path(os.devnull) if arguments.estimate or arguments.so_far else path, facts, known)


def with_own_cache(folder: Path, *, anew: bool) -> None:
    """Have our server try its settings in this run, as at a first start, and not go by what it found on a busy day."""
    if anew:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(folder)


def _read(path: Path, facts: Facts, *same: str) -> dict[str, Any]:
    """The values of a journal, of which these facts must be the same."""
    try:
        before, values = read(path)
    except (OSError, ValueError, IndexError) as error:
        raise SystemExit(f"{path} cannot be read: {error}") from None
    if found := changed({name: before.get(name) for name in same}, {name: facts[name] for name in same}):
        raise SystemExit(f"{path} is of other conditions: {'; '.join(found)}")
    return values


def tell(arguments: argparse.Namespace, facts: Facts, summaries: list[dict[str, Any]], eight_bits: list[str]) -> None:
    """Print the tables, write the files."""
    last = [*verdict(summaries), *in_eight_bits(summaries, eight_bits)]
    print("\n".join(["", *lines(summaries), "", *notes(summaries), "", *last]))
    RESULTS.mkdir(exist_ok=True)
    found = {"command": _command(), **facts, "verdict": extents(summaries), "pairs": summaries}
    (RESULTS / f"{arguments.name}.json").write_text(json.dumps(found, indent=1))
    write_plot(summaries, RESULTS / f"{arguments.name}.png")


def main() -> None:
    """Measure, print, write."""
    arguments = parsed()
    load_figure()  # where matplotlib is missing, that is said before hours of measurements
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the server alive then is stopped too
    machine = {"processor": processor(), "cores": usable_cores(), "versions": versions()}
    print(f"machine: {machine['processor']}, {machine['cores']} cores")
    print(f"versions: {', '.join(f'{name} {number}' for name, number in versions().items())}")
    print(f"command: {_command()}\n")
    lengths, pairs = durations(arguments), chosen_pairs(arguments)
    if arguments.trials_only:
        lengths = replace(lengths, rounds=0)
    conditions = chosen_conditions(arguments)
    wanted = arguments.eight_bits.split(",") if arguments.eight_bits else []
    facts = {
        "machine": machine,
        "decoder": conditions.decoder,
        "durations": asdict(lengths),
        "conditions": asdict(conditions) | {"eight_bits": wanted, "filters": _shown_filters(pairs)},
    }
    journal = journal_of(arguments, facts)
    if arguments.estimate or arguments.so_far:
        campaign = Campaign(lengths, replace(conditions, eight_bits=dict.fromkeys(wanted, "")), journal, _say)
        print(estimate(pairs, campaign.left(pairs)))
        if arguments.so_far:
            tell(arguments, facts, [summary(record) for record in campaign.records(pairs)], wanted)
        return
    cache = RUNS / f"{arguments.name}.cache"
    with_own_cache(cache, anew=not arguments.resume)
    copied = copies({name: model_path(name) for name in wanted}, cache, _say)
    conditions = replace(conditions, eight_bits=copied)
    summaries = [summary(record) for record in Campaign(lengths, conditions, journal, _say).run(pairs)]
    if arguments.trials_only:
        print("\n".join(["", *notes(summaries)]))
    else:
        tell(arguments, facts, summaries, wanted)
    if any(pair["failure"] for pair in summaries):
        raise SystemExit("a peer failed; see above")
    journal.put(_DONE, True)


def _command() -> str:
    return shlex.join(["python", "benchmarks/peers/run.py", *sys.argv[1:]])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
