# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals as loop events: Python's wake-up descriptor carries the numbers, handlers run in the loop."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping

from bpftune.supervisor.loop import Loop


class Signals:
    """Routes the given signals to callbacks on the loop, until `close`."""

    def __init__(self, loop: Loop, handlers: Mapping[signal.Signals, Callable[[], None]]) -> None:
        self._loop = loop
        self._handlers = dict(handlers)
        self._read_fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in self._handlers:
            signal.signal(number, _noticed)
        loop.watch(self._read_fd, self._serve)

    def close(self) -> None:
        """The process is about to end, and a further signal must not change how: they are ignored."""
        for number in self._handlers:
            signal.signal(number, signal.SIG_IGN)
        self._loop.unwatch(self._read_fd)
        signal.set_wakeup_fd(-1)
        os.close(self._read_fd)
        os.close(self._write_fd)

    def _serve(self) -> None:
        for number in os.read(self._read_fd, 64):
            handler = self._handlers.get(signal.Signals(number))
            if handler is not None:
                handler()


def _noticed(number: int, frame: object) -> None:
    """A Python-level handler must exist for the wake-up descriptor to be written."""
