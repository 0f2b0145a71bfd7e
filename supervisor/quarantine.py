# SPDX-License-Identifier: GPL-2.0-or-later
"""The event that comes before all others because its worker ended with it in hand.

The first death may have been a coincidence, so the event is handed out again. If that worker dies
of it as well, two successive deaths, it is never delivered again.
"""

from __future__ import annotations

from bpftune.supervisor.mailbox import Entry


class Quarantine:
    def __init__(self) -> None:
        self._suspect: Entry | None = None
        """In hand at the last death."""
        self._waiting: Entry | None = None

    def died(self, in_hand: Entry | None) -> Entry | None:
        """A worker died; returns the event that must not be delivered again, if this proves one."""
        if in_hand is None:
            return None
        if in_hand is self._suspect:
            self._suspect = None
            return in_hand
        self._suspect = self._waiting = in_hand
        return None

    def give_back(self, in_hand: Entry | None) -> None:
        """The worker was ended on request: the event is not to blame."""
        if in_hand is not None:
            self._waiting = in_hand

    def take(self) -> Entry | None:
        """The event to hand out first."""
        entry, self._waiting = self._waiting, None
        return entry

    def answered(self) -> None:
        """The worker survived the event in hand."""
        self._suspect = None

    def forget(self, netns_cookie: int) -> bool:
        """Drop the waiting event if it belongs to this namespace; whether it did."""
        if self._waiting is None or self._waiting.netns.cookie != netns_cookie:
            return False
        self._suspect = self._waiting = None
        return True
