"""Keys: a client and a server that know each other, and everybody else."""

from __future__ import annotations

import pytest
import zmq
from zmq.utils import z85

from parallel_infer import Client
from parallel_infer.client import Key
from parallel_infer.errors import ServerUnavailable, Unauthorized
from tests.client.client_calls import payload_of


def pair():
    return [key.decode() for key in zmq.curve_keypair()]


@pytest.fixture
def guarded(server):
    """A server that knows one client; its `key` is that client's."""
    public, secret = pair()
    server_public, server_secret = pair()

    def configure(socket):
        socket.curve_server = True
        socket.curve_secretkey = server_secret.encode()

    server.stop()
    server.key = Key(public, secret, server_public)
    server.known = z85.decode(public.encode())
    server.configure = configure
    server.start()
    return server


def test_right_key(guarded, tmp_path):
    file = tmp_path / "client.key"
    key = guarded.key
    file.write_text(f"# for the door camera\npublic = {key.public}\nsecret={key.secret}\n\nserver = {key.server}\n")
    for given in (file, str(file), key):
        with Client(guarded.address, key=given) as client:
            assert payload_of(client.infer("echo", b"x")) == b"x"


def test_unknown_key(guarded):
    stranger = Key(*pair(), guarded.key.server)
    with Client(guarded.address, key=stranger) as client:
        with pytest.raises(Unauthorized, match="does not know this key"):
            client.infer("echo", b"x")
        assert isinstance(client.submit("echo", b"x").exception(10), Unauthorized)
        with pytest.raises(Unauthorized):
            client.infer("echo", b"x")
        guarded.known = z85.decode(stranger.public.encode())
        assert payload_of(client.infer("echo", b"known now")) == b"known now"
        assert payload_of(client.submit("echo", b"here too").result(10)) == b"here too"


def test_no_key(guarded):
    with Client(guarded.address) as client, pytest.raises(ServerUnavailable, match="asks for a key"):
        client.infer("echo", b"x", timeout=1.0)
    assert guarded.count == 0


def test_wrong_server_key(guarded):
    wrong = Key(guarded.key.public, guarded.key.secret, pair()[0])
    with Client(guarded.address, key=wrong) as client, pytest.raises(ServerUnavailable, match="key of the server"):
        client.infer("echo", b"x", timeout=1.0)
    assert guarded.count == 0


@pytest.mark.parametrize(
    "text", ["", "public = a\nsecret = b\n", "public = a\nsecret = b\nserver = c\n", "public a", "password = x"]
)
def test_key_file_that_is_none(tmp_path, text):
    file = tmp_path / "client.key"
    file.write_text(text)
    with pytest.raises(ValueError, match="key"):
        Client(key=file)
    with pytest.raises(ValueError, match="cannot be read"):
        Client(key=tmp_path / "missing")


def test_secret_is_not_shown():
    key = Key(*pair(), pair()[0])
    assert key.secret not in repr(key)
