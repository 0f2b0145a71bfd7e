# SPDX-License-Identifier: GPL-2.0-or-later
"""The wake-ups that a policy asked for: at most one per state record, none sooner than a second."""

from __future__ import annotations

SOONEST_NS = 1_000_000_000


class WakeUps:
    def __init__(self) -> None:
        self._at_ns: dict[int, int] = {}

    def ask(self, cookie: int, at_ns: int | None, now_ns: int) -> None:
        """Replace the wish for `cookie`; None withdraws it."""
        if at_ns is None:
            self._at_ns.pop(cookie, None)
        else:
            self._at_ns[cookie] = max(at_ns, now_ns + SOONEST_NS)

    def take_due(self, now_ns: int) -> list[int]:
        """The cookies whose time has come; each wish is granted once."""
        due = [cookie for cookie, at_ns in self._at_ns.items() if at_ns <= now_ns]
        for cookie in due:
            del self._at_ns[cookie]
        return due

    def timeout_ms(self, now_ns: int) -> int | None:
        """How long to sleep at most, rounded up; None: for ever."""
        if not self._at_ns:
            return None
        return max(0, -((now_ns - min(self._at_ns.values())) // 1_000_000))
