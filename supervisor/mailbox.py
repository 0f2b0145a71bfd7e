# SPDX-License-Identifier: GPL-2.0-or-later
"""Events that wait because their worker is busy or being restarted.

The newest of each (scenario, namespace) is worth handling, older ones tell the past. The place in
the queue is that of the first, so that no scenario starves another.
"""

from __future__ import annotations

from dataclasses import dataclass

from bpftune.ipc.messages import Netns

CAPACITY = 1024


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entry:
    """One event, compared by identity: equal bytes are not the same event."""

    record: bytes
    netns: Netns
    scenario_id: str


class Mailbox:
    """Counts what it replaced (`merged`) and what found no room or lost its namespace (`dropped`)."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._entries: dict[tuple[str, int], Entry] = {}
        self.merged = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, entry: Entry) -> None:
        key = entry.scenario_id, entry.netns.cookie
        if key in self._entries:
            self.merged += 1
        elif len(self._entries) >= self._capacity:
            self.dropped += 1
            return
        self._entries[key] = entry

    def take(self) -> Entry | None:
        """The entry that waits longest."""
        if not self._entries:
            return None
        return self._entries.pop(next(iter(self._entries)))

    def forget(self, netns_cookie: int) -> None:
        for key in [key for key in self._entries if key[1] == netns_cookie]:
            del self._entries[key]
            self.dropped += 1

    def clear(self) -> None:
        self.dropped += len(self._entries)
        self._entries.clear()
