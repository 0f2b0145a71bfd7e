# SPDX-License-Identifier: GPL-2.0-or-later
"""What systemd is told: READY, STATUS, WATCHDOG, STOPPING (sd_notify(3)).

Without NOTIFY_SOCKET nothing is imported, sent or scheduled. The watchdog is fed by a timer of the
supervisor's loop, so a loop that no longer turns is noticed.
"""

from __future__ import annotations

import os

from bpftune.supervisor.loop import Loop


class ServiceNotifier:
    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._enabled = "NOTIFY_SOCKET" in os.environ

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={status}")
        interval_us = self._watchdog_us()
        if interval_us:
            self._feed(interval_us / 2e6)

    def status(self, text: str) -> None:
        self._send(f"STATUS={text}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def _feed(self, interval_s: float) -> None:
        self._send("WATCHDOG=1")
        self._loop.call_later(interval_s, lambda: self._feed(interval_s))

    def _watchdog_us(self) -> int:
        if not self._enabled or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            return 0
        return int(os.environ.get("WATCHDOG_USEC", "0"))

    def _send(self, state: str) -> None:
        if self._enabled:
            import systemd.daemon  # noqa: PLC0415 - memory that a foreground run does not need

            systemd.daemon.notify(state)
