"""The steps of docs/architecture.md for a door of one's own, walked: in a copy of the packages, with a real server."""

from __future__ import annotations

from pathlib import Path

from tests.docs.copied import blocks, copy_packages, replace, run_client
from tests.docs.test_add_a_task import write_model

CLIENT = """
import sys
import zmq
from parallel_infer.tools.local_server import local_server

with local_server("--config", sys.argv[1], "--names-bind", "ipc://names") as server:
    with zmq.Context() as context, context.socket(zmq.REQ) as asking:
        asking.connect("ipc://names")
        asking.send(b"what is there?")
        assert asking.poll(30_000)
        print(asking.recv().decode())
"""


def test_a_door_of_ones_own_is_a_setting_a_file_and_an_entry(tmp_path: Path) -> None:
    field, code, entry = blocks("Add a door", "architecture.md")
    copy_packages(tmp_path)
    doors, config = tmp_path / "parallel_infer" / "doors", tmp_path / "parallel_infer" / "config"
    (doors / "names.py").write_text(code)
    replace(
        doors / "known.py",
        ("DOORS: tuple[Door, ...] = (\n", f"DOORS: tuple[Door, ...] = (\n    {entry.strip()},\n"),
        (
            "from parallel_infer.doors.options",
            "from parallel_infer.doors import names\nfrom parallel_infer.doors.options",
        ),
    )
    replace(config / "schema.py", ("    metrics_port: Annotated[", f"{field}    metrics_port: Annotated["))
    replace(config / "addresses.py", ('"imagezmq_bind")', '"imagezmq_bind", "names_bind")'))
    write_model(tmp_path / "look.onnx")

    words = run_client(tmp_path, CLIENT, '[models.look]\npath = "look.onnx"\ntask = "tensor"\n')

    assert words == ["look"]
