"""docs/configuration.md holds every field as the program has it; scripts/docs_pages.py writes its tables."""

from __future__ import annotations

import re
from pathlib import Path

from parallel_infer.cli.config_options import ON_COMMAND_LINE
from parallel_infer.config.fields import FLEET_FIELDS, MODEL_FIELDS, SERVER_FIELDS
from parallel_infer.config.route_sources import ROUTE_FIELDS
from parallel_infer.config.sources import load_config
from parallel_infer.model_files.location import SERVED_BY_DEFAULT
from scripts.docs_pages import MANUAL, with_tables


def test_the_manual_is_that_of_the_program() -> None:
    manual = MANUAL.read_text("utf-8")
    assert manual.count("<!-- fields of a") == manual.count("<!-- end -->") == 4
    assert manual == with_tables(manual), "write its tables anew: python scripts/docs_pages.py"


def test_every_field_is_explained() -> None:
    for field in [*SERVER_FIELDS.values(), *MODEL_FIELDS.values(), *FLEET_FIELDS.values(), *ROUTE_FIELDS.values()]:
        assert field.meaning.endswith(".")
        assert field.expected
    assert set(SERVER_FIELDS) & set(ON_COMMAND_LINE) == set(ON_COMMAND_LINE)


def test_the_example_of_the_manual_is_a_configuration(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", MANUAL.read_text("utf-8"), re.DOTALL)
    for path in re.findall(r'path = "([a-z0-9/]+(?:\.onnx)?)"', example):
        file = tmp_path / path if path.endswith(".onnx") else tmp_path / path / "1" / "model.onnx"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / "server.toml").write_text(example)
    config = load_config({}, tmp_path / "server.toml", {})
    assert len(config.models) == 3
    assert set(config.models) != set(SERVED_BY_DEFAULT)
