"""Which files of a folder are pictures, and pictures as a server sees them, for whoever draws on them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

import parallel_infer
from parallel_infer.answers.answer import Answer
from parallel_infer.cli import main
from parallel_infer.errors import BadInput
from parallel_infer.pictures.files import SUFFIXES, look_into
from parallel_infer.tools.local_server import local_server
from parallel_infer.video.pipe import Order
from parallel_infer.video.readers import open_reader
from stages.pictures import Format
from tests.pictures.picture_samples import encoded, exif, jpeg_with, photo, reference, segment


def files_in(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).write_bytes(b"")
    return [folder / name for name in sorted(names)]


def test_every_format_has_its_suffixes() -> None:
    assert set(SUFFIXES) == set(get_args(Format))
    for common in (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".avif"):
        assert any(common in suffixes for suffixes in SUFFIXES.values())


def test_suffixes_count_in_capitals_too(tmp_path: Path) -> None:
    every = [f"a{suffix}" for suffixes in SUFFIXES.values() for suffix in suffixes]
    expected = files_in(tmp_path, *every, *(name.upper() for name in every), "b.JpEg")
    assert look_into(tmp_path) == (expected, "")


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    files_in(tmp_path, "a.jpg", "a.heic", "b.heic", "notes.txt", "README")
    (tmp_path / "more.jpg").mkdir()
    pictures, left_out = look_into(tmp_path)
    assert [path.name for path in pictures] == ["a.jpg"]
    assert left_out == (
        "4 files whose name is not that of a picture that can be read (2 .heic, 1 without a suffix, 1 .txt); "
        "1 folder inside"
    )


TURNED = jpeg_with(
    encoded(".jpg", photo(64, 48)),
    segment(0xE1, b"Exif\0\0" + exif(6).replace(b"\x01\x12\x00\x03", b"\x01\x31\x00\x03")),
    segment(0xE1, b"Exif\0\0" + exif(6)),
)  # by its second EXIF block; OpenCV looks at the first


def test_a_picture_is_read_as_the_server_sees_it(tmp_path: Path) -> None:
    (tmp_path / "a.jfif").write_bytes(TURNED)
    frame = parallel_infer.read_picture(tmp_path / "a.jfif")
    assert np.array_equal(
        frame, np.rot90(cv2.imdecode(np.frombuffer(TURNED, np.uint8), cv2.IMREAD_COLOR_BGR | 128), -1)
    )
    assert np.array_equal(parallel_infer.read_picture(TURNED), frame)
    assert parallel_infer.read_picture(encoded(".tiff", photo())).shape == (64, 96, 3)
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        parallel_infer.read_picture(tmp_path / "none.jpg")
    with pytest.raises(BadInput, match="not a picture"):
        parallel_infer.read_picture(b"text")


def answer_about(width: int, height: int) -> Answer:
    arrays: dict[str, Any] = {
        "boxes": np.array([[4, 4, 20, 20]], np.float32),
        "scores": np.ones(1, np.float32),
        "classes": np.zeros(1, np.int64),
    }
    return Answer("detect", "m", arrays, width=width, height=height, class_names={0: "a"})


def test_an_answer_is_drawn_on_the_picture_it_is_about(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(TURNED)
    answer = answer_about(48, 64)
    for source in (tmp_path / "a.jpg", str(tmp_path / "a.jpg"), TURNED):
        assert answer.draw(source).shape == (64, 48, 3)
    with pytest.raises(
        ValueError, match="lies on its side: it is 64x48, and the answer is about 48x64; read the picture"
    ):
        answer.draw(reference(encoded(".jpg", photo(64, 48))))
    assert answer.draw(np.zeros((32, 24, 3), np.uint8)).shape == (32, 24, 3)  # a preview


def test_a_folder_of_every_suffix_and_its_drawings(tmp_path: Path) -> None:
    folder, saved = tmp_path / "pictures", tmp_path / "saved"
    folder.mkdir()
    for name in ("a.jfif", "b.JPE", "c.Mpo"):
        (folder / name).write_bytes(TURNED)
    (folder / "d.apng").write_bytes(encoded(".png", photo()))
    (folder / "e.DIB").write_bytes(encoded(".bmp", photo()))
    (folder / "notes.txt").write_text("not one")
    with local_server(
        "--model", "classifier=zoo:classifier", "--formats", "jpeg", "--formats", "png", "--formats", "bmp"
    ) as server:
        arguments = ["infer", "--server", server.address, "--model", "classifier", "--json", "--save", saved, folder]
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [Path(line["file"]).name for line in lines] == ["a.jfif", "b.JPE", "c.Mpo", "d.apng", "e.DIB"]
    assert "left out of" in result.stderr
    assert "(1 .txt)" in result.stderr
    drawn = parallel_infer.read_picture(saved / "a.png")
    assert drawn.shape == (64, 48, 3)  # as the answer has it, not as the bytes lie


def test_a_folder_as_a_source_of_video_is_read_the_same_way(tmp_path: Path) -> None:
    (tmp_path / "a.JFIF").write_bytes(TURNED)
    (tmp_path / "b.jpg").write_bytes(b"text")
    (tmp_path / "c.txt").write_text("not one")
    reader = open_reader(Order("folder", os.fsencode(tmp_path), waits=True, fps=None, opening=5, silence=5))
    assert reader.grab()
    assert reader.take(None).shape == (64, 48, 3)
    assert reader.grab()
    with pytest.raises(Exception, match="b.jpg cannot be decoded as a picture: not a picture but text"):
        reader.take(None)
    assert not reader.grab()
    assert reader.end() == (
        True,
        "all 2 pictures read; left out: 1 file whose name is not that of a picture that can be read (1 .txt)",
    )
