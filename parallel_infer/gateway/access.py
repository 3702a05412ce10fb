"""Who may come in, at which door, and what they may do there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parallel_infer.config.addresses import is_local, socket_path
from parallel_infer.errors import ConfigError, InferError, Unauthorized
from parallel_infer.ipc.aside import Aside
from parallel_infer.ipc.client_socket import ClientSocket, Verdict, ZapStatus
from parallel_infer.keys.server import KeyFolder, KnownClient
from parallel_infer.machine import descriptors

_RARE = 8  # descriptors are counted one by one where clients take more than one in so many
_PATIENCE = 1.0  # seconds for keys that are being looked up when the server ends
log = logging.getLogger(__name__)


class AccessControl:
    """Opens doors, decides about new connections, and knows who may manage the server."""

    def __init__(self, keys: str | None, max_clients: int) -> None:
        self._keys = None if keys is None else KeyFolder.open(keys)
        self._max_clients = max_clients
        self._lookups: Aside[KnownClient | bool | None] = Aside()
        self._files: list[SocketFile] = []
        self._doors: list[ClientSocket] = []
        self._own = 0  # descriptors that are no client's

    def open(self, address: str, make_socket: Callable[[str | None], ClientSocket]) -> ClientSocket:
        """A door at an address, made from the server's secret key or None. Raises OSError, ConfigError.

        A socket file is guarded by its mode, and so needs no keys; every other address does where there are any.
        """
        path = socket_path(address)
        if path is None:
            door = make_socket(None if self._keys is None else self._keys.server().secret)
        else:
            file = SocketFile(path)
            self._files.append(file)
            door = make_socket(None)
            file.close_to_others()
        self._doors.append(door)
        self._own = descriptors.open_now()
        return door

    @property
    def descriptor(self) -> int:
        """Readable while there is something for `take_in`."""
        return self._lookups.descriptor

    def take_in(self) -> None:
        """Go on with those whose keys were looked up."""
        self._lookups.take()

    def authenticate(self, public: str, decide: Verdict) -> None:
        """Tell whether a new connection is let in, and its name; `public` is its key, "" at a door without keys."""
        keys = self._keys
        if not public or keys is None:
            decide(*(ZapStatus.REFUSED, "") if public else self._room_for(""))
            return

        def found(client: KnownClient | bool | None) -> None:
            if isinstance(client, KnownClient):
                decide(*self._room_for(client.name))
            else:
                log.warning("a client with an unknown key was sent away")
                decide(ZapStatus.REFUSED, "")

        self._lookups.ask(lambda: keys.client(public), found)

    def _room_for(self, name: str) -> tuple[ZapStatus, str]:
        """What to do with a client that may come in, as far as there is room."""
        if sum(door.connections() for door in self._doors) > self._max_clients:
            log.warning("a client was sent away: there are %d already (option max_clients)", self._max_clients)
            return ZapStatus.FULL, ""
        if not self._descriptors_suffice():
            log.warning(
                "a client was sent away: this process may have %d files open, and clients take %d (ulimit -n)",
                descriptors.limit(),
                self._descriptors_taken(),
            )
            return ZapStatus.FULL, ""
        return ZapStatus.WELCOME, name

    def _descriptors_taken(self) -> int:
        return sum(door.descriptors_taken for door in self._doors)

    def _descriptors_suffice(self) -> bool:
        """Whether there is room for another client; somebody may have lowered the limit meanwhile."""
        before = descriptors.limit()
        if _RARE * (self._own + self._descriptors_taken()) <= before:
            return True
        needed = descriptors.open_now() + descriptors.RESERVE  # rings that are lent take some, too
        if needed <= before:
            return True
        now = descriptors.raise_limit()
        if now > before:
            log.warning("the limit of open files is raised from %d to %d for more clients (ulimit -n)", before, now)
        return needed <= now

    def when_manages(
        self, door: ClientSocket, frame: Any, go_on: Callable[[], None], refuse: Callable[[InferError], None]
    ) -> None:
        """Go on where the sender of a frame may load, unload or stop, or refuse; now, or when its key was looked up."""
        keys = self._keys
        if door.guarded and keys is not None:
            user = door.user(frame)

            def found(manages: KnownClient | bool | None) -> None:
                if manages:
                    go_on()
                else:
                    refuse(Unauthorized("this key may not manage the server; keys made with --manage may"))

            self._lookups.ask(lambda: keys.manages(user), found)
        elif door.guarded or not is_local(door.address):
            refuse(Unauthorized("without keys the server is managed from its own machine only (option keys)"))
        else:
            go_on()

    def settle(self) -> None:
        """Look no more keys up; who waits for that is told. Before doors are closed."""
        self._lookups.close(_PATIENCE)

    def close(self) -> None:
        """Give the socket files up. Doors must be closed before."""
        for file in self._files:
            file.release()


class SocketFile:
    """The right to listen at a path: a lock beside it, so that a second server cannot take the socket over."""

    def __init__(self, path: Path) -> None:
        """Claim a path. Raises ConfigError where another server listens there, or nobody can."""
        self._path = path
        self._lock_path = Path(f"{path}.lock")
        if not path.parent.is_dir():
            raise ConfigError(f"the folder {path.parent} does not exist")
        self._lock = self._claim()
        try:
            self._remove_stale()
        except ConfigError:
            self.release()
            raise

    def _claim(self) -> int:
        while True:
            try:
                lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            except OSError as error:
                raise ConfigError(f"cannot make {self._lock_path}: {error.strerror}") from None
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(lock)
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                raise ConfigError("it is in use by another server") from None
            if self._is_ours(lock):
                return lock
            os.close(lock)  # its owner removed it between our open and our lock

    def _is_ours(self, lock: int) -> bool:
        try:
            return os.fstat(lock).st_ino == self._lock_path.stat().st_ino
        except FileNotFoundError:
            return False

    def _remove_stale(self) -> None:
        """What a dead server left behind; anything but a socket is somebody's and stays."""
        try:
            mode = self._path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise ConfigError("there is a file of that name which is no socket")
        self._path.unlink()

    def close_to_others(self) -> None:
        """Let only this user connect, whatever the umask was."""
        self._path.chmod(0o600)

    def release(self) -> None:
        """Give the path up."""
        with contextlib.suppress(ConfigError):
            self._remove_stale()
        with contextlib.suppress(FileNotFoundError):
            self._lock_path.unlink()  # first the name, then the lock, so that nobody locks a file that is going away
        os.close(self._lock)
