# SPDX-License-Identifier: GPL-2.0-or-later
"""Waiting for a condition with a deadline; tests never sleep for a fixed time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

SCALE = float(os.environ.get("BPFTUNE_TESTS_TIME_SCALE", "1"))
"""Slow machines (QEMU without KVM) stretch every deadline by this."""
PACE = max(1.0, SCALE / 3)
"""And what they are given to do takes this much longer: as slow as they are, not as they are at worst."""


def wait_for(condition: Callable[[], T], timeout_s: float, what: str, interval_s: float = 0.01) -> T:
    """The first true result of `condition`; AssertionError naming `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s * SCALE
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s * SCALE:g} s: {what} (last: {result!r})")
        time.sleep(interval_s)
    return result
