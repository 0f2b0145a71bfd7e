# SPDX-License-Identifier: GPL-2.0-or-later
"""Folds repeated log lines: the first is shown, the others are counted and reported in one line.

Used by the logger. Keeps a timer in the loop only while it owes a report, so folding wakes nobody
up on an idle machine. A line that keeps coming is reported ever less often, up to once an hour.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from bpftune.supervisor.loop import Loop, Timer

FIRST_WINDOW_S = 10
LONGEST_WINDOW_S = 3600
MAX_LINES = 256
"""Different lines remembered; the oldest is reported and forgotten to make room."""

LineT = TypeVar("LineT")

Report = Callable[[LineT, int, int], None]
"""(newest line, how many were held back, in how many seconds)"""


@dataclass(slots=True, kw_only=True)
class _Window(Generic[LineT]):
    newest: LineT
    begin_ns: int
    length_s: int
    repeats: int = 0
    timer: Timer | None = None

    @property
    def end_ns(self) -> int:
        return self.begin_ns + self.length_s * 1_000_000_000


class Folding(Generic[LineT]):
    """Lines with equal keys count as the same line."""

    def __init__(self, *, loop: Loop, report: Report[LineT], now_ns: Callable[[], int]) -> None:
        self._loop = loop
        self._report = report
        self._now_ns = now_ns
        self._windows: OrderedDict[Hashable, _Window[LineT]] = OrderedDict()

    def admit(self, key: Hashable, line: LineT) -> bool:
        """Whether the line is to be shown now; if not, it was counted and will be reported."""
        window = self._windows.get(key)
        if window is None or (window.timer is None and window.end_ns <= self._now_ns()):
            self._open(key, line, FIRST_WINDOW_S)
            return True
        window.repeats += 1
        window.newest = line
        if window.timer is None:
            window.timer = self._loop.call_at(window.end_ns, lambda: self._close(key))
        return False

    def flush(self) -> None:
        """Report everything that is owed, at shutdown."""
        while self._windows:
            self._forget_oldest()

    def _open(self, key: Hashable, line: LineT, length_s: int) -> None:
        self._windows[key] = _Window(newest=line, begin_ns=self._now_ns(), length_s=length_s)
        self._windows.move_to_end(key)
        while len(self._windows) > MAX_LINES:
            self._forget_oldest()

    def _close(self, key: Hashable) -> None:
        window = self._windows[key]
        self._settle(window)
        self._open(key, window.newest, min(window.length_s * 2, LONGEST_WINDOW_S))

    def _forget_oldest(self) -> None:
        _, window = self._windows.popitem(last=False)
        if window.timer is not None:
            window.timer.cancel()
            self._settle(window)

    def _settle(self, window: _Window[LineT]) -> None:
        passed_s = (self._now_ns() - window.begin_ns + 500_000_000) // 1_000_000_000
        self._report(window.newest, window.repeats, max(1, passed_s))
