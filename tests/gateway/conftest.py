"""What several files of tests of the gateway share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gateway.core_rig import Rig


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()
