"""Objects followed from frame to frame: numbers that last, and what crosses lines and is in zones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parallel_infer.errors import ConfigError

if TYPE_CHECKING:
    from parallel_infer.tracking.following import Following
    from parallel_infer.tracking.settings import Tracking


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
