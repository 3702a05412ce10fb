"""What a fleet is told: the table [fleet], the environment, --nodes, and what its servers are told of it all."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from parallel_infer.config.fields import FLEET_FIELDS, FLEET_PREFIX
from parallel_infer.config.fleet import Fleet, node_range, read_fleet
from parallel_infer.config.sources import load_config
from parallel_infer.errors import ConfigError
from parallel_infer.fleet.node import changes, check_files, server_toml


def written(folder: Path, text: str) -> Path:
    file = folder / "server.toml"
    file.write_text(text)
    return file


def read(folder: Path, text: str, environment: dict[str, str] | None = None, nodes: str | None = None) -> Fleet:
    return read_fleet(written(folder, text), environment or {}, nodes)


def test_a_file_without_a_fleet_says_what_to_add(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no table \[fleet\].*add for example\n\[fleet\]\nname"):
        read(tmp_path, "max_batch_size = 4\n")


def test_the_example_of_that_error_is_a_fleet(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as found:
        read(tmp_path, "")
    fleet = read(tmp_path, str(found.value).partition("\n")[2])
    assert (fleet.config.name, fleet.least, fleet.most) == ("main", 3, 3)


def test_places_win_over_one_another(tmp_path: Path) -> None:
    text = "[fleet]\nnodes = 2\ncpus = 2\n"
    environment = {"PARALLEL_INFER_FLEET_NODES": "1..4", "PARALLEL_INFER_FLEET_RESOURCES": '{"vision": 1}'}
    assert (fleet := read(tmp_path, text)).least == fleet.most == 2
    fleet = read(tmp_path, text, environment)
    assert (fleet.least, fleet.most, fleet.config.cpus, fleet.config.resources) == (1, 4, 2.0, {"vision": 1.0})
    assert read(tmp_path, text, environment, "8").most == 8


@pytest.mark.parametrize("value", ["0", "2..1", "1..1001", "many", "1..", "..3", "-1", "1.5", "", 0, 1.5])
def test_a_number_of_nodes_that_is_none_names_its_place(value: str | int) -> None:
    with pytest.raises(ConfigError, match=r"--nodes is .*expected 1 to 1000, or a range of them such as 1\.\.8"):
        node_range(value, "--nodes")


def test_ranges_may_have_blanks() -> None:
    assert node_range(" 1 .. 8 ", "") == (1, 8)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nodez = 3", r"\[fleet\]: unknown key 'nodez'; did you mean 'nodes'"),
        ("max_batch_size = 3", "'max_batch_size' does not belong here; it goes to the top of the file"),
        ('name = "a b"', r"\[fleet\] name is \"a b\"; expected 1 to 48 letters"),
        ('name = ""', r"\[fleet\] name is \"\"; expected 1 to 48 letters"),
        ("cpus = -1", r"\[fleet\] cpus is -1; expected a number from 0 to 4096"),
        ("gpus = 1.5", "parts of one GPU, or whole ones"),
        ("resources = { vision = 0 }", r"\[fleet\] resources: 'vision' is 0; expected a name and a number above 0"),
        ('router = "two"', r"\[fleet\] router is \"two\"; expected one of every, head, none"),
        ("port = 70000", r"\[fleet\] port is 70000; expected a whole number from 1 to 65535"),
        ('http = ["8000"]', "'8000' is no address of a door; HOST:PORT is needed"),
        ("silence_ms = 1", r"\[fleet\] silence_ms is 1; expected a number from 100"),
        ("most_lost = 0", r"\[fleet\] most_lost is 0; expected a whole number from 1"),
        ("target_pending = 0", r"\[fleet\] target_pending is 0; expected a number above 0"),
        ("nodes = true", r"\[fleet\] nodes is true; expected"),
    ],
)
def test_what_is_wrong_is_named_to_fleets_and_to_servers(tmp_path: Path, line: str, said: str) -> None:
    file = written(tmp_path, f"[fleet]\n{line}\n")
    with pytest.raises(ConfigError, match=said):
        read_fleet(file, {})
    if not line.startswith(("resources", "gpus", "name", "http")):  # what no field tells alone is the fleet's business
        with pytest.raises(ConfigError, match=said):
            load_config({}, file, {})


@pytest.mark.parametrize("text", ["fleet = 3\n", "[[fleet]]\n"])
def test_a_fleet_that_is_no_table(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected a table \[fleet\]"):
        read(tmp_path, text)


def test_a_server_takes_the_file_of_a_fleet_as_its_own(tmp_path: Path) -> None:
    file = written(tmp_path, "max_batch_size = 3\n[fleet]\nnodes = 2\n")
    assert load_config({}, file, {}).max_batch_size == 3


def test_variables_of_a_fleet_keep_no_server_from_starting(tmp_path: Path) -> None:
    environment = {FLEET_PREFIX + name.upper(): "1" for name in FLEET_FIELDS}
    assert load_config({}, None, environment).max_batch_size == load_config({}, None, {}).max_batch_size
    with pytest.raises(ConfigError, match="PARALLEL_INFER_FLEET_NODEZ; did you mean PARALLEL_INFER_FLEET_NODES"):
        load_config({}, None, {"PARALLEL_INFER_FLEET_NODEZ": "1"})


def test_paths_are_those_of_other_machines(tmp_path: Path) -> None:
    (tmp_path / "a.names").write_text("cat\ndog\n")
    text = '[fleet]\n[models.a]\npath = "models/a.onnx"\nnames = "a.names"\n[models.z]\npath = "zoo:pose"\n'
    fleet = read(tmp_path, text)
    assert fleet.models["a"] == {"path": str(tmp_path / "models/a.onnx"), "names": ["cat", "dog"]}
    assert fleet.models["z"] == {"path": "zoo:pose"}
    with pytest.raises(ConfigError, match="no model 'poze' is shipped"):
        read(tmp_path, '[fleet]\n[models.z]\npath = "zoo:poze"\n')
    with pytest.raises(ConfigError, match=r"\[models.a\] has no path"):
        read(tmp_path, "[fleet]\n[models.a]\nconf = 0.5\n")


def test_without_models_the_shipped_ones_are_served_and_with_a_repository_its_own(tmp_path: Path) -> None:
    assert set(read(tmp_path, "[fleet]\n").models) == {"detector", "classifier", "segmenter"}
    fleet = read(tmp_path, 'model_repository = "/models"\n[fleet]\n[models.a]\nconf = 0.5\n')
    assert fleet.models == {}
    assert fleet.server == {"model_repository": "/models", "models": {"a": {"conf": 0.5}}}


def test_addresses_of_the_file_are_nothing_to_a_fleet_and_that_is_said(tmp_path: Path) -> None:
    fleet = read(tmp_path, 'bind = ["tcp://0.0.0.0:1"]\n[fleet]\n')
    assert "bind" not in fleet.server
    assert "bind counts for no server of a fleet" in fleet.warnings[0]
    assert read(tmp_path, "[fleet]\n").warnings == ()


def test_a_router_of_servers_with_keys_needs_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[fleet\] key is not set, and the servers have keys"):
        read(tmp_path, 'keys = "keys"\n[fleet]\n')
    fleet = read(tmp_path, 'keys = "keys"\n[fleet]\nkey = "router.key"\n')
    assert fleet.config.key == str(tmp_path / "router.key")
    assert read(tmp_path, 'keys = "keys"\n[fleet]\nrouter = "none"\n').server["keys"] == str(tmp_path / "keys")


def test_servers_find_in_their_file_what_the_fleet_was_told(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").touch()
    text = f'max_batch_size = 3\nformats = ["jpeg"]\n[fleet]\n[models."a.b"]\npath = "{tmp_path}/a.onnx"\nconf = 0.5\n'
    fleet = read(tmp_path, text)
    sent = server_toml(fleet.server, fleet.models)
    assert tomllib.loads(sent)["models"]["a.b"]["conf"] == 0.5
    (tmp_path / "sent.toml").write_text(sent)
    config = load_config({}, tmp_path / "sent.toml", {})
    assert (config.max_batch_size, config.formats, config.models["a.b"].conf) == (3, ["jpeg"], 0.5)


def test_models_that_a_machine_lacks_are_all_named_with_the_machine(tmp_path: Path) -> None:
    (tmp_path / "here.onnx").touch()
    models = {name: {"path": str(tmp_path / f"{name}.onnx")} for name in ("here", "gone", "lost")}
    with pytest.raises(ConfigError, match=r"machine 10.0.0.7: model gone: there is no file .*model lost: .*same path"):
        check_files(models, "10.0.0.7")
    check_files({"here": models["here"]}, "10.0.0.7")


def test_a_change_of_models_is_what_differs() -> None:
    old = {"same": {"path": "/a"}, "other": {"path": "/b"}, "gone": {"path": "/c"}}
    new = {"same": {"path": "/a"}, "other": {"path": "/b", "conf": 0.1}, "new": {"path": "/d"}}
    assert changes(old, new) == (["gone"], ["other", "new"])
    assert changes(new, new) == ([], [])
