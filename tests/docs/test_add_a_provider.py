"""The steps of docs/architecture.md for a provider of one's own, walked in a copy of the packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.copied import blocks, copy_packages, replace, run

CHOSEN = """
from parallel_infer.inference.options import SessionConfig
from parallel_infer.inference.providers import CPU, Machine, OpenVino, choose, provider_list

config = SessionConfig(provider="xnnpack", threads=3)
names = frozenset({CPU, "XnnpackExecutionProvider"})
choice = choose(config, Machine(flags=frozenset(), providers=names, gpus=0, openvino=OpenVino.ABSENT))
print(choice.describe())
print(provider_list(config, choice))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project that has the provider of the page."""
    folder = tmp_path_factory.mktemp("provider")
    copy_packages(folder)
    entry, function = blocks("Add a provider", "architecture.md")
    replace(folder / "parallel_infer/execution_providers.py", ('"tensorrt"]', '"tensorrt", "xnnpack"]'))
    replace(
        folder / "parallel_infer/inference/providers.py",
        ('"tensorrt": tensorrt_options}', '"tensorrt": tensorrt_options, "xnnpack": xnnpack_options}'),
        ("ORT_NAMES: dict[ProviderName, str] = {", f"ORT_NAMES: dict[ProviderName, str] = {{\n{entry}    "),
        ("OPTIONS: dict", f"{function}\n\nOPTIONS: dict"),
    )
    return folder


def test_it_is_chosen_with_its_options_where_onnx_runtime_has_it(copy: Path) -> None:
    ran = run(copy, "-c", CHOSEN)

    assert ran.returncode == 0, ran.stderr
    chosen, listed = ran.stdout.splitlines()
    assert chosen == "xnnpack fp32 (cpu)"
    assert listed == str([("XnnpackExecutionProvider", {"intra_op_num_threads": "3"}), ("CPUExecutionProvider", {})])


def test_it_is_a_value_of_every_option_and_refused_by_name_where_it_is_missing(copy: Path) -> None:
    for command in ("serve", "tune", "run-async", "quantize"):
        assert "xnnpack" in run(copy, "-m", "parallel_infer", command, "--help").stdout, command
    program = (
        "from parallel_infer.inference.options import SessionConfig\n"
        "from parallel_infer.inference.providers import choose, survey\n"
        "config = SessionConfig(provider='xnnpack')\n"
        "choose(config, survey(config))\n"
    )
    assert "provider = xnnpack needs a build of ONNX Runtime that has it" in run(copy, "-c", program).stderr
