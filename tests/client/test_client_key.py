"""Keys: a client and a server that know each other, and everybody else."""

from __future__ import annotations

import socket
import threading

import pytest
import zmq
from click.testing import CliRunner
from zmq.utils import z85

from parallel_infer import Client
from parallel_infer.cli import main
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
    server.configure = server.right = configure
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


def no_key(key):
    return None


def other_server_key(key):
    return Key(key.public, key.secret, pair()[0])


@pytest.mark.parametrize(
    ("key", "text"), [(no_key, "asks for a key, and this client has none"), (other_server_key, "key of the server")]
)
def test_what_no_time_mends_is_said_at_once(guarded, key, text):
    """Each of these would wait for its timeout, and then be ServerUnavailable, if the server might still come."""
    with Client(guarded.address, key=key(guarded.key), timeout=300) as client:
        for _ in range(2):  # as is what is asked later
            with pytest.raises(Unauthorized, match=text):
                client.infer("echo", b"x")
        assert isinstance(client.submit("echo", b"x").exception(), Unauthorized)
        with pytest.raises(Unauthorized, match=text):
            client.models()
    if key is no_key:
        result = CliRunner().invoke(main, ["infer", "--server", guarded.address, "--timeout", "300", "echo", __file__])
        assert isinstance(result.exception, Unauthorized) or text in result.stderr
    assert guarded.count == 0


def test_a_key_for_a_server_without_keys_is_said_at_once(server):
    key = Key(*pair(), pair()[0])
    with Client(server.address, key, timeout=300) as client, pytest.raises(Unauthorized, match="uses no keys"):
        client.infer("echo", b"x")


def test_a_server_that_has_the_right_key_later_is_reached(guarded):
    right, wrong = guarded.key, pair()
    guarded.stop()
    guarded.configure = lambda socket: (
        socket.setsockopt(zmq.CURVE_SECRETKEY, wrong[1].encode()) or socket.setsockopt(zmq.CURVE_SERVER, 1)
    )
    guarded.start()
    with Client(guarded.address, key=right, timeout=300) as client:
        with pytest.raises(Unauthorized, match="key of the server"):
            client.infer("echo", b"x")
        guarded.stop()
        guarded.configure = guarded.right
        guarded.start()
        assert payload_of(client.infer("echo", b"x")) == b"x"


def test_what_hangs_up_before_it_greets_may_become_a_server():
    """As a tunnel does, or a load balancer, whose server is away."""
    key, over = Key(*pair(), pair()[0]), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()

        def hang_up():
            while not over.is_set():
                listener.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with (
            Client(f"tcp://127.0.0.1:{address[1]}", key=key) as client,
            pytest.raises(ServerUnavailable, match="hangs up at once"),
        ):
            client.infer("echo", b"x", timeout=1.0)
        over.set()
        socket.create_connection(address).close()
        thread.join()


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
