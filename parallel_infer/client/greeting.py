"""What a server takes, asked for where something has to be known before it is read or handed out."""

from __future__ import annotations

from parallel_infer.client.connection import Connection
from parallel_infer.client.pending import Pending
from parallel_infer.client.reading import is_open_ended
from parallel_infer.errors import InferError
from parallel_infer.protocol import Hello

_PATIENCE = 1.0  # seconds, among many pictures, which may wait longer than that for a server to come


def learn_terms(connection: Connection, timeout: float) -> InferError | None:
    """Ask what the server takes, where that is not known yet; the error where it does not say so in time."""
    if connection.terms.known:
        return None
    outcome = connection.ask(Pending(Hello(id=connection.number()), timeout))
    return outcome if isinstance(outcome, InferError) else None


def before_reading(picture: object, connection: Connection, timeout: float) -> None:
    """Know how much of an endless file or pipe to read. Raises the error of a server that is not there."""
    if not connection.terms.known and is_open_ended(picture):
        error = learn_terms(connection, timeout)
        if error is not None:
            raise error


def among_many(picture: object, connection: Connection, timeout: float) -> None:
    """The same for one of many pictures, which has its error later if there is no server."""
    if not connection.terms.known and is_open_ended(picture):
        learn_terms(connection, min(_PATIENCE, timeout))
