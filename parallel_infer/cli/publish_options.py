"""Options of `stream` that publish results."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from parallel_infer.errors import ConfigError

if TYPE_CHECKING:
    from parallel_infer.video.broker import Broker
    from parallel_infer.video.events import Result
    from parallel_infer.video.publisher import Publisher

Command = TypeVar("Command", bound=Callable[..., Any])


def publish_options(command: Command) -> Command:
    """--publish and --publish-queue, as `publish` and `publish_queue`."""
    command = click.option(
        "--publish-queue",
        type=click.IntRange(1, 1_000_000),
        metavar="COUNT",
        help="Results that wait for a broker which is away or slow; the oldest gives way.  [default: 1000]",
    )(command)
    return click.option(
        "--publish",
        metavar="URL",
        envvar="PARALLEL_INFER_PUBLISH",
        show_envvar=True,
        help="Send each answered frame as JSON to an MQTT broker: mqtt://[USER[:PASSWORD]@]HOST[:PORT]/TOPIC, or "
        "mqtts:// for TLS. Needs pip install 'parallel-infer[mqtt]'.",
    )(command)


def broker_of(given: dict[str, Any]) -> Broker | None:
    """The broker that was named, if any. Raises ConfigError for one that cannot be, and where a library is missing."""
    if given["publish"] is None:
        if given["publish_queue"] is not None:
            raise ConfigError("--publish-queue says how many results wait to be published: add --publish")
        return None
    from parallel_infer.video.broker import Broker

    try:
        import parallel_infer.video.publisher  # noqa: F401  # needs a library that need not be there
    except ImportError as error:
        raise ConfigError(f"--publish needs {error.name}: pip install 'parallel-infer[mqtt]'") from None
    return Broker.parse(given["publish"])


@contextlib.contextmanager
def publishing(broker: Broker | None, limit: int | None) -> Iterator[Publisher | None]:
    """Something that publishes, connected; None without a broker. Says at the end what became of all results."""
    if broker is None:
        yield None
        return
    from parallel_infer.video.publisher import USUAL_LIMIT, Publisher

    publisher = Publisher(broker, limit or USUAL_LIMIT)
    with publisher:
        yield publisher
    _say(*publisher.news(), publisher.summary())


def publish(publisher: Publisher, result: Result) -> None:
    """Publish an answered frame, and tell what happened to the connection."""
    from parallel_infer.answers.answer import Answer

    if isinstance(result.answer, Answer):
        publisher.add(json.dumps(result.to_dict()).encode())
    _say(*publisher.news())


def _say(*texts: str) -> None:
    with contextlib.suppress(OSError):  # a terminal that is gone hears no more
        for text in texts:
            click.echo(text, err=True)
