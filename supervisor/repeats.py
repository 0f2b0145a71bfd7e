# SPDX-License-Identifier: GPL-2.0-or-later
"""Hands an event over again while the counters that its scenario names go on rising.

Some things announce themselves once and then go on in silence: a flood of SYNs fills a queue, and what is
turned away after that passes no hook. Called by the router for each event that it delivers. It sleeps as
soon as a second passes in which nothing was counted.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

from bpftune.ipc.declaration import Declaration, Scenario
from bpftune.ipc.record import restamp
from bpftune.supervisor.counters import Counters
from bpftune.supervisor.loop import Loop

INTERVAL_S = 1.0

_Key = tuple[str, str, int]


class Repeats:
    def __init__(self, *, loop: Loop, counters: Counters) -> None:
        self._loop = loop
        self._counters = counters
        self._records: dict[_Key, bytes] = {}

    def follow(
        self,
        declaration: Declaration,
        scenario: Scenario,
        cookie: int,
        record: bytes,
        again: Callable[[bytes], None],
    ) -> None:
        """`record` was delivered. `again` takes it, with a new time, if there is reason to."""
        if not scenario.repeat_while_rising:
            return
        key = (declaration.name, scenario.id, cookie)
        waiting = key in self._records
        self._records[key] = record
        if not waiting:
            read = functools.partial(self._counters.read, declaration, scenario.id, cookie)
            before = read()
            self._loop.call_later(INTERVAL_S, lambda: self._look(key, scenario, before, read, again))

    def _look(
        self,
        key: _Key,
        scenario: Scenario,
        before: dict[str, int],
        read: Callable[[], dict[str, int]],
        again: Callable[[bytes], None],
    ) -> None:
        record = self._records.pop(key)
        now = read()
        if any(now.get(name, 0) > before.get(name, 0) for name in scenario.repeat_while_rising):
            again(restamp(record, time.monotonic_ns()))
