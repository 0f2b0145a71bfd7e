# SPDX-License-Identifier: GPL-2.0-or-later
"""The supervisor's one loop: a zmq.Poller over sockets and descriptors, and a heap of timers.

Everything runs on its thread, so nothing here is locked. Without a timer it sleeps until something
happens: an idle daemon does not wake up.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from itertools import count

import zmq

Callback = Callable[[], None]
Source = int | zmq.Socket[bytes]


class Timer:
    """A pending call; `cancel` is allowed at any time."""

    __slots__ = ("_callback", "at_ns")

    def __init__(self, at_ns: int, callback: Callback) -> None:
        self.at_ns = at_ns
        self._callback: Callback | None = callback

    def cancel(self) -> None:
        self._callback = None

    @property
    def pending(self) -> bool:
        return self._callback is not None

    def fire(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class Loop:
    def __init__(self) -> None:
        self._poller = zmq.Poller()
        self._callbacks: dict[Source, Callback] = {}
        self._timers: list[tuple[int, int, Timer]] = []
        self._order = count()
        self._running = False

    def watch(self, source: Source, callback: Callback) -> None:
        """Call `callback` whenever `source` (a descriptor or a ZeroMQ socket) is readable."""
        self._poller.register(source, zmq.POLLIN)
        self._callbacks[source] = callback

    def unwatch(self, source: Source) -> None:
        if self._callbacks.pop(source, None) is not None:
            self._poller.unregister(source)

    def call_at(self, at_ns: int, callback: Callback) -> Timer:
        """Call `callback` once at `at_ns` of CLOCK_MONOTONIC, or as soon after as the loop is free."""
        timer = Timer(at_ns, callback)
        heapq.heappush(self._timers, (at_ns, next(self._order), timer))
        return timer

    def call_later(self, delay_s: float, callback: Callback) -> Timer:
        return self.call_at(time.monotonic_ns() + int(delay_s * 1e9), callback)

    def run(self) -> None:
        """Serve until `stop`."""
        self._running = True
        while self._running:
            self.run_once(self._timeout_ms())

    def stop(self) -> None:
        self._running = False

    def run_once(self, timeout_ms: int | None) -> None:
        """One round: wait at most `timeout_ms` (None: for ever), then serve what is ready and due."""
        for source, events in self._poller.poll(timeout_ms):
            callback = self._callbacks.get(source)
            if callback is not None and events:
                callback()
        now_ns = time.monotonic_ns()
        while self._timers and self._timers[0][0] <= now_ns:
            heapq.heappop(self._timers)[2].fire()

    def _timeout_ms(self) -> int | None:
        while self._timers and not self._timers[0][2].pending:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        return max(0, -((time.monotonic_ns() - self._timers[0][0]) // 1_000_000))
