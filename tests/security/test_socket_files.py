"""Sockets as files: one owner, this user only, nothing stale in the way."""

from __future__ import annotations

import os
import socket
import stat

import pytest

from parallel_infer.errors import ConfigError
from parallel_infer.gateway.access import SocketFile
from tests.security.guarded import door, echoed


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s"


def test_a_live_socket_cannot_be_taken_over(path):
    with door(f"ipc://{path}", None):
        with pytest.raises(ConfigError, match="in use by another server"):
            SocketFile(path)
        assert echoed(f"ipc://{path}", None)
    assert not path.exists()
    with door(f"ipc://{path}", None):  # free again
        assert echoed(f"ipc://{path}", None)
    assert list(path.parent.iterdir()) == []


def test_only_this_user_may_connect(path):
    before = os.umask(0)
    try:
        with door(f"ipc://{path}", None):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE((path.parent / "s.lock").stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_a_stale_socket_makes_room(path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    (path.parent / "s.lock").touch()
    with door(f"ipc://{path}", None):
        assert echoed(f"ipc://{path}", None)


def test_a_file_that_is_no_socket_stays(path):
    path.write_text("dear diary")
    with pytest.raises(ConfigError, match="no socket"):
        SocketFile(path)
    assert path.read_text() == "dear diary"
    assert not (path.parent / "s.lock").exists()


def test_a_missing_folder_is_said(path):
    with pytest.raises(ConfigError, match=r"the folder .*none does not exist"):
        SocketFile(path.parent / "none" / "s")


def test_a_lock_that_is_a_link_is_not_followed(path, tmp_path):
    (tmp_path / "s.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="cannot make"):
        SocketFile(path)
    assert not (tmp_path / "elsewhere").exists()
