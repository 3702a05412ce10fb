"""The file for Ray Serve: what stands where, its YAML, and that its checks can fail."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel_infer.config.fleet import read_fleet
from parallel_infer.fleet.scaling import PENDING, wanted
from parallel_infer.fleet.serve_file import application_names, check_structure, serve_file
from parallel_infer.fleet.yaml_text import to_yaml
from parallel_infer.loading import load_by_name

yaml = pytest.importorskip("yaml", reason="PyYAML comes with kubernetes-validate")


def file_of(folder: Path, text: str) -> dict[str, Any]:
    (folder / "server.toml").write_text(text)
    return serve_file(read_fleet(folder / "server.toml", {}), "host:/server.toml")


def test_two_applications_and_what_may_change_stands_under_deployments(tmp_path: Path) -> None:
    text = "max_batch_size = 4\n[fleet]\nnodes = 3\ncpus = 2\ngpus = 1\nresources = { vision = 1 }\nport = 7\n"
    text += 'http = ["127.0.0.1:8000"]\n'
    router, nodes = file_of(tmp_path, text + '[models.a]\npath = "zoo:pose"\n')["applications"]
    assert [router["name"], nodes["name"]] == [*application_names("main")]
    assert router["deployments"][0]["ray_actor_options"]["resources"] == {"node:__internal_head__": 0.001}
    assert router["args"]["route"]["port"] == 7
    assert router["args"]["route"]["http"] == ["127.0.0.1:8000"]
    (node,) = nodes["deployments"]
    assert [node["autoscaling_config"][name] for name in ("min_replicas", "max_replicas")] == [3, 3]
    assert node["max_replicas_per_node"] == 1
    assert node["ray_actor_options"] == {"num_cpus": 2.0, "num_gpus": 1.0, "resources": {"vision": 1.0}}
    assert node["user_config"] == {"models": {"a": {"path": "zoo:pose"}}, "origin": "host:/server.toml"}
    assert nodes["args"]["server"] == {"max_batch_size": 4}


def test_what_changes_models_and_numbers_changes_no_arguments(tmp_path: Path) -> None:
    """Serve replaces every replica of an application whose arguments change, and of no other."""
    one = file_of(tmp_path, "[fleet]\nnodes = 3\n")
    text = '[fleet]\nnodes = "1..8"\ntarget_pending = 3\nscale_up_ms = 1\n[models.a]\npath = "zoo:pose"\n'
    other = file_of(tmp_path, text)
    for before, after in zip(one["applications"], other["applications"], strict=True):
        assert {**before, "deployments": 0} == {**after, "deployments": 0}
        for old, new in zip(before["deployments"], after["deployments"], strict=True):
            assert old["ray_actor_options"] == new["ray_actor_options"]
            assert old.get("autoscaling_config", {}).get("policy") == new.get("autoscaling_config", {}).get("policy")
    changed = file_of(tmp_path, "max_batch_size = 4\n[fleet]\nnodes = 3\n")
    assert changed["applications"][0] == one["applications"][0]  # the router stays
    assert changed["applications"][1]["args"] != one["applications"][1]["args"]


def test_a_range_is_scaled_by_the_jobs_under_way(tmp_path: Path) -> None:
    text = '[fleet]\nnodes = "1..8"\ntarget_pending = 6\nscale_up_ms = 500\nscale_down_ms = 1500\n'
    (node,) = file_of(tmp_path, text)["applications"][1]["deployments"]
    scaling = node["autoscaling_config"]
    assert [scaling[name] for name in ("min_replicas", "max_replicas")] == [1, 8]
    assert [scaling[name] for name in ("upscale_delay_s", "downscale_delay_s")] == [0.5, 1.5]
    assert scaling["target_ongoing_requests"] == 6
    policy = load_by_name(scaling["policy"]["policy_function"])
    assert policy(Context({"a": 6.0, "b": 7.0}))[0] == 3
    assert policy(Context({}))[0] == 2  # nothing is known: as it was


class Context:
    """What the policy reads of Serve's AutoscalingContext."""

    target_num_replicas = 2

    def __init__(self, pending: dict[str, float]) -> None:
        self.config = SimpleNamespace(target_ongoing_requests=6.0)
        self.aggregated_metrics = {PENDING: pending} if pending else None


@pytest.mark.parametrize(
    ("pending", "number"), [(0, 1), (1, 1), (24, 1), (24.1, 1), (25, 2), (48, 2), (49, 3), (2400, 100)]
)
def test_servers_for_so_many_jobs(pending: float, number: int) -> None:
    assert wanted(pending, 24) == number


@pytest.mark.parametrize(("router", "names"), [("none", ["main-nodes"]), ("every", ["main-nodes"])])
def test_a_fleet_without_a_router_on_the_head(tmp_path: Path, router: str, names: list[str]) -> None:
    file = file_of(tmp_path, f'insecure = true\n[fleet]\nrouter = "{router}"\n')
    assert [application["name"] for application in file["applications"]] == names
    assert ("route" in file["applications"][0]["args"]) == (router == "every")


def test_replicas_get_the_time_that_their_servers_take_to_end(tmp_path: Path) -> None:
    (node,) = file_of(tmp_path, "drain_timeout_ms = 60000\n[fleet]\n")["applications"][1]["deployments"]
    assert node["graceful_shutdown_timeout_s"] > 60


def test_the_check_of_the_structure_can_fail(tmp_path: Path) -> None:
    file = file_of(tmp_path, "[fleet]\n")
    check_structure(file)
    for spoil in (
        lambda file: file.pop("applications"),
        lambda file: file["applications"][0].update(imports="x"),
        lambda file: file["applications"][1]["deployments"][0].update(max_replicas_per_node=0),
    ):
        spoiled = msgspec.json.decode(msgspec.json.encode(file))
        spoil(spoiled)
        with pytest.raises(msgspec.ValidationError):
            check_structure(spoiled)


@pytest.mark.filterwarnings("ignore:.*metrics_interval_s")  # Ray would have it in its environment
def test_rays_own_schema_takes_it(tmp_path: Path) -> None:
    schema = pytest.importorskip("ray.serve.schema", reason="ray is not installed: pip install parallel-infer[ray]")
    for text in ("[fleet]\n", '[fleet]\nnodes = "1..8"\n', 'insecure = true\n[fleet]\nrouter = "every"\n'):
        file = file_of(tmp_path, text)
        found = schema.ServeDeploySchema.model_validate(file)
        assert [one.name for one in found.applications] == [one["name"] for one in file["applications"]]


def test_the_printed_file_is_the_one_that_is_sent(tmp_path: Path) -> None:
    file = file_of(tmp_path, '[fleet]\nnodes = "1..8"\n[models."a: b"]\npath = "zoo:pose"\n')
    assert yaml.safe_load(to_yaml(file)) == file


numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=8)


@settings(max_examples=40)
@given(st.dictionaries(texts, values, max_size=4))
def test_yaml_reads_back_as_it_was(value: dict[str, Any]) -> None:
    if value:
        assert yaml.safe_load(to_yaml(value)) == value


@pytest.mark.parametrize("word", ["yes", "No", "null", "on", "1e5", "0x10", "~", "2026-01-01", "- a", "a: b", "#", ""])
def test_words_that_yaml_would_read_otherwise(word: str) -> None:
    assert yaml.safe_load(to_yaml({word: word, "list": [word]})) == {word: word, "list": [word]}
