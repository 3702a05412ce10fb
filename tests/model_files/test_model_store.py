"""The store of model copies, without a server: who holds a copy, who shares it, and where there is none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from parallel_infer.errors import ConfigError, ModelRejected
from parallel_infer.model_files.digest import check_unchanged
from parallel_infer.model_files.store import CopyOrder, ModelStore, sweep_copies
from parallel_infer.model_spec import ModelSpec
from stages.recognise import graph as model_files
from stages.recognise.held import hold
from tests.engine.test_model_copies import write


def spec(path: Path, digest: str) -> ModelSpec:
    return ModelSpec(name="m", path=str(path), digest=digest, task="tensor", family="tensor", inputs=(), outputs=())


def test_where_no_folder_has_room_a_worker_refuses_what_has_changed(tmp_path):
    path = write(tmp_path / "m.onnx", 2)
    held = hold(path, CopyOrder(("/proc/nowhere/of/run/1",)))
    assert held is not None
    assert held.path == path
    assert "no room" in held.warning
    assert "model_copies" in held.warning
    check_unchanged(spec(path, held.digest))
    write(path, 3)
    with pytest.raises(ModelRejected, match="has changed since it was loaded"):
        check_unchanged(spec(path, held.digest))
    path.unlink()
    with pytest.raises(ModelRejected, match="cannot be read"):
        check_unchanged(spec(path, held.digest))


def test_a_folder_that_was_asked_for_and_has_no_room_is_said(tmp_path):
    path = write(tmp_path / "m.onnx", 2)
    with pytest.raises(ConfigError, match=r"model_copies: .*64 MB are needed"):
        hold(path, CopyOrder(("/proc/nowhere/of/run/1",), asked=True))


def test_a_file_that_is_being_written_to_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "m.onnx", 2)
    stamps = iter(range(10))
    monkeypatch.setattr(model_files, "written_at", lambda file: (next(stamps),))
    with pytest.raises(ModelRejected, match="being written to"):
        hold(path, CopyOrder())


def test_two_names_for_one_content_share_a_copy(tmp_path):
    path = write(tmp_path / "m.onnx", 2)
    store = ModelStore("run", str(tmp_path / "copies"), tmp_path)
    kept = []
    for _ in range(2):
        held = hold(path, store.order())
        assert held is not None
        kept.append(store.keep(spec(held.path, held.digest)))
    assert kept[0].path == kept[1].path != str(path)
    assert len(list((tmp_path / "copies").rglob("m.onnx"))) == 1
    store.release(kept[0])
    assert Path(kept[1].path).read_bytes() == path.read_bytes()
    store.release(kept[1])
    assert not Path(kept[1].path).exists()
    store.remove()


def test_a_run_holds_its_copies_from_the_first_byte_on(tmp_path):
    """Whatever the sweeper sees in /dev/shm: containers may share the place of the copies and nothing else."""
    path, place = write(tmp_path / "m.onnx", 2), tmp_path / "copies"
    store = ModelStore("run", str(place), tmp_path)
    held = hold(path, store.order())
    assert held is not None
    sweep_copies(str(place))
    assert held.path.exists(), "looked into, and not in use yet"
    kept = store.keep(spec(held.path, held.digest))
    sweep_copies(str(place))
    assert Path(kept.path).exists()
    store.remove()
    assert list(place.glob("*/*")) == []


def test_copies_of_a_process_that_is_gone_are_swept(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from parallel_infer.model_files.store import ModelStore; "
        "store = ModelStore('dead', sys.argv[1], Path('/')); Path(store.order().folders[0]).mkdir(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert len(list(tmp_path.glob("*/dead/1"))) == 1
    sweep_copies(str(tmp_path))
    assert list(tmp_path.glob("*/*")) == []


def test_a_copy_that_is_gone_is_not_shared(tmp_path):
    path = write(tmp_path / "m.onnx", 2)
    store = ModelStore("run", str(tmp_path / "copies"), tmp_path)
    for _ in range(2):
        held = hold(path, store.order())
        assert held is not None
        kept = store.keep(spec(held.path, held.digest))
        assert Path(kept.path).read_bytes() == path.read_bytes()
        shutil.rmtree(tmp_path / "copies")
    store.remove()
