# SPDX-License-Identifier: GPL-2.0-or-later
"""A loop whose timers are counted and fired by hand."""

from __future__ import annotations

from collections.abc import Callable

from bpftune.supervisor.loop import Loop, Timer


class StillLoop(Loop):
    def __init__(self) -> None:
        super().__init__()
        self.due: list[Callable[[], None]] = []

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        self.due.append(callback)
        return Timer(0, callback)

    def fire(self) -> None:
        due, self.due = self.due, []
        for callback in due:
            callback()
