"""Lines of text: which models read them, which class is the blank, and how steps become characters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from parallel_infer.answers.answer import Answer
from parallel_infer.answers.drawing import draw
from parallel_infer.answers.result_map import result_dict
from parallel_infer.cli.answer_formats import Csv, Tables
from parallel_infer.cli.video_display import summary
from parallel_infer.errors import InferError, ModelRejected
from parallel_infer.model_spec import ModelSpec
from stages.geometry import Geometry
from stages.pipeline import task_for
from stages.recognise import describe
from stages.tasks import Arrays
from tests.families.served import answer_of
from tests.families.tiny_graphs import finished, saved, tiny, zeros

Floats = npt.NDArray[np.float32]
FRAME = np.zeros((32, 100, 3), np.uint8)


def steps(classes: Sequence[int], count: int, score: float = 0.9) -> Floats:
    """[steps, count]: that score for a class at each step, the rest spread over the others."""
    table = np.full((len(classes), count), (1 - score) / (count - 1), np.float32)
    table[np.arange(len(classes)), classes] = score
    return table


def reads(
    tmp_path: Path, table: Floats, metadata: dict[str, str] | None = None, **options: Any
) -> tuple[ModelSpec, str]:
    spec = describe("m", saved(tiny({"output": table}, metadata=metadata), tmp_path), options)
    if spec.task != "text":
        return spec, ""
    return spec, answer_of(spec, FRAME)["text"].tobytes().decode()


def test_paddle_lists_its_characters(tmp_path: Path) -> None:
    """Before the characters stands the blank, behind them the space."""
    table = steps([0, 2, 2, 0, 2, 1, 4, 3, 0], 5)
    spec, text = reads(tmp_path, table, {"character": "a\nb\nü\n"})
    assert (spec.family, text) == ("ctc", "bba ü")
    assert (spec.preprocess["resize"], spec.preprocess["color"]) == ("letterbox-corner", "bgr")
    assert any("set resize, color, mean, std" in warning for warning in spec.warnings)


def test_repeats_are_one_character_and_blanks_part_them(tmp_path: Path) -> None:
    _, text = reads(tmp_path, steps([1, 1, 1, 0, 1, 2, 2, 0, 0, 2], 3), {"character": "o\nk"})
    assert text == "ookk"


@pytest.mark.parametrize(("names", "blank"), [(["", "a", "b"], 0), (["a", "b", "-"], 2), (["<blank>", "a", "b"], 0)])
def test_a_blank_that_is_listed(tmp_path: Path, names: list[str], blank: int) -> None:
    spec, text = reads(tmp_path, steps([blank, 1, blank], 3), names=names, task="text")
    assert (spec.parameters["blank"], text) == (blank, names[1])
    assert not any("set background" in warning for warning in spec.warnings)


@pytest.mark.parametrize("blank", [0, 2])
def test_a_blank_that_nobody_tells_is_what_noise_gives(tmp_path: Path, blank: int) -> None:
    spec, text = reads(tmp_path, steps([blank, 1, blank, blank], 3), names="a,b", task="text")
    assert (spec.parameters["blank"], text) == (blank, "a" if blank == 0 else "b"[:0] + spec.names[1])
    assert any(f"taken to be {blank}; set background" in warning for warning in spec.warnings)
    told, _ = reads(tmp_path, steps([blank, 1, blank, blank], 3), names="a,b", task="text", background=1)
    assert told.parameters["blank"] == 1


def test_logits_become_scores(tmp_path: Path) -> None:
    table = np.array([[9.0, -9, -9], [-9, 3.0, -9]], np.float32)
    spec, text = reads(tmp_path, table, {"character": "x\ny"})
    answer = answer_of(spec, FRAME)
    assert (spec.parameters["softmax"], text) == (True, "x")
    np.testing.assert_allclose(answer["scores"], [1.0], atol=1e-4)


def time_major() -> onnx.ModelProto:
    """[4, batch, 3], each picture's own."""
    table = steps([0, 1, 0, 2], 3)[:, None]
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["zero"]),
        helper.make_node("Reshape", ["zero", "middle"], ["row"]),
        helper.make_node("Add", ["table", "row"], ["output"]),
    ]
    return finished(
        helper.make_graph(
            nodes,
            "ctc",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 32, 128])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, [4, "batch", 3])],
            [
                numpy_helper.from_array(np.zeros((), np.float32), "nothing"),
                numpy_helper.from_array(np.array([1, -1, 1], np.int64), "middle"),
                numpy_helper.from_array(table, "table"),
            ],
        )
    )


def test_steps_in_time_first(tmp_path: Path) -> None:
    spec = describe("m", saved(time_major(), tmp_path), {"names": "a,b", "task": "text"})
    assert (spec.batch, spec.outputs[0].axis) == (1, 1)
    assert answer_of(spec, FRAME)["text"].tobytes() == b"ab"


def test_without_characters_it_is_tensors(tmp_path: Path) -> None:
    spec, _ = reads(tmp_path, steps([0, 1, 0], 7))
    assert spec.task == "tensor"
    with pytest.raises(ModelRejected, match="set names to what its classes read"):
        reads(tmp_path, steps([0, 1, 0], 7), task="text")
    with pytest.raises(ModelRejected, match="found 7 classes at each step; expected 3 characters and a blank"):
        reads(tmp_path, steps([0, 1, 0], 7), task="text", names="a,b,c")


def test_the_answer_as_a_string_and_as_a_map(tmp_path: Path) -> None:
    spec, _ = reads(tmp_path, steps([1, 0, 2], 3, 0.8), {"character": "x\nß"})
    arrays: Arrays = answer_of(spec, FRAME)
    answer = Answer("text", "m", arrays)
    assert answer.text == "xß"
    assert answer.classes.tolist() == [1, 2]
    result = result_dict("text", arrays, {}, width=100, height=32)
    assert (result["text"], round(result["confidence"], 4)) == ("xß", 0.8)
    assert answer_of(spec, FRAME, confidence=0.9)["text"].size == 0
    assert Answer("detect", "m", {}).text == ""


def test_outputs_that_are_no_scores_are_an_error(tmp_path: Path) -> None:
    spec, _ = reads(tmp_path, steps([1, 0, 2], 3), {"character": "x\ny"})
    task, where = task_for(spec), Geometry(1, 1, 1, 1, 0, 0)
    for wrong, said in (
        (np.full((3, 3), 7.0), "score 7"),
        (np.full((3, 3), np.nan), "finite"),
        (zeros(3, 4), "4"),
    ):
        with pytest.raises(InferError, match=said):
            task.answer({"output": wrong.astype(np.float32)}, where, task.options(b""))


def read_line(text: str) -> Answer:
    arrays = {
        "text": np.frombuffer(text.encode(), np.uint8),
        "scores": np.full(len(text), 0.5, np.float32),
        "classes": np.arange(len(text)),
    }
    return Answer("text", "m", arrays, {}, width=100, height=32)


def test_a_line_is_printed_as_text_and_not_as_objects(capsys: pytest.CaptureFixture[str]) -> None:
    tables, rows = Tables(), Csv()
    for text in ("Straße, 12", ""):
        tables.answer(Path("sign.png"), read_line(text))
        rows.answer(Path("sign.png"), read_line(text))
    printed = [line for line in capsys.readouterr().out.splitlines() if line]
    assert printed == [
        "sign.png: Straße, 12 (0.500)",
        "file,text,confidence",
        'sign.png,"Straße, 12",0.5',
        "sign.png: no text",
        "sign.png,,0",
    ]
    assert (summary(read_line("12")), summary(read_line(""))) == ("12", "no text")


def test_a_line_is_drawn_at_the_top() -> None:
    drawn = draw(FRAME, read_line("12"))
    assert drawn[:12].any()
    assert not drawn[20:].any()
    assert not draw(FRAME, read_line("")).any()
