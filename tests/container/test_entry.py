"""What a container fills in before it serves: models, keys, the socket of its health check."""

from __future__ import annotations

import importlib.util
import itertools
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from click import UsageError

from parallel_infer.errors import ConfigError
from parallel_infer.keys.client import Key
from parallel_infer.keys.server import KeyFolder

ROOT = Path(__file__).parents[2]
ENTRY = ROOT / "container" / "entry.py"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("container_entry", ENTRY)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


entry = _load()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PARALLEL_INFER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv(entry.CONFIG, str(ROOT / "container" / "server.toml"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root of a container in which only /dev/shm may be written."""
    (tmp_path / "dev" / "shm").mkdir(parents=True)
    return tmp_path


def completed(root: Path, *options: str) -> list[str]:
    return list(entry.completed(options, entry.Folders(root)))


def option(name: str, options: list[str]) -> list[str]:
    return [value for word, value in itertools.pairwise(options) if word == name]


def with_models(root: Path, *files: str) -> Path:
    for file in files:
        (root / "models" / file).parent.mkdir(parents=True, exist_ok=True)
        (root / "models" / file).touch()
    return root / "models"


def test_what_is_mounted_at_models_is_served(root: Path) -> None:
    folder = with_models(root, "street.onnx", "net/1/model.onnx")
    assert option("--model-repository", completed(root, "--insecure")) == [str(folder)]


def test_without_a_mount_the_shipped_models_are_served_and_that_is_said(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert option("--model-repository", completed(root, "--insecure")) == []
    assert "no models are given: the shipped ones are served" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["option", "environment", "file"])
def test_whoever_names_models_gets_those(root: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_models(root, "street.onnx")
    if place == "environment":
        monkeypatch.setenv("PARALLEL_INFER_MODELS", "pose=zoo:pose")
    if place == "file":
        (root / "server.toml").write_text('[models.pose]\npath = "zoo:pose"\n')
        monkeypatch.setenv(entry.CONFIG, str(root / "server.toml"))
    options = completed(root, "--insecure", *(["--model", "pose=zoo:pose"] if place == "option" else []))
    assert "--model-repository" not in options


def test_a_table_without_a_path_is_about_a_mounted_model(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = with_models(root, "street.onnx")
    (root / "server.toml").write_text("[models.street]\nconf = 0.5\n")
    monkeypatch.setenv(entry.CONFIG, str(root / "server.toml"))
    assert option("--model-repository", completed(root, "--insecure")) == [str(folder)]


def test_an_empty_mount_is_refused_by_name(root: Path) -> None:
    (root / "models").mkdir()
    assert option("--model-repository", completed(root, "--insecure")) == [str(root / "models")]  # `serve` refuses it
    with pytest.raises(ConfigError, match="there is no model in"):
        entry.effective(completed(root, "--insecure"))


def test_keys_are_made_once_and_shown_once(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "keys").mkdir()
    first = completed(root)
    assert option("--keys", first) == [str(root / "keys" / "server")]
    assert [client.name for client in KeyFolder.open(root / "keys" / "server").clients()] == ["client"]
    shown = capsys.readouterr().err
    text = (root / "keys" / "client.key").read_text()
    assert text in shown
    assert Key.of(root / "keys" / "client.key").server == KeyFolder.open(root / "keys" / "server").server().public
    assert completed(root) == first
    again = capsys.readouterr().err
    assert "secret" not in again
    assert (root / "keys" / "client.key").read_text() == text


def test_keys_without_any_place_go_with_the_container(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder,) = option("--keys", completed(root))
    assert Path(folder).is_relative_to(root / "dev" / "shm")
    assert "They go with this container: mount a volume" in capsys.readouterr().err
    assert stat.S_IMODE(Path(folder).parent.stat().st_mode) == 0o700


def test_a_folder_of_somebody_else_in_shared_memory_takes_no_keys(root: Path) -> None:
    entry.Folders(root).fleeting_keys.mkdir(mode=0o777)
    entry.Folders(root).fleeting_keys.chmod(0o777)
    with pytest.raises(ConfigError, match="is no folder of this user alone; remove it"):
        completed(root)


def test_without_shared_memory_there_is_no_place_for_keys(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no keys can be made: .*Mount a volume at /keys.*--keys.*--insecure"):
        completed(tmp_path)


def test_a_secret_that_is_mounted_flat_is_copied(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = root / "made"
    for name in ("camera", "boss"):
        new = [*_program(), "keys", "new", name, "--dir", str(made), "--out", str(root / f"{name}.key")]
        subprocess.run(new, check=True, capture_output=True)
    secret = root / "keys"
    secret.mkdir()
    for file in (made / "server.key", *(made / "clients").iterdir()):
        (secret / file.name).write_bytes(file.read_bytes())
        (secret / file.name).chmod(0o644)
    for _ in range(2):  # a container that is started again finds the copy of before
        (folder,) = option("--keys", completed(root))
        assert {client.name for client in KeyFolder.open(folder).clients()} == {"camera", "boss"}
    (secret / "boss.pub").unlink()
    (folder,) = option("--keys", completed(root))
    assert [client.name for client in KeyFolder.open(folder).clients()] == ["camera"]
    (secret / "camera.pub").unlink()
    completed(root)
    assert "nobody will be let in" in capsys.readouterr().err


def test_insecure_is_said_aloud_and_makes_no_keys(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "keys").mkdir()
    assert "--keys" not in completed(root, "--insecure")
    assert "WHOEVER REACHES ITS PORTS MAY USE THIS SERVER" in capsys.readouterr().err
    assert list((root / "keys").iterdir()) == []


def test_keys_of_ones_own_are_left_alone(root: Path) -> None:
    (root / "keys").mkdir()
    assert option("--keys", completed(root, "--keys", "/mine")) == ["/mine"]
    assert list((root / "keys").iterdir()) == []


def test_looking_at_a_configuration_makes_no_keys(root: Path) -> None:
    (root / "keys").mkdir()
    assert "--keys" not in completed(root, "--print-config")
    assert list((root / "keys").iterdir()) == []


def test_the_socket_of_the_health_check_is_one_of_the_addresses(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(entry.SOCKET, "ipc:///dev/shm/s")
    assert option("--bind", completed(root, "--insecure")) == ["tcp://0.0.0.0:5555", "ipc:///dev/shm/s"]
    asked = completed(root, "--insecure", "--bind", "tcp://0.0.0.0:1")
    assert entry.effective(asked).config.bind == ["tcp://0.0.0.0:1", "ipc:///dev/shm/s"]
    asked = completed(root, "--insecure", "--bind", "ipc:///dev/shm/s")
    assert entry.effective(asked).config.bind == ["ipc:///dev/shm/s"]


MEMBER = ("--member", "tcp://10.0.0.1:5555")


def test_a_router_listens_where_clients_and_the_health_check_reach_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(entry.SOCKET, "ipc:///dev/shm/s")
    folders = entry.Folders(root)
    assert option("--bind", entry.routed(MEMBER, folders)) == ["tcp://0.0.0.0:5555", "ipc:///dev/shm/s"]
    asked = entry.routed([*MEMBER, "--bind", "tcp://0.0.0.0:1"], folders)
    assert option("--bind", asked) == ["tcp://0.0.0.0:1", "ipc:///dev/shm/s"]
    monkeypatch.setenv("PARALLEL_INFER_ROUTE_BIND", "tcp://0.0.0.0:2")
    assert option("--bind", entry.routed(MEMBER, folders)) == []
    with pytest.raises(UsageError, match="--most-lots"):
        entry.routed([*MEMBER, "--most-lots", "1"], folders)


def test_a_router_takes_the_keys_of_a_secret_and_its_own(root: Path) -> None:
    folders = entry.Folders(root)
    assert option("--keys", entry.routed(MEMBER, folders)) == []  # none are there: `route` refuses to be open to all
    new = [*_program(), "keys", "new", "router", "--dir", str(root / "made"), "--out", str(root / "router.key")]
    subprocess.run(new, check=True, capture_output=True)
    (root / "keys").mkdir()
    for file in (root / "made" / "server.key", root / "made" / "clients" / "router.pub", root / "router.key"):
        (root / "keys" / file.name).write_bytes(file.read_bytes())
    found = entry.routed(MEMBER, folders)
    (folder,) = option("--keys", found)
    assert [client.name for client in KeyFolder.open(folder).clients()] == ["router"]
    assert option("--key", found) == [str(root / "keys" / "router.key")]
    assert option("--keys", entry.routed([*MEMBER, "--insecure"], folders)) == []
    assert option("--keys", entry.routed([*MEMBER, "--keys", "/mine"], folders)) == ["/mine"]


def test_a_wrong_option_is_named(root: Path) -> None:
    with pytest.raises(UsageError, match="--max-batchsize"):
        completed(root, "--max-batchsize", "1")


def _program() -> list[str]:
    return [str(Path(sys.executable).with_name("parallel-infer"))]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["keys", "--help"], "Make the keys that let clients in"),
        (["serve", "--help"], "Start a server and run it"),
        (["route", "--help"], "Spread jobs over several servers"),
        (["--help"], "Start a server and run it"),
        (["--model", "a=zoo:pose", "--insecure", "--print-config"], "[models.a]"),
    ],
)
def test_words_are_a_command_and_options_are_those_of_serve(words: list[str], expected: str) -> None:
    found = subprocess.run([sys.executable, ENTRY, *words], capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 0, found.stderr
    assert expected in found.stdout


def test_a_mistake_is_one_line_and_two() -> None:
    words = [sys.executable, ENTRY, "--queue-size", "none"]
    found = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 2
    assert found.stderr.startswith("container: ")
    assert len(found.stderr.splitlines()) == 1
