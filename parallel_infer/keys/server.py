"""The server's folder of keys: its own key pair, and one file for each client that may come in.

    FOLDER/                 mode 0700
      server.key            mode 0600: `public` and `secret` of the server
      clients/NAME.pub      `public` of a client, and `manage = yes` where it may load and unload models and stop

Files have lines `name = value`, comments begin with `#`, keys are Z85 of 40 characters. The secret of a client is in
none of them: it stands in the client's own file, in the form that `parallel_infer.keys.client` reads.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from parallel_infer.errors import ConfigError
from parallel_infer.files.outputs import write_new
from parallel_infer.files.text import read_text
from parallel_infer.keys.parse import KEY_LENGTH, is_key, parse_lines

SERVER_FILE = "server.key"
CLIENTS = "clients"
_SUFFIX = ".pub"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
STRANGERS = 1.0  # seconds between looks at all files for the sake of unknown keys
_STEP = 0.1  # seconds; no file system that keys lie on counts in longer ones, but for FAT
_DIGEST = re.compile(r"[0-9a-f]{64}")
_YES_NO = {"yes": True, "no": False}
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A public and a secret key in Z85."""

    public: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class KnownClient:
    """A client that may come in."""

    name: str
    public: str
    manages: bool
    token: str = ""  # SHA-256, in hex digits, of the token it shows at the doors of other protocols; "": it has none


_Stamp = tuple[int, int, int, int]  # of a file or folder: differs whenever it was changed
_Known = tuple[_Stamp, KnownClient | None]


class KeyFolder:
    """The folder as it is now: what changed in it counts from the next look on, and only that is read.

    A handshake costs two looks at the file system however many keys there are: at the folder, which tells of files
    that came, went or were replaced, and at the client's own file, which tells of a change within it. All files are
    looked at when the folder has changed, and for a stranger, whose key may have been written into a file that was
    there before, once in `STRANGERS` seconds.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._clock = clock
        self._folder: _Stamp | None = None  # of the folder of clients when all its files were looked at
        self._looked = -math.inf  # when that was
        self._files: dict[str, _Known] = {}  # by name of the file
        self._by_key: dict[str, KnownClient] = {}
        self._by_name: dict[str, KnownClient] = {}
        self._by_token: dict[str, KnownClient] = {}

    @classmethod
    def open(cls, path: str | Path) -> KeyFolder:
        """An existing folder, checked. Raises ConfigError for one that is missing, open to others or damaged."""
        folder = cls(Path(path))
        if not folder.path.is_dir():
            raise ConfigError(f"there is no folder of keys at {path}; make one with `parallel-infer keys new NAME`")
        _check_private(folder.path)
        folder.server()
        folder.clients()
        return folder

    def server(self) -> KeyPair:
        """The server's key pair. Raises ConfigError where it is missing, open to others or damaged."""
        file = self.path / SERVER_FILE
        values = _read(file, ("public", "secret"))
        _check_private(file)
        return KeyPair(values["public"], values["secret"])

    def clients(self) -> list[KnownClient]:
        """Everybody who may come in, by name; a file that cannot be read lets nobody in, and the log says so."""
        self._look_at_all()
        return sorted(self._by_key.values(), key=lambda client: client.name)

    def client(self, public: str) -> KnownClient | None:
        """Whose key this is; None for a stranger's."""
        self._refresh()
        self._look_for(public in self._by_key)
        return self._as_it_is(self._by_key.get(public), lambda: self._by_key.get(public))

    def manages(self, name: str) -> bool:
        """Whether the client of this name may manage the server now."""
        self._refresh()
        client = self._as_it_is(self._by_name.get(name), lambda: self._by_name.get(name))
        return client is not None and client.manages

    def by_token(self, digest: str) -> KnownClient | None:
        """Whose token has this SHA-256 (hex digits); None for a stranger's."""
        self._refresh()
        self._look_for(digest in self._by_token)
        return self._as_it_is(self._by_token.get(digest), lambda: self._by_token.get(digest))

    def _look_for(self, known: bool) -> None:
        """Look again for a stranger: once in `STRANGERS` seconds, and where a file that was damaged has changed.

        A file that is written anew in its place is empty for a moment.
        """
        if not known and (self._clock() >= self._looked + STRANGERS or any(map(self._is_mended, self._files))):
            self._look_at_all()

    def _is_mended(self, file: str) -> bool:
        stamp, client = self._files[file]
        return client is None and _stamp(self.path / CLIENTS / file) != stamp

    def _refresh(self) -> None:
        stamp = _stamp(self.path / CLIENTS)
        if stamp is None or stamp != self._folder:
            self._look_at_all()

    def _as_it_is(self, client: KnownClient | None, again: Callable[[], KnownClient | None]) -> KnownClient | None:
        """A client, looked up again where its file is another one by now."""
        if client is None:
            return None
        file = f"{client.name}{_SUFFIX}"
        if _stamp(self.path / CLIENTS / file) == self._files[file][0]:
            return client
        self._look_at_all()
        return again()

    def _look_at_all(self) -> None:
        """Look at every file, and read those that have changed."""
        folder, now = self.path / CLIENTS, time.time()
        stamp = _stamp(folder)
        before, self._files = self._files, {}
        for name in _names(folder):
            seen = _stamp(folder / name)
            known = before.get(name)
            if known is not None and known[0] == seen:
                self._files[name] = known
            elif seen is not None:
                self._files[name] = _fresh(seen, now), _client_in(folder / name)
        self._by_key, self._by_name = {}, {}
        for _, client in self._files.values():
            if client is None:
                continue
            other = self._by_key.setdefault(client.public, client)
            if other is client:
                self._by_name[client.name] = client
            elif self._files != before:
                log.warning("%s and %s have the same key", client.name, other.name)
        self._by_token = {client.token: client for client in self._by_name.values() if client.token}
        self._folder = None if stamp is None else _fresh(stamp, now)
        self._looked = self._clock()


def add_server(folder: Path, pair: KeyPair) -> Path:
    """Write the server's key pair, making the folder. Raises ConfigError where there is one."""
    _make(folder)
    _make(folder / CLIENTS)
    return _write(folder / SERVER_FILE, f"public = {pair.public}\nsecret = {pair.secret}\n")


def add_client(folder: Path, client: KnownClient) -> Path:
    """Let a client in. Raises ConfigError for a name that is taken or none."""
    check_name(client.name)
    _make(folder / CLIENTS)
    manages = "yes" if client.manages else "no"
    token = f"token = {client.token}\n" if client.token else ""
    text = f"public = {client.public}\nmanage = {manages}\n{token}"
    return _write(folder / CLIENTS / f"{client.name}{_SUFFIX}", text)


def write_client_key(file: Path, name: str, pair: KeyPair, server: str, token: str) -> Path:
    """Write the file that the client itself needs, its secret included. Raises ConfigError where there is one."""
    return _write(
        file,
        f"# the key of {name}; whoever has this file is {name}\n"
        f"public = {pair.public}\nsecret = {pair.secret}\nserver = {server}\n"
        f"# for HTTP and gRPC, as Authorization: Bearer TOKEN\ntoken = {token}\n",
    )


def check_name(name: str) -> None:
    """Raises ConfigError for what no client can be called."""
    if _NAME.fullmatch(name) is None:
        raise ConfigError(f"{name!r} is no name for a key: 1 to 64 letters, digits, dots, dashes and underscores")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder}: {error.strerror}") from None
    _check_private(folder)


def _write(file: Path, text: str) -> Path:
    """A new file that nobody else can read, complete or not at all on a name that was free."""
    try:
        write_new(file, text.encode("ascii"), 0o600)
    except FileExistsError:
        raise ConfigError(f"{file} is there already; remove it first if its key is to be replaced") from None
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror}") from None
    return file


def _check_private(path: Path) -> None:
    if path.stat().st_mode & 0o077:
        wanted = "700" if path.is_dir() else "600"
        raise ConfigError(f"{path} is open to other users; say chmod {wanted} {path}")


def _names(folder: Path) -> list[str]:
    """The clients' files, by name."""
    try:
        return sorted(path.name for path in folder.iterdir() if path.name.endswith(_SUFFIX))
    except OSError:
        return []


def _stamp(path: Path) -> _Stamp | None:
    """What differs whenever a file or folder was changed; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _fresh(stamp: _Stamp, now: float) -> _Stamp:
    """The stamp to remember of what is being read `now` (seconds since 1970).

    Time stamps of files move in steps. Of what was changed just now a further change might leave no trace, so what is
    remembered equals nothing: it will be read once more.
    """
    return stamp if stamp[3] < (now - _STEP) * 1e9 else (-1, *stamp[1:])


def _client_in(file: Path) -> KnownClient | None:
    try:
        return _read_client(file)
    except ConfigError as error:
        log.warning("a client's key is passed over: %s", error)
        return None


def _read_client(file: Path) -> KnownClient:
    values = _read(file, ("manage", "public"), ("token",))
    manages = _YES_NO.get(values["manage"])
    if manages is None:
        raise ConfigError(f"{file}: manage is {values['manage']!r}; expected yes or no")
    token = values.get("token", "")
    if token and _DIGEST.fullmatch(token) is None:
        raise ConfigError(f"{file}: token is no SHA-256; expected 64 hex digits")
    return KnownClient(file.name.removesuffix(_SUFFIX), values["public"], manages, token)


def _read(file: Path, names: Sequence[str], further: Sequence[str] = ()) -> dict[str, str]:
    try:
        text = read_text(file)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"cannot read {file}: {reason}") from None
    try:
        values = parse_lines(text, names, further)
    except ValueError as error:
        raise ConfigError(f"{file} {error}") from None
    for name in names:
        if name != "manage" and not is_key(values[name]):  # the value is not shown: it may be a secret
            raise ConfigError(f"{file}: {name} is no key; expected {KEY_LENGTH} characters of Z85")
    return values
