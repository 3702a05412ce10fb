"""Find and read, find and recognise: chains whose next model reads a line or gives a vector, all the way to users."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from parallel_infer import Answer, Client
from parallel_infer.cli import main
from tests.doors.door_server import Doors, ask, free_port
from tests.engine import chain_graphs
from tests.engine.serving import Server

PLATES = [(16, 16, 16, 4, 0.9), (48, 40, 16, 4, 0.8)]  # of 64 x 64; eight times that in the pictures
DEGREES = (30, -60, 90)
CHAINS = {
    "plates": "finder > reader",
    "both": "finder > reader, colors",
    "squares": "blobs > colors",
    "named": "squares > reader",
    **{f"tilted{number}": f"obb{number} > reader(wide=true)" for number in range(len(DEGREES))},
}


@pytest.fixture(scope="module")
def doors(_adopt_orphans: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    pytest.importorskip("aiohttp", reason="the HTTP door needs the extra http")
    folder = tmp_path_factory.mktemp("reads")
    files = {
        "finder": chain_graphs.finder(folder / "finder.onnx", PLATES),
        "reader": chain_graphs.reader(folder / "reader.onnx"),
        "colors": chain_graphs.colors(folder / "colors.onnx"),
        "blobs": chain_graphs.blobs(folder / "blobs.onnx", 12),
    }
    for number, degrees in enumerate(DEGREES):
        row = (32, 32, 16, 4, 0.9, np.radians(degrees))
        files[f"obb{number}"] = chain_graphs.finder(folder / f"obb{number}.onnx", [row], "obb")
    http = f"127.0.0.1:{free_port()}"
    server = Server(
        folder,
        *("--bind", "tcp://127.0.0.1:0", "--http", http, "--provider", "cpu", "--instances", "1"),
        *(f"--model={name}={path}" for name, path in files.items()),
        *(f"--chain={name}={steps}" for name, steps in CHAINS.items()),
    )
    try:
        server.wait_until_ready()
        yield Doors(server, http, "", "", "")
        server.check_clean_end()
    finally:
        server.close()


@pytest.fixture(scope="module")
def client(doors: Doors) -> Iterator[Client]:
    with doors.server.client() as found:
        yield found


def street(first: str, second: str) -> chain_graphs.Frame:
    """Two lines where the finder finds its plates, 512 x 512."""
    frame = np.zeros((512, 512, 3), np.uint8)
    for text, (x, y, *_) in zip((first, second), PLATES, strict=True):
        frame[8 * y - 16 : 8 * y + 16, 8 * x - 64 : 8 * x + 64] = chain_graphs.written(text)
    return frame


def png(frame: chain_graphs.Frame) -> bytes:
    done, encoded = cv2.imencode(".png", frame)
    assert done
    return encoded.tobytes()


def texts(found: Answer, name: str = "reader") -> list[str]:
    children = [each[name] for each in found.children]
    assert all(isinstance(child, Answer) for child in children)
    return [child.text for child in children if isinstance(child, Answer)]


def test_each_plate_has_the_text_that_stands_on_it(client: Client) -> None:
    frames = [street("40712", "99035"), street("99035", "40712"), street("1", "")]
    found = client.infer_many("plates", [*frames, png(frames[0])])
    assert [texts(each) for each in found if isinstance(each, Answer)] == [
        ["40712", "99035"],
        ["99035", "40712"],
        ["1", ""],
        ["40712", "99035"],
    ]


@pytest.mark.parametrize("number", range(len(DEGREES)), ids=map(str, DEGREES))
def test_a_line_at_any_angle_is_read_upright(client: Client, number: int) -> None:
    frame = chain_graphs.turned(chain_graphs.written("31415"), DEGREES[number], 512)
    assert texts(client.infer(f"tilted{number}", frame)) == ["31415"]


def test_the_text_is_told_everywhere(doors: Doors, client: Client, tmp_path: Path) -> None:
    frame = street("40712", "99035")
    picture = tmp_path / "street.png"
    picture.write_bytes(png(frame))
    expected = ["40712", "99035"]

    def in_map(found: Any) -> list[str]:
        return [each["children"]["reader"]["text"] for each in found["predictions"]]

    assert in_map(client.infer("plates", frame).to_dict()) == expected
    assert in_map(ask(doors, "/infer/plates", png(frame))[1]) == expected
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1, 1], "data": [base64.b64encode(png(frame)).decode()]}
    request = {"inputs": [tensor], "outputs": [{"name": "answer"}]}
    status, told = ask(doors, "/v2/models/plates.picture/infer", json.dumps(request).encode())
    assert (status, in_map(json.loads(told["outputs"][0]["data"][0]))) == (200, expected)
    given = ["infer", "--server", doors.server.address, "plates", str(picture)]
    assert in_map(json.loads(CliRunner().invoke(main, [*given, "--json"]).output)) == expected
    rows = list(csv.DictReader(io.StringIO(CliRunner().invoke(main, [*given, "--csv"]).output)))
    assert [(row["model"], row["object"], row["text"]) for row in rows if row["text"]] == [
        ("reader", "0", "40712"),
        ("reader", "1", "99035"),
    ]
    table = CliRunner().invoke(main, given).output
    assert "0, plate: reader: 40712" in table
    shown = stream(doors, "plates", picture).output
    assert "2 plate (reader: 40712, 99035)" in shown
    listed = CliRunner().invoke(main, ["models", "list", "--server", doors.server.address]).output
    assert "chain: plates: finder > reader" in listed
    found = client.infer("plates", frame)
    other = client.infer("plates", street("40712", "99036"))
    assert not np.array_equal(found.draw(frame), other.draw(frame))  # the text stands in the label


def test_each_object_has_a_vector_of_its_own(client: Client, doors: Doors, tmp_path: Path) -> None:
    frame = street("", "")
    for (x, y, *_), color in zip(PLATES, ((255, 0, 0), (0, 0, 255)), strict=True):
        frame[8 * y - 16 : 8 * y + 16, 8 * x - 64 : 8 * x + 64] = color
    vectors = []
    for children in client.infer("both", frame).children:
        child = children["colors"]
        assert isinstance(child, Answer)
        assert child.embedding is not None
        vectors.append(child.embedding)
    alone = client.infer("colors", np.full((32, 128, 3), (255, 0, 0), np.uint8)).embedding
    np.testing.assert_allclose(vectors[0], alone, atol=1e-6)
    assert float(vectors[0] @ vectors[1]) < 0
    told = ask(doors, "/infer/both", png(frame))[1]["predictions"][1]["children"]["colors"]["embedding"]
    np.testing.assert_allclose(told, vectors[1], atol=1e-6)
    picture = tmp_path / "street.png"
    picture.write_bytes(png(frame))
    given = ["infer", "--server", doors.server.address, "both", str(picture)]
    refused = CliRunner().invoke(main, [*given, "--csv"])
    assert (refused.exit_code, "what 'colors' says (embedding) has no place in a line" in refused.output) == (2, True)
    assert "0, plate: colors: a vector of 3 numbers" in CliRunner().invoke(main, given).output


# --- followed ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A red and a blue square that meet, the red one behind the blue one, and go back to where they came from."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (256, 256))
    for number in range(50):
        way = 4 * min(number, 50 - number)
        frame = np.full((256, 256, 3), 100, np.uint8)
        for left, color in ((10 + way, (0, 0, 255)), (198 - way, (255, 0, 0))):
            frame[100:148, left : left + 48] = color
        writer.write(frame)
    writer.release()
    return path


def stream(doors: Doors, *arguments: object) -> Any:
    return CliRunner().invoke(main, ["stream", "--server", doors.server.address, *map(str, arguments)])


def numbers_by_color(doors: Doors, *arguments: object) -> dict[str, set[int]]:
    """The numbers that the red and the blue square have in a film."""
    pytest.importorskip("scipy", reason="following needs the extra track")
    result = stream(doors, *arguments, "--json", "--track")
    assert result.exit_code == 0, result.output
    found = defaultdict(set)
    for row in map(json.loads, result.stdout.splitlines()):
        for each in row.get("predictions", ()):
            red, _, blue = each["children"]["colors"]["embedding"]
            if abs(red - blue) > 0.5 and each["tracker_id"] > 0:
                found["red" if red > blue else "blue"].add(each["tracker_id"])
    return dict(found)


def test_what_looks_different_keeps_its_number_behind_something(doors: Doors, film: Path) -> None:
    by_looks = {"red": {1}, "blue": {2}}
    assert numbers_by_color(doors, "squares", film) == by_looks
    named = numbers_by_color(doors, "named", film, "--track-by", "colors", "--track-likeness", 0.9)
    assert named == by_looks  # a chain of a chain
    alone = numbers_by_color(doors, "squares", film, "--track-by", "boxes")
    assert alone == {"red": {1, 2}, "blue": {1, 2}}  # swapped when they turned back


@pytest.mark.parametrize(
    ("model", "arguments", "said"),
    [
        (
            "finder",
            ["--track-by", "colors"],
            "--track-by colors needs objects with embeddings, and no step of 'finder'",
        ),
        (
            "plates",
            ["--track-likeness", "0.7"],
            "--track-likeness needs objects with embeddings, and no step of 'plates'",
        ),
        ("plates", ["--track-by", "reader"], "--track-by reader needs objects with embeddings, and 'reader' does text"),
        ("both", ["--track-by", "reader"], "'reader' does text; take colors"),
        ("both", ["--track-by", "color"], "'both' has no step 'color'; take colors"),
        ("squares", ["--track-likeness", "1.5"], "1.5 is not in the range -1<=x<=1"),
    ],
)
def test_embeddings_that_are_not_there_are_told_at_once(
    doors: Doors, film: Path, model: str, arguments: list[str], said: str
) -> None:
    result = stream(doors, "--track", "--model", model, film, *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
    result = stream(doors, "--model", "squares", film, "--track-by", "colors")
    assert (result.exit_code, "--track-by changes how objects are followed" in result.output) == (2, True)
