"""The folder of keys, and the command that makes it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from parallel_infer.channel import new_key_pair
from parallel_infer.cli import main
from parallel_infer.client import Key
from parallel_infer.errors import ConfigError
from parallel_infer.keys import KeyFolder, KeyPair, KnownClient, add_client, add_server


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
    assert folder.client(key.public) == KnownClient("camera", key.public, manages=False)
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


def test_secrets_are_not_shown():
    pair = KeyPair(*new_key_pair())
    assert pair.secret not in repr(pair)
