"""`parallel-infer stream`: cameras, network streams, recordings and folders through a server, frame by frame."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from parallel_infer.cli.answer_options import answer_options, options_of
from parallel_infer.cli.common_options import timeout_option
from parallel_infer.cli.model_argument import model_and_rest, model_option
from parallel_infer.cli.parameter_types import FiniteRange, GivenPath
from parallel_infer.cli.publish_options import broker_of, publish, publish_options, publishing
from parallel_infer.cli.server_options import GivenKey, connected, file_of, server_options
from parallel_infer.cli.track_options import track_options, tracking
from parallel_infer.process.endings import handled

if TYPE_CHECKING:
    from parallel_infer.cli.video_display import Display
    from parallel_infer.tracking.settings import Tracking
    from parallel_infer.video import Result, Source, Streams, StreamSettings
    from parallel_infer.video.publisher import Publisher
    from parallel_infer.video.recorder import Names, Recorder

    Targets = tuple[dict[str, Path], Names]

_MS = 1000.0
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@click.command("stream")
@click.argument("words", nargs=-1, required=True, metavar="[MODEL] SOURCE...")
@server_options
@model_option
@click.option(
    "--drop",
    type=click.Choice(["none", "oldest", "latest"]),
    help="Which frame gives way where they come faster than answers: none (the source waits), the oldest of a few, or "
    "all but the latest.  [default: none for files and folders, latest for live sources]",
)
@click.option(
    "--max-age-ms",
    type=FiniteRange(0, min_open=True),
    help="Frames older than this are not inferred any more; they are counted as expired.",
)
@click.option("--fps", type=FiniteRange(0, min_open=True), help="Look at no more frames per second of each source.")
@click.option(
    "--skip-still",
    type=FiniteRange(0, 255, min_open=True),
    metavar="THRESHOLD",
    help="Give frames that show nothing new the answer of the last inferred one: those in which no block of 8 x 8 "
    "pixels changed its mean colour by THRESHOLD levels of 255; 10 is a start. They are marked as still.",
)
@click.option(
    "--still-for",
    type=FiniteRange(0, min_open=True),
    default=10.0,
    show_default=True,
    help="With --skip-still, seconds after which a frame is inferred even so.",
)
@click.option("--realtime", "pace", flag_value="realtime", help="Play recordings as a camera would: realtime:FILE.")
@click.option(
    "--save",
    type=GivenPath(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the annotated video; of several sources, one file each with the source's name behind FILE's.",
)
@answer_options
@track_options
@publish_options
@timeout_option(30.0, "Seconds that one frame may take.")
@click.option(
    "--silence",
    type=FiniteRange(0, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds without a frame after which a source is taken for lost and its capture is started again.",
)
@click.option(
    "--attempts",
    type=click.IntRange(0),
    help="How often in a row a lost camera or network stream is tried again before it has failed.  [default: for ever]",
)
@click.option("--json", "form", flag_value="json", help="Print one JSON object per frame or change of state and line.")
@click.option(
    "--show-stats", "stats", flag_value="table", help="Print a table of all sources every 5 s and at the end."
)
def command(
    words: tuple[str, ...], server: str, key: GivenKey, form: str | None, stats: str | None, **given: Any
) -> None:
    """Ask a server about live or recorded video.

    A SOURCE is a video file, a folder of pictures, a camera (/dev/videoN or its number), a URL (rtsp://, http://, ...),
    realtime:FILE, a recording that plays like a camera, or - for standard input: a video that is piped in (Matroska,
    MPEG-TS, MJPEG, ...), or JPEG or PNG pictures one after the other. Without --model the first argument is the model.
    Ctrl-C ends it. The exit code is 1 if a source or a frame failed.
    """
    from parallel_infer.cli.own_title import hide_secrets
    from parallel_infer.cli.video_display import Statistics, display_for
    from parallel_infer.video import Streams

    hide_secrets()
    model, sources = model_and_rest(given["model"], words, server, key, "SOURCE...")
    read = _sources(sources, given)
    broker = broker_of(given)
    targets = _targets(read, given["save"], file_of(key))
    with connected(server, key) as client:
        served = client.models()  # a server that is away, or does not let us in, is told of once and at once
    settings = _settings(given, tracking(given, model, served))
    with (
        publishing(broker, given["publish_queue"]) as publisher,
        Streams(read, model, server, key, settings) as streams,
    ):
        shown = display_for(streams, form)
        with (
            _signals_end(streams),  # outermost: a second signal must not cut off a file that is being finished
            _recorders(streams, targets) as recorders,
            Statistics(shown, streams) if stats else shown as display,
        ):
            _follow(streams, display, recorders, publisher)
    failed = any(tally.failed for tally in streams.tallies.values())
    if failed or any(streams.feed(name).state.value == "failed" for name in streams.tallies) or _said_errors(recorders):
        raise click.exceptions.Exit(1)


def _sources(texts: tuple[str, ...], given: dict[str, Any]) -> list[Source]:
    from parallel_infer.video import sources_of

    sources = sources_of(texts)
    return [source.in_real_time() for source in sources] if given["pace"] else sources


def _settings(given: dict[str, Any], track: Tracking | None) -> StreamSettings:
    from parallel_infer.video import Drop, StreamSettings

    return StreamSettings(
        drop=Drop(given["drop"]) if given["drop"] else None,
        max_age=given["max_age_ms"] / _MS if given["max_age_ms"] else None,
        fps=given["fps"],
        skip_still=given["skip_still"],
        still_for=given["still_for"],
        timeout=given["timeout"],
        silence=given["silence"],
        attempts=given["attempts"],
        track=track,
        options=options_of(given["conf"], given["iou"], given["options"]),
    )


def _follow(streams: Streams, display: Display, recorders: dict[str, Recorder], publisher: Publisher | None) -> None:
    """Show everything until all sources have ended, or until a signal asks for the end."""
    from parallel_infer.video import Change

    for event in streams:
        if isinstance(event, Change):
            display.change(event)
        else:
            _record(streams, event, recorders)  # first: what shows it may be gone
            if publisher is not None:
                publish(publisher, event)
            display.result(event)


def _record(streams: Streams, result: Result, recorders: dict[str, Recorder]) -> None:
    recorder = recorders.get(result.source)
    if recorder is not None:
        wanted, fps = streams.settings.fps, streams.feed(result.source).fps
        recorder.add(result, min(fps, wanted) if fps and wanted else fps or wanted or 0.0)


def _targets(sources: list[Source], target: Path | None, key: str | None) -> Targets | None:
    """A file per source, all of which can be written. Raises ConfigError where the target cannot be one."""
    if target is None:
        return None
    from parallel_infer.files.outputs import Inputs
    from parallel_infer.video.recorder import Names, paths_for

    paths = paths_for(target, [source.name for source in sources])
    return paths, Names(paths.values(), Inputs([key, *(file for source in sources for file in source.files)]))


@contextlib.contextmanager
def _recorders(streams: Streams, targets: Targets | None) -> Iterator[dict[str, Recorder]]:
    """A recorder per source, none without targets."""
    if targets is None:
        yield {}
        return
    from parallel_infer.video.recorder import ByCapture, ByTurn, Recorder

    paths, names = targets
    recorders = {
        name: Recorder(path, ByCapture() if streams.feed(name).source.live else ByTurn(), names)
        for name, path in paths.items()
    }
    try:
        yield recorders
    finally:
        for recorder in recorders.values():
            recorder.close()
        with contextlib.suppress(OSError):  # a terminal that is gone hears no more, and that is no fault of the files
            for recorder in recorders.values():
                for path in recorder.written:
                    click.echo(f"written: {path}", err=True)


def _said_errors(recorders: dict[str, Recorder]) -> bool:
    """Say what could not be written; whether there was anything."""
    errors = [recorder.error for recorder in recorders.values() if recorder.error]
    for error in errors:
        click.echo(error, err=True)
    return bool(errors)


def _signals_end(streams: Streams) -> contextlib.AbstractContextManager[None]:
    """Ctrl-C, SIGTERM and a terminal that goes away end the streams in good order; a second Ctrl-C ends at once.

    With `nohup` they outlast their terminal.
    """

    def end(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        streams.end()

    return handled(_ENDINGS, end)
