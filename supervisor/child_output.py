# SPDX-License-Identifier: GPL-2.0-or-later
"""The stdout or stderr of a child as log lines: cut, cleaned and rate limited.

The pipe is always drained, so a talkative worker is never blocked and looks hung; what exceeds the
rate is counted, not kept. Nothing in a line can forge another one or reach a terminal.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from bpftune.ipc.printable import printable
from bpftune.supervisor.loop import Loop
from bpftune.supervisor.rate_limit import RateLimit

MAX_LINE_BYTES = 1000
BURST_LINES = 60
"""A traceback fits."""
LINES_PER_S = 20

_READ_BYTES = 64 << 10
_LAST_READS = 16


class ChildOutput:
    """Owns the reading end of one pipe."""

    def __init__(self, loop: Loop, fd: int, emit: Callable[[str], None]) -> None:
        self._loop = loop
        self._fd = fd
        self._emit = emit
        self._limit = RateLimit(burst=BURST_LINES, per_s=LINES_PER_S)
        self._partial = b""
        self._skipping = False
        self._dropped = 0
        os.set_blocking(fd, False)
        loop.watch(fd, self._readable)

    def close(self) -> None:
        """Log what is still in the pipe and close it."""
        if self._fd < 0:
            return
        for _ in range(_LAST_READS):
            if not self._read():
                break
        self._line(self._partial)
        self._tell_dropped()
        self._release()

    def _readable(self) -> None:
        # One read per round of the loop: a flood must not keep it from anything else.
        self._read()

    def _read(self) -> bool:
        """Take one read's worth; False when there is no more for now or for ever."""
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._loop.unwatch(self._fd)
            return False
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._line(self._partial + line)
            self._partial, self._skipping = b"", False
        self._keep(rest)
        return True

    def _keep(self, rest: bytes) -> None:
        self._partial += rest
        if len(self._partial) > MAX_LINE_BYTES:
            self._line(self._partial)
            self._partial, self._skipping = b"", True

    def _line(self, line: bytes) -> None:
        if self._skipping or not line.strip():
            return
        if not self._limit.allow(time.monotonic_ns()):
            if not self._dropped:
                self._loop.call_later(1.0, self._tell_dropped)
            self._dropped += 1
            return
        self._emit(format_line(line))

    def _tell_dropped(self) -> None:
        if self._dropped:
            self._emit(f"{self._dropped} lines dropped")
            self._dropped = 0

    def _release(self) -> None:
        self._loop.unwatch(self._fd)
        os.close(self._fd)
        self._fd = -1


def format_line(line: bytes) -> str:
    """At most MAX_LINE_BYTES of the line, with control characters escaped."""
    text = line[:MAX_LINE_BYTES].decode(errors="backslashreplace").rstrip()
    clean = printable(text)
    return clean if len(line) <= MAX_LINE_BYTES else f"{clean} [cut]"
