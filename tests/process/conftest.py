# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the process tests: real processes and sockets, root, no kernel settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.rig import Rig, rig
from tests.requirements import require_root


@pytest.fixture(name="rig")
def rig_fixture(tmp_path: Path) -> Iterator[Rig]:
    """Workers need another user, so root is needed to make them."""
    require_root()
    with rig(tmp_path) as made:
        yield made
