# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals as loop events: Python's wake-up descriptor carries the numbers, handlers run in the loop."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping

from bpftune.supervisor.loop import Loop


class Signals:
    """Routes the given signals to callbacks on the loop; `close` restores what was before."""

    def __init__(self, loop: Loop, handlers: Mapping[signal.Signals, Callable[[], None]]) -> None:
        self._loop = loop
        self._handlers = dict(handlers)
        self._read_fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before_fd = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _noticed) for number in self._handlers}
        loop.watch(self._read_fd, self._serve)

    def close(self) -> None:
        self._loop.unwatch(self._read_fd)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._before_fd)
        os.close(self._read_fd)
        os.close(self._write_fd)

    def _serve(self) -> None:
        for number in os.read(self._read_fd, 64):
            handler = self._handlers.get(signal.Signals(number))
            if handler is not None:
                handler()


def _noticed(number: int, frame: object) -> None:
    """A Python-level handler must exist for the wake-up descriptor to be written."""
