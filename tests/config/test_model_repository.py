"""A folder of models: what is served of it, what is passed over, and what a configuration may say besides."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from parallel_infer.config.sources import Configuration, load_config, read_config
from parallel_infer.errors import ConfigError
from parallel_infer.model_files.repository import read_repository


def put(folder: Path, *files: str) -> Path:
    """Empty files; nobody looks into a model here."""
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return folder


def configured(folder: Path, toml: str = "", **arguments: object) -> Configuration:
    (folder.parent / "server.toml").write_text(toml)
    return read_config({"model_repository": str(folder), **arguments}, folder.parent / "server.toml", {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return put(tmp_path / "models", "street.onnx", "street.onnx.data", "parts/1/model.onnx", "parts/12/model.onnx")


def test_files_and_folders_of_versions_are_models(folder: Path) -> None:
    put(folder, "README.md", "street.txt", ".hidden.onnx", "..data/x/1/model.onnx", "UPPER.ONNX")
    (folder / "lost+found").mkdir()
    found = read_repository(folder)
    assert found.models == {
        "street": str(folder / "street.onnx"),
        "parts": str(folder / "parts" / "12" / "model.onnx"),
        "UPPER": str(folder / "UPPER.ONNX"),
    }
    assert found.warnings == ()


def test_links_as_kubernetes_makes_them_are_followed(folder: Path, tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "1/model.onnx", "new.onnx")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "new.onnx").symlink_to(tmp_path / "elsewhere" / "new.onnx")
    assert {"linked", "new"} < set(read_repository(folder).models)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("flat/model.onnx", "flat is passed over: .*is a folder without VERSION/model.onnx"),
        ("several/a/1/model.onnx", "several is passed over: .*holds several models: a"),
        ("old.pt", "old.pt is passed over: only ONNX files are served"),
        ("old.engine", "old.engine is passed over: only ONNX files are served"),
        ("parts/config.pbtxt", r"config.pbtxt is not read \(of parts\).*\[models.NAME\]"),
    ],
)
def test_what_is_passed_over_is_named(folder: Path, file: str, text: str) -> None:
    before = read_repository(folder).models
    put(folder, file)
    found = read_repository(folder)
    assert found.models == before
    (warning,) = found.warnings
    assert re.search(text, warning)
    assert warning in configured(folder).warnings


def test_a_link_that_leads_nowhere_is_named(folder: Path) -> None:
    (folder / "gone.onnx").symlink_to(folder / "nothing")
    (warning,) = read_repository(folder).warnings
    assert "gone.onnx is passed over: its link leads nowhere" in warning


def test_a_repository_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no model in .*expected NAME.onnx or NAME/1/model.onnx"):
        read_repository(tmp_path)
    put(tmp_path, "flat/model.onnx")
    with pytest.raises(ConfigError, match=r"there is no model in .*; .*flat is passed over"):
        load_config({"model_repository": str(tmp_path)}, None, {})


def test_a_repository_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model_repository: cannot read the folder .*: No such file or directory"):
        read_repository(tmp_path / "none")
    with pytest.raises(ConfigError, match="model_repository: cannot read the folder .*: Not a directory"):
        read_repository(put(tmp_path, "file") / "file")


def test_two_models_of_one_name_are_refused(folder: Path) -> None:
    put(folder, "street/1/model.onnx")
    with pytest.raises(ConfigError, match=r"holds the model 'street' twice: .* and .*; remove one"):
        read_repository(folder)


def test_a_table_sets_options_of_a_model_of_the_repository(folder: Path) -> None:
    found = configured(folder, "[models.street]\nconf = 0.5\n")
    assert found.config.models["street"].path == str(folder / "street.onnx")
    assert found.config.models["street"].conf == 0.5
    assert found.origins["models.street.path"] == f"model_repository {folder}"
    assert set(found.config.models) == {"street", "parts"}
    assert found.names_models


def test_a_path_that_is_given_counts_for_more_than_the_repository(folder: Path, tmp_path: Path) -> None:
    put(tmp_path, "mine.onnx")
    found = configured(folder, models=[f"street={tmp_path / 'mine.onnx'}", "pose=zoo:pose"])
    assert found.config.models["street"].path == str(tmp_path / "mine.onnx")
    assert set(found.config.models) == {"street", "pose", "parts"}


def test_a_table_without_a_path_needs_a_model_in_the_repository(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[models.stret\] has no path, and the model repository .* has no such"):
        configured(folder, "[models.stret]\nconf = 0.5\n")


def test_a_relative_repository_starts_at_the_file(tmp_path: Path) -> None:
    put(tmp_path / "models", "a.onnx")
    (tmp_path / "server.toml").write_text('model_repository = "models"\n')
    assert load_config({}, tmp_path / "server.toml", {}).models["a"].path == str(tmp_path / "models" / "a.onnx")
