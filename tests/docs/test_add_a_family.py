"""The steps of docs/models.md for a family of one's own, walked: in a copy of the packages, with a real server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from tests.docs.copied import blocks, copy_packages, run_client
from tests.families.tiny_graphs import tiny

CLIENT = """
import sys
import numpy as np
from parallel_infer import Client
from parallel_infer.tools.local_server import local_server

with local_server("--config", sys.argv[1]) as server, Client(server.address, timeout=30.0) as client:
    answer = client.infer("round", np.zeros((128, 64, 3), np.uint8))
    print(answer.task, *answer.boxes.ravel().tolist(), *answer.scores.tolist())
"""


def test_a_family_of_ones_own_is_one_file_and_one_name(tmp_path: Path) -> None:
    (code,) = blocks("Add a family in one file")
    copy_packages(tmp_path)
    families = tmp_path / "stages" / "families"
    (families / "known" / "spots.py").write_text(code)
    registry = (families / "__init__.py").read_text()
    for opening in ("from stages.families.known import (\n", "KNOWN = (\n"):
        assert opening in registry
        registry = registry.replace(opening, f"{opening}    spots,\n")
    (families / "__init__.py").write_text(registry)
    spots = np.array([[32, 16, 8, 0.75], [10, 10, 4, 0.125]], np.float32)
    onnx.save(tiny({"spots": spots}), tmp_path / "round.onnx")

    task, *numbers = run_client(tmp_path, CLIENT, '[models.round]\npath = "round.onnx"\n')

    assert task == "detect"  # the row is 64 x 64, the picture 64 x 128
    np.testing.assert_allclose([float(number) for number in numbers], [24, 16, 40, 48, 0.75], atol=1e-5)
