"""The folder of keys, and the command that makes it."""

from __future__ import annotations

import hashlib
import json
import re
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import parallel_infer.keys.server
from parallel_infer.cli import main
from parallel_infer.client import Key
from parallel_infer.errors import ConfigError
from parallel_infer.ipc.client_socket import new_key_pair
from parallel_infer.keys.server import KeyFolder, KeyPair, KnownClient, add_client, add_server


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def keys(*arguments):
    return CliRunner().invoke(main, ["keys", *arguments])


def test_the_first_key_makes_the_folder(here):
    made = keys("new", "camera")
    assert made.exit_code == 0, made.output
    assert {path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()} == {
        "keys/server.key",
        "keys/clients/camera.pub",
        "camera.key",
    }
    for path in here.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)
    key, folder = Key.of(here / "camera.key"), KeyFolder.open(here / "keys")
    assert key.server == folder.server().public
    token = re.search(r"^token = (\S+)$", (here / "camera.key").read_text(), re.MULTILINE)[1]
    digest = hashlib.sha256(token.encode()).hexdigest()
    assert folder.client(key.public) == KnownClient("camera", key.public, manages=False, token=digest)
    assert folder.by_token(digest) == folder.client(key.public)
    assert folder.by_token(hashlib.sha256(b"another").hexdigest()) is None
    assert token not in (here / "keys/clients/camera.pub").read_text()
    assert key.secret not in (here / "keys/clients/camera.pub").read_text()
    assert key.secret not in made.output


def test_rights_and_the_list(here):
    assert keys("new", "--server", "house", "--dir", "k").exit_code == 0
    assert keys("new", "boss", "--manage", "--dir", "k", "--out", "b.key").exit_code == 0
    assert keys("new", "camera", "--dir", "k").exit_code == 0
    told = json.loads(keys("list", "--dir", "k", "--json").stdout)
    assert told["server"] == Key.of("b.key").server
    assert [(client["name"], client["manage"]) for client in told["clients"]] == [("boss", True), ("camera", False)]
    folder = KeyFolder.open("k")
    assert folder.manages("boss")
    assert not folder.manages("camera")
    assert not folder.manages("")
    shown = keys("list", "--dir", "k")
    assert "boss" in shown.stdout
    assert Key.of("b.key").secret not in shown.stdout


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "x" * 65, "näme"])
def test_a_name_is_no_path(here, name):
    refused = keys("new", "--", name)
    assert refused.exit_code == 2
    assert "is no name for a key" in refused.stderr
    assert refused.stdout == ""
    assert list(here.iterdir()) == [], "nothing was made for a name that is none"


def test_nothing_is_written_over(here):
    assert keys("new", "camera").exit_code == 0
    before = (here / "camera.key").read_bytes(), (here / "keys/clients/camera.pub").read_bytes()
    assert "is there already" in keys("new", "camera", "--out", "other.key").stderr
    assert "is there already" in keys("new", "--server", "x").stderr
    assert "is there already" in keys("new", "other", "--out", "camera.key").stderr
    assert not (here / "keys/clients/other.pub").exists()
    assert before == ((here / "camera.key").read_bytes(), (here / "keys/clients/camera.pub").read_bytes())


def test_options_that_contradict(here):
    assert "--manage and --out are about" in keys("new", "x", "--server", "--manage").stderr


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "keys"
    add_server(path, KeyPair(*new_key_pair()))
    return path


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda folder: folder.chmod(0o750), "is open to other users; say chmod 700"),
        (lambda folder: (folder / "server.key").chmod(0o640), "is open to other users; say chmod 600"),
        (lambda folder: (folder / "server.key").unlink(), "cannot read .*server.key: No such file"),
        (lambda folder: (folder / "server.key").write_text("public = x\n"), "needs exactly the lines public, secret"),
        (lambda folder: (folder / "server.key").write_text("public = x\nsecret = hush\n"), "public is no key"),
        (lambda folder: (folder / "server.key").write_bytes(b"\xff\xff"), "it is not text"),
    ],
)
def test_a_damaged_folder_is_refused(folder, damage, text):
    damage(folder)
    with pytest.raises(ConfigError, match=text) as raised:
        KeyFolder.open(folder)
    assert "hush" not in str(raised.value)


def test_no_folder(tmp_path):
    with pytest.raises(ConfigError, match="parallel-infer keys new NAME"):
        KeyFolder.open(tmp_path / "none")


def test_a_damaged_client_is_passed_over_and_the_others_stay(folder, caplog):
    good = new_key_pair()[0]
    add_client(folder, KnownClient("good", good, manages=False))
    (folder / "clients/bad.pub").write_text(f"public = {new_key_pair()[0]}\nmanage = perhaps\n")
    (folder / "clients/notes.txt").write_text("not a key")
    assert [client.name for client in KeyFolder.open(folder).clients()] == ["good"]
    assert "manage is 'perhaps'; expected yes or no" in caplog.text


def test_changes_count_from_the_next_look_on(folder):
    opened, public = KeyFolder.open(folder), new_key_pair()[0]
    assert opened.client(public) is None
    listed = add_client(folder, KnownClient("late", public, manages=False))
    assert opened.client(public)
    replaced = listed.with_suffix(".new")
    replaced.write_text(f"public = {public}\nmanage = yes\n")
    replaced.rename(listed)
    assert opened.manages("late")
    listed.unlink()
    assert opened.client(public) is None
    assert not opened.manages("late")


def settled(folder, monkeypatch):
    """The folder, all of it known for longer than time stamps of files are coarse."""
    now = time.time()
    monkeypatch.setattr(parallel_infer.keys.server.time, "time", lambda: now + 10.0)
    return KeyFolder.open(folder)


def test_a_handshake_costs_two_looks_and_reads_nothing_however_many_keys_there_are(folder, monkeypatch):
    keys = [new_key_pair()[0] for _ in range(30)]
    for number, public in enumerate(keys):
        add_client(folder, KnownClient(f"c{number}", public, manages=number == 7))
    opened, looks, reads = settled(folder, monkeypatch), [], []
    stat, read = Path.stat, parallel_infer.keys.server.read_text
    monkeypatch.setattr(Path, "stat", lambda path, **how: (looks.append(path), stat(path, **how))[1])
    monkeypatch.setattr(parallel_infer.keys.server, "read_text", lambda path: (reads.append(path), read(path))[1])
    for public in keys:
        assert opened.client(public) is not None
    assert opened.manages("c7")
    assert len(looks) == 2 * 31
    assert not reads
    stranger = new_key_pair()[0]
    for _ in range(100):
        assert opened.client(stranger) is None
    assert len(looks) <= 2 * 31 + 100
    add_client(folder, KnownClient("late", stranger, manages=False))
    assert opened.client(stranger) is not None
    assert {path.name for path in reads} == {"late.pub"}


def test_what_is_changed_within_a_file_counts_at_once(folder, monkeypatch):
    public, other = new_key_pair()[0], new_key_pair()[0]
    file = add_client(folder, KnownClient("boss", public, manages=True))
    opened = settled(folder, monkeypatch)
    assert opened.manages("boss")
    file.write_text(f"public = {public}\nmanage = no\n")
    assert not opened.manages("boss")
    assert opened.client(public) == KnownClient("boss", public, manages=False)
    file.write_text(f"public = {other}\nmanage = no\n")
    assert opened.client(public) is None
    assert opened.client(other) == KnownClient("boss", other, manages=False)
    file.write_text("rubbish")
    assert opened.client(other) is None
    assert not opened.manages("boss")


def test_a_key_written_into_a_file_that_was_there_is_known_a_second_later(folder, monkeypatch):
    file = add_client(folder, KnownClient("one", new_key_pair()[0], manages=False))
    now, other = time.time(), new_key_pair()[0]
    monkeypatch.setattr(parallel_infer.keys.server.time, "time", lambda: now + 10.0)
    clock = [100.0]
    opened = KeyFolder(folder, lambda: clock[0])
    opened.clients()
    file.write_text(f"public = {other}\nmanage = no\n")
    assert opened.client(other) is None
    clock[0] += parallel_infer.keys.server.STRANGERS
    assert opened.client(other) == KnownClient("one", other, manages=False)


def test_a_file_that_was_empty_while_it_was_written_anew_counts_at_once(folder, monkeypatch):
    now, public = time.time(), new_key_pair()[0]
    monkeypatch.setattr(parallel_infer.keys.server.time, "time", lambda: now + 10.0)
    file = add_client(folder, KnownClient("one", public, manages=True))
    text = file.read_text()
    opened = KeyFolder(folder, lambda: 100.0)
    assert opened.client(public) is not None
    file.write_text("")
    assert opened.client(public) is None
    file.write_text(text)
    assert opened.client(public) == KnownClient("one", public, manages=True)


def test_changes_one_right_after_the_other_are_all_seen(folder):
    public = new_key_pair()[0]
    file = add_client(folder, KnownClient("one", public, manages=True))
    opened = KeyFolder.open(folder)
    for number in range(200):  # of the same length, and faster than time stamps of files move
        file.write_text(f"public = {public}\nmanage = {'yes' if number % 2 else 'no '}\n")
        assert opened.manages("one") == bool(number % 2)
    for _ in range(50):
        file.unlink()
        assert opened.client(public) is None
        add_client(folder, KnownClient("one", public, manages=False))
        assert opened.client(public) is not None


def test_a_folder_that_is_put_in_the_place_of_another_counts(folder, monkeypatch):
    old, new = new_key_pair()[0], new_key_pair()[0]
    add_client(folder, KnownClient("old", old, manages=False))
    opened = settled(folder, monkeypatch)
    add_client(folder.parent / "next", KnownClient("new", new, manages=False))
    (folder / "clients").rename(folder.parent / "gone")
    assert opened.client(old) is None
    (folder.parent / "next" / "clients").rename(folder / "clients")
    assert opened.client(old) is None
    assert opened.client(new) is not None


def test_secrets_are_not_shown():
    pair = KeyPair(*new_key_pair())
    assert pair.secret not in repr(pair)
