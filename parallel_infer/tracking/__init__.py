"""Objects followed from frame to frame: numbers that last, and what crosses lines and is in zones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parallel_infer.errors import ConfigError
from parallel_infer.pictures.opencv_limit import set_pixel_limit

set_pixel_limit()  # before OpenCV is imported, which reads it then

from parallel_infer.tracking.settings import Anchor, CannotFollow, Tracking  # noqa: E402
from parallel_infer.tracking.shapes import Line, Zone  # noqa: E402

if TYPE_CHECKING:
    from parallel_infer.tracking.following import Following

__all__ = ["Anchor", "CannotFollow", "Line", "Tracking", "Zone", "following_for"]


def following_for(settings: Tracking, confidence: float | None = None) -> Following:
    """Something that follows the objects of one source; see `Following`.

    `confidence`: the score from which the user wants objects. Raises ConfigError where a library is missing, or two
    lines or zones have one name.
    """
    try:
        from parallel_infer.tracking.following import Following
    except ImportError as error:
        raise ConfigError(f"tracking needs {error.name}: pip install 'parallel-infer[track]'") from None
    return Following(settings, confidence)
