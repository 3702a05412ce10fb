"""A Griffe extension: the comment behind an attribute explains it where it has no docstring."""

from __future__ import annotations

from typing import Any

import griffe


class CommentsAsDocstrings(griffe.Extension):
    """`timeout: float = 30.0  # of one frame, in seconds` is documented by its comment."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Griffe calls this for every attribute it has read."""
        if attr.docstring or not attr.lines:
            return
        comment = attr.lines[0].partition("  # ")[2].strip()
        if comment and not comment.startswith(("type:", "noqa")):
            attr.docstring = griffe.Docstring(comment[0].upper() + comment[1:].rstrip(".") + ".", parent=attr)
