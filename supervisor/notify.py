# SPDX-License-Identifier: GPL-2.0-or-later
"""What systemd is told: READY, STATUS, WATCHDOG, STOPPING (sd_notify(3)).

Without NOTIFY_SOCKET nothing is sent or scheduled. What systemd does not take at once it misses: it
reads late on a busy machine, and the supervisor waits for nobody. The watchdog is fed by a timer of the
supervisor's loop, so a loop that no longer turns is noticed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable

from bpftune.supervisor.loop import Loop, Timer

STATUS_EVERY_NS = 1_000_000_000


class ServiceNotifier:
    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._address = _address(os.environ.get("NOTIFY_SOCKET", ""))
        self._next_status_ns = 0
        self._pending: Timer | None = None

    def ready(self, status: str) -> None:
        # The one message that must arrive, and worth waiting for: nothing works yet anyway.
        self._send(f"READY=1\nSTATUS={status}", flags=0)
        interval_us = self._watchdog_us()
        if interval_us:
            self._feed(interval_us / 2e6)

    def status(self, describe: Callable[[], str]) -> None:
        """Something changed: tell what `describe` says by then, at most once per STATUS_EVERY_NS."""
        if not self._address or (self._pending is not None and self._pending.pending):
            return

        def send() -> None:
            self._next_status_ns = time.monotonic_ns() + STATUS_EVERY_NS
            self._send(f"STATUS={describe()}")

        self._pending = self._loop.call_at(self._next_status_ns, send)

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def _feed(self, interval_s: float) -> None:
        self._send("WATCHDOG=1")
        self._loop.call_later(interval_s, lambda: self._feed(interval_s))

    def _watchdog_us(self) -> int:
        if not self._address or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            return 0
        return int(os.environ.get("WATCHDOG_USEC", "0"))

    def _send(self, state: str, *, flags: int = socket.MSG_DONTWAIT) -> None:
        if not self._address:
            return
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel,
        ):
            channel.sendto(state.encode(), flags, self._address)


def _address(notify_socket: str) -> str:
    """A path, or with a leading @ a name in the abstract namespace."""
    return f"\0{notify_socket[1:]}" if notify_socket.startswith("@") else notify_socket
