# SPDX-License-Identifier: GPL-2.0-or-later
"""When a crashed worker may start again, and when it has crashed too often."""

from __future__ import annotations

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 30.0
WINDOW_S = 60
CRASHES_ALLOWED = 5
"""in one window; one more and the tuner has failed"""

_WINDOW_NS = WINDOW_S * 1_000_000_000


class Backoff:
    def __init__(self) -> None:
        self._delay_s = FIRST_DELAY_S
        self._crashes_ns: list[int] = []

    def crashed(self, now_ns: int) -> float | None:
        """Seconds until the next start; None: give up. A window without a crash resets the delay."""
        self._crashes_ns = [at_ns for at_ns in self._crashes_ns if now_ns - at_ns < _WINDOW_NS]
        if not self._crashes_ns:
            self._delay_s = FIRST_DELAY_S
        self._crashes_ns.append(now_ns)
        if len(self._crashes_ns) > CRASHES_ALLOWED:
            return None
        delay_s = self._delay_s
        self._delay_s = min(2 * delay_s, LONGEST_DELAY_S)
        return delay_s

    def clear(self) -> None:
        """An administrator asked for a new start."""
        self._crashes_ns = []
