# SPDX-License-Identifier: GPL-2.0-or-later
"""A token bucket: what a worker may do at its own pace, and how often."""

from __future__ import annotations


class RateLimit:
    def __init__(self, *, burst: int, per_s: int) -> None:
        self._burst_ns = burst * 1_000_000_000 // per_s
        self._cost_ns = 1_000_000_000 // per_s
        self._full_at_ns = 0
        """When the bucket will be full again if nothing more is taken."""

    def allow(self, now_ns: int) -> bool:
        """Take one token if there is one."""
        full_at_ns = max(self._full_at_ns, now_ns) + self._cost_ns
        if full_at_ns - now_ns > self._burst_ns:
            return False
        self._full_at_ns = full_at_ns
        return True
