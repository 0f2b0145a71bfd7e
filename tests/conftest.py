# SPDX-License-Identifier: GPL-2.0-or-later
"""What every level of tests shares: the privilege marker and the check that no process is left.

pytest reads it. It must never need privilege itself: unit tests run as anyone.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests import leftovers
from tests.requirements import require_root


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "needs_root: skipped without root, failed under BPFTUNE_TESTS_STRICT=1"
    )
    # A shell's background jobs ignore SIGINT, and so would every program under test.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    leftovers.mark_descendants()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("needs_root") is not None:
        require_root()


@pytest.fixture(scope="module", autouse=True)
def no_process_left() -> Iterator[None]:
    """Fails the module that leaves a process behind, and ends that process."""
    before = leftovers.descendants()
    yield
    left = leftovers.settle(lambda: leftovers.descendants() - before)
    leftovers.kill(left)
    assert not left, f"processes left behind: {leftovers.describe(left)}"
