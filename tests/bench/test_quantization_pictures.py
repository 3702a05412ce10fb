"""Which pictures quantizing looks at: a part of many, and views of few."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from parallel_infer.cli.quantize import spread
from parallel_infer.model_files.location import ZOO
from parallel_infer.tools.quantize.quantization import quantize
from parallel_infer.tools.quantize.views import views, views_each


def test_pictures_are_spread_over_the_folder() -> None:
    files = [Path(str(number)) for number in range(10)]

    assert spread(files, 20) == files
    assert [path.name for path in spread(files, 4)] == ["0", "2", "5", "7"]


def test_views_of_few_pictures(pictures: Path) -> None:
    payload = (pictures / "coffee.png").read_bytes()
    picture = cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_COLOR)
    found = [cv2.imdecode(np.frombuffer(view, np.uint8), cv2.IMREAD_COLOR) for view in views(payload, 100)]
    height, width = picture.shape[:2]
    part = round(height * 3 / 4), round(width * 3 / 4), 3
    assert [view.shape for view in found] == [picture.shape, *[part] * 8]
    for view, there in ((found[0], picture[:, ::-1]), (found[4], picture[-part[0] :, -part[1] :])):
        assert np.abs(view.astype(int) - there).mean() < 6  # they are JPEGs
    assert len(views(payload, 2)) == 2
    assert views(payload, 0) == views(b"no picture", 5) == []
    assert [views_each(count) for count in (0, 1, 3, 10, 29, 30, 200)] == [0, 9, 9, 2, 1, 0, 0]


@pytest.mark.slow
def test_three_photographs_make_a_copy_of_the_detector(pictures: Path, tmp_path: Path) -> None:
    """They hold nine objects, one of which a copy gains or loses; their views hold a hundred."""
    frames = [cv2.imread(str(path)) for path in sorted(pictures.glob("*.png"))]
    payloads = [cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes() for frame in frames]
    report = quantize(ZOO / "detector.onnx", payloads, tmp_path / "copy.onnx", anyway=True)
    assert report.agreement.objects[0] > 50
    assert report.agreement.share >= 0.9
