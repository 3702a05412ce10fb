"""docs/configuration.md holds every field as the program has it. Run this file to write its tables anew."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from parallel_infer.cli.config_options import ON_COMMAND_LINE
from parallel_infer.config.fields import MODEL_FIELDS, SERVER_FIELDS, Field, toml_value
from parallel_infer.config.sources import load_config
from parallel_infer.model_files.location import SERVED_BY_DEFAULT

MANUAL = Path(__file__).parents[1] / "docs" / "configuration.md"


def server_table() -> str:
    rows = ["| Name | Default | Accepts | Option | Meaning |", "|---|---|---|---|---|"]
    return "\n".join([*rows, *_rows(SERVER_FIELDS, {name: f"`--{_dashed(name)}`" for name in ON_COMMAND_LINE})])


def model_table() -> str:
    rows = ["| Name | Default | Accepts | Meaning |", "|---|---|---|---|"]
    return "\n".join([*rows, *_rows(MODEL_FIELDS, None)])


def _rows(fields: Mapping[str, Field], options: Mapping[str, str] | None) -> Iterator[str]:
    for field in fields.values():
        cells = [f"`{field.name}`", _default(field), _escaped(field.expected)]
        if options is not None:
            cells.append("`--model NAME=PATH`" if field.name == "models" else options.get(field.name, ""))
        yield "| " + " | ".join([*cells, _escaped(field.meaning)]) + " |"


def _default(field: Field) -> str:
    if field.default is msgspec.NODEFAULT:
        return "must be given"
    return "" if field.default is None or field.default == {} else f"`{toml_value(field.default)}`"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _with_tables(manual: str) -> str:
    for name, table in (("server", server_table()), ("model", model_table())):
        start, rest = manual.split(f"<!-- fields of a {name} -->\n")
        manual = f"{start}<!-- fields of a {name} -->\n{table}\n<!-- end -->{rest.partition('<!-- end -->')[2]}"
    return manual


def test_the_manual_is_that_of_the_program() -> None:
    manual = MANUAL.read_text("utf-8")
    assert manual.count("<!-- fields of a") == manual.count("<!-- end -->") == 2
    assert manual == _with_tables(manual), f"write its tables anew: python tests/{Path(__file__).name}"


def test_every_field_is_explained() -> None:
    for field in [*SERVER_FIELDS.values(), *MODEL_FIELDS.values()]:
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


if __name__ == "__main__":
    MANUAL.write_text(_with_tables(MANUAL.read_text("utf-8")), "utf-8")
