"""Files that commands write: never over something they read, and whole or not at all."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from parallel_infer.errors import ConfigError
from parallel_infer.files.outputs import Inputs, check_target, draft_beside, make_folder, write_new, write_whole

FULL = Path("/dev/full")


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """A file that is read."""
    file = tmp_path / "in" / "a.bin"
    file.parent.mkdir()
    file.write_bytes(b"original")
    return file


def spellings(original: Path, tmp_path: Path) -> dict[str, Path]:
    """Other ways to write its path."""
    (tmp_path / "hard.bin").hardlink_to(original)
    (tmp_path / "soft.bin").symlink_to(original)
    (tmp_path / "folder").symlink_to(original.parent)
    return {
        "same": original,
        "dots": original.parent / ".." / "in" / "a.bin",
        "dot": Path(f"{original.parent}/./a.bin"),
        "relative": Path(os.path.relpath(original)),
        "hard link": tmp_path / "hard.bin",
        "link": tmp_path / "soft.bin",
        "linked folder": tmp_path / "folder" / "a.bin",
    }


def test_an_input_is_known_by_any_spelling(original: Path, tmp_path: Path) -> None:
    inputs = Inputs([original, None, tmp_path / "missing", tmp_path])
    for name, path in spellings(original, tmp_path).items():
        assert inputs.at(path) == original, name
        with pytest.raises(ConfigError, match=f"--save {path} would write over {original}"):
            check_target(path, inputs, "--save")
    assert inputs.at(tmp_path / "in" / "b.bin") is None
    assert inputs.at(tmp_path) is None


def test_what_cannot_be_written_is_said_before(tmp_path: Path) -> None:
    nothing = Inputs()
    (tmp_path / "file").touch()
    for path, text in (
        (tmp_path, "is a folder"),
        (tmp_path / "none" / "x", "there is no folder"),
        (tmp_path / "file" / "x", "there is no folder"),
        (tmp_path / ("x" * 300), "File name too long"),
        (Path("/proc/x.json"), "nothing can be written to /proc"),
    ):
        with pytest.raises(ConfigError, match=text):
            check_target(path, nothing, "--save")
    with pytest.raises(ConfigError, match="cannot be made"):
        make_folder(Path("/proc/none/here"), "--save")
    with pytest.raises(ConfigError, match="is no folder"):
        make_folder(tmp_path / "file", "--save")
    check_target(tmp_path / "new", nothing, "--save")
    check_target(Path("/dev/null"), nothing, "--save")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write what is write-protected")
def test_a_write_protected_file_stays(tmp_path: Path) -> None:
    (tmp_path / "kept").touch(0o400)
    with pytest.raises(ConfigError, match="may not be written"):
        check_target(tmp_path / "kept", Inputs(), "--save")


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / ("x" * 250 + ".json")
    write_whole(file, b"1")
    file.chmod(0o640)
    write_whole(file, b"2")
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"2", 0o640)
    with contextlib.suppress(KeyboardInterrupt), draft_beside(file) as draft:
        draft.write_bytes(b"half")
        raise KeyboardInterrupt
    assert file.read_bytes() == b"2"
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_is_followed_and_a_device_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_whole(tmp_path / "link", b"1")
    assert (tmp_path / "real").read_bytes() == b"1"
    assert (tmp_path / "link").is_symlink()
    write_whole(Path("/dev/null"), b"1")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(ConfigError, match="/dev/full cannot be written: No space left on device"):
        write_whole(FULL, b"1")


def test_a_new_file_takes_no_name_that_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "new.key"
    write_new(file, b"1", 0o600)
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"1", 0o600)
    with pytest.raises(FileExistsError):
        write_new(file, b"2", 0o600)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "link", b"2", 0o600)
    assert file.read_bytes() == b"1"
    assert {path.name for path in tmp_path.iterdir()} == {"new.key", "link"}


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    """The limit on the size of files stands for the full disk: writing fails in the middle."""
    (tmp_path / "old").write_bytes(b"old")
    code = (
        "import resource, signal; from pathlib import Path; from parallel_infer.files.outputs import write_whole\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        f"write_whole(Path({str(tmp_path / 'old')!r}), bytes(100_000))"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ran.stderr.splitlines()[-1].endswith("old cannot be written: File too large")
    assert (tmp_path / "old").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
