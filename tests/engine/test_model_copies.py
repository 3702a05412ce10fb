"""What was looked into is what is served, whatever becomes of the file; a reload looks at content and says so."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from parallel_infer.errors import ModelRejected
from tests.engine.serving import Server, eventually

HEAD = """
bind = ["ipc://{folder}/door"]
provider = "cpu"
threads = 1
decode_workers = 1
postprocess_workers = 1
shared_memory_mb = 16
max_payload_mb = 1
"""


def times(factor: float, width: int = 3) -> onnx.ModelProto:
    """x float32 [batch, width] -> y = factor * x."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]) for name in ("x", "y")]
    factors = numpy_helper.from_array(np.full(width, factor, np.float32), "k")
    graph = helper.make_graph([helper.make_node("Mul", ["x", "k"], ["y"])], "times", value[:1], value[1:], [factors])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write(path: Path, factor: float, width: int = 3) -> Path:
    path.write_bytes(times(factor, width).SerializeToString())
    return path


def write_with_data(path: Path, factor: float) -> Path:
    """The same with its factors in a file of its own, in a folder."""
    (path.parent / "data").mkdir(exist_ok=True)
    model = times(factor, 300)
    onnx.save_model(model, path, save_as_external_data=True, location=f"data/{path.stem}.bin", size_threshold=0)
    return path


def in_place(path: Path) -> None:
    content = times(3).SerializeToString()
    path.write_bytes(content)


def renamed(path: Path) -> None:
    write(path.with_suffix(".new"), 3).replace(path)


def switched(path: Path) -> None:
    """A link that points to another release, as deployments do it."""
    link = path.with_suffix(".link")
    link.symlink_to(write(path.with_suffix(".v2"), 3))
    link.replace(path)


def truncated(path: Path) -> None:
    os.truncate(path, 20)


def deleted(path: Path) -> None:
    path.unlink()


def another_shape(path: Path) -> None:
    write(path, 3, width=5)


def data_overwritten(path: Path) -> None:
    data = path.parent / "data" / f"{path.stem}.bin"
    data.write_bytes(np.full(300, 3, np.float32).tobytes())


def data_deleted(path: Path) -> None:
    shutil.rmtree(path.parent / "data")


PLAIN: dict[str, Callable[[Path], None]] = {
    function.__name__: function for function in (in_place, renamed, switched, truncated, deleted, another_shape)
}
WITH_DATA = {function.__name__: function for function in (data_overwritten, data_deleted)}


@pytest.fixture
def folder(short_folder: Path) -> Path:
    for name in ("models", "copies"):
        (short_folder / name).mkdir()
    return short_folder


Start = Callable[..., Server]


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts the one server of a test with these models; what it copies lies in `folder`/copies."""
    servers: list[Server] = []

    def begin(models: dict[str, Path], more: str = "") -> Server:
        configure(folder, models, more)
        servers.append(Server(folder, "--config", str(folder / "server.toml")))
        servers[0].wait_until_ready()
        return servers[0]

    yield begin
    try:
        servers[0].check_clean_end()
        assert list((folder / "copies").glob("*/*")) == []
    finally:
        servers[0].close()


def configure(folder: Path, models: dict[str, Path], more: str = "") -> None:
    tables = [f'[models.{name}]\npath = "{path}"\nmax_batch_size = 1\n' for name, path in models.items()]
    head = HEAD.format(folder=folder) + f'model_copies = "{folder}/copies"\n{more}'
    (folder / "server.toml").write_text(head + "".join(tables))


def ask(client: object, name: str, width: int = 3) -> float:
    (value,) = {float(value) for value in client.infer(name, np.ones(width, np.float32)).tensors["y"]}  # type: ignore[attr-defined]
    return value


def copies(folder: Path) -> list[Path]:
    return sorted((folder / "copies").glob("*/*/*/*"))


def served(client: object) -> dict[str, dict[str, object]]:
    return {model["name"]: model for model in client.models()}  # type: ignore[attr-defined]


def test_a_file_that_changes_changes_no_answer_of_its_version(start, folder):
    files = {name: write(folder / "models" / f"{name}.onnx", 2) for name in PLAIN}
    files |= {name: write_with_data(folder / "models" / f"{name}.onnx", 2) for name in WITH_DATA}
    widths = {name: 300 if name in WITH_DATA else 3 for name in files}
    server = start(files, "instances = 1\n")
    for name, change in (PLAIN | WITH_DATA).items():
        change(files[name])
    workers = {title: child for title, child in server.children().items() if title.startswith("infer-")}
    assert len(workers) == len(files)
    for worker in workers.values():
        worker.kill()
    with server.client() as client:
        answers = {name: ask(client, name, width) for name, width in widths.items()}
        processes = client.status()["processes"]
        versions = {model["version"] for model in client.models()}
    assert answers == dict.fromkeys(files, 2.0)
    assert {processes[title]["restarts"] for title in workers} == {1}, "one restart each, and no loop"
    assert versions == {1}


def test_digests_are_those_of_sha256sum(start, folder):
    plain = write(folder / "models" / "plain.onnx", 2)
    large = write_with_data(folder / "models" / "large.onnx", 2)
    server = start({"plain": plain, "large": large})
    with server.client() as client:
        shown, status = served(client), client.status()["models"]
    assert shown["plain"]["digest"] == hashlib.sha256(plain.read_bytes()).hexdigest()
    listed = subprocess.run(
        ["sha256sum", "large.onnx", "data/large.bin"], cwd=large.parent, capture_output=True, check=True
    )
    assert shown["large"]["digest"] == hashlib.sha256(listed.stdout).hexdigest()
    assert {name: model["digest"] for name, model in status.items()} == {n: m["digest"] for n, m in shown.items()}


def test_a_load_looks_at_content_and_says_what_it_did(start, folder):
    first, same = write(folder / "models" / "a.onnx", 2), write(folder / "models" / "b.onnx", 2)
    server = start({"m": first})
    with server.client() as client:
        for path in (first, same):
            again = client.load("m", str(path), max_batch_size=1)
            assert (again["became"], again["version"]) == ("unchanged", 1)
        write(first, 3)
        assert ask(client, "m") == 2
        changed = client.load("m", str(first), max_batch_size=1)
        assert (changed["became"], changed["version"]) == ("changed (its content)", 2)
        eventually(lambda: len(copies(folder)) == 1)
        assert ask(client, "m") == 3
        changed = client.load("m", str(first), max_batch_size=2)
        assert (changed["became"], changed["version"]) == ("changed (the settings max_batch_size)", 3)
        other = client.load("n", str(same))
        assert (other["became"], other["version"]) == ("new", 1)
        truncated(first)
        with pytest.raises(ModelRejected, match="holds no graph|not an ONNX|damaged"):
            client.load("m", str(first), max_batch_size=2)
        assert ask(client, "m") == 3
        assert served(client)["m"]["version"] == 3
        eventually(lambda: [path.name for path in copies(folder)] == ["a.onnx", "b.onnx"])


def test_a_hangup_looks_at_content_and_says_what_became_of_each_model(start, folder):
    files = {name: write(folder / "models" / f"{name}.onnx", 2) for name in ("same", "other", "gone", "broken")}
    server = start(files)
    write(files["other"], 3)
    truncated(files["broken"])
    files["fresh"] = write(folder / "models" / "fresh.onnx", 7)
    configure(folder, {name: path for name, path in files.items() if name != "gone"}, "queue_size = 9\n")
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: "take a restart" in server.log.read_text())
    lines = [line.partition(": ")[2] for line in server.log.read_text().splitlines() if "SIGHUP" in line]
    assert lines[1].startswith(
        "SIGHUP: not taken over, and served as before where it was: model 'broken': broken.onnx "
    )
    assert lines[2] == "SIGHUP: these settings have changed and take a restart: queue_size"
    outcomes = dict(part.split(": ", 1) for part in lines[0].split("; ")[1:])
    assert outcomes == {
        "model gone": "removed",
        "model same": "unchanged",
        "model other": "changed (its content)",
        "model fresh": "new",
        "model broken": "refused",
    }
    assert server.log.read_text().count("broken.onnx") == 1, "an error is said once"
    eventually(lambda: "model gone: version 1 is closed" in server.log.read_text())
    text = server.log.read_text()
    assert text.index("model fresh is served") < text.index("model gone: version 1 is closed"), "first what is new"
    with server.client() as client:
        versions = {name: model["version"] for name, model in served(client).items()}
        assert versions == {"same": 1, "other": 2, "broken": 1, "fresh": 1}
        assert [ask(client, name) for name in ("same", "other", "broken", "fresh")] == [2, 3, 2, 7]


def test_a_hangup_with_a_configuration_that_is_wrong_changes_nothing(start, folder):
    server = start({"m": write(folder / "models" / "m.onnx", 2)})
    for content, why in (("queue_size = many", "is not a TOML file"), ("", "names no model any more")):
        (folder / "server.toml").write_text(content)  # an editor empties a file before it writes it
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda why=why: why in server.log.read_text())
    assert server.log.read_text().count("SIGHUP: the configuration was not taken over") == 2
    with server.client() as client:
        assert ask(client, "m") == 2


def test_copies_that_somebody_removed_are_made_again_by_a_load(start, folder):
    file = write(folder / "models" / "m.onnx", 2)
    server = start({"m": file})
    for path in (folder / "copies").iterdir():
        shutil.rmtree(path)
    with server.client() as client:
        again = client.load("m", str(file), max_batch_size=1)
        assert (again["became"], again["version"]) == ("changed (started anew)", 2)
        assert ask(client, "m") == 2
        assert [path.name for path in copies(folder)] == ["m.onnx"]
        assert client.load("m", str(file), max_batch_size=1)["became"] == "unchanged"
