"""Numbers and paths as options take them: what click lets through and nobody can mean is refused."""

from __future__ import annotations

import math
import os
from typing import Any

import click


class FiniteRange(click.FloatRange):
    """A number in a range. click itself takes nan for one in every range, and inf for one in a range without an end."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is no number that can be used.", param, ctx)
        return found


class GivenPath(click.Path):
    """A path. An empty one, of a shell's variable that is not set most often, would mean the folder one is in."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not os.fspath(value):
            self.fail("the path is empty; is a variable of the shell not set?", param, ctx)
        return super().convert(value, param, ctx)
