# SPDX-License-Identifier: GPL-2.0-or-later
"""events.sock: every log line as it is written, for `bpftune-ctl events --follow`.

A follower that is too slow loses lines; the daemon never waits for one.
"""

from __future__ import annotations

from pathlib import Path

import zmq

from bpftune.ipc.control import EVENTS_SOCKET, LogEvent
from bpftune.ipc.control import events as event_codec
from bpftune.supervisor.control_server import bind_for_group

QUEUED_LINES = 1000
"""per follower"""
GOODBYE_MS = 200
"""How long the last lines (the summary) may take to leave at exit."""
MAX_SUBSCRIPTION_BYTES = 4096


class EventStream:
    def __init__(self, *, context: zmq.Context[zmq.Socket[bytes]], run_dir: Path) -> None:
        self._path = run_dir / EVENTS_SOCKET
        self._socket = context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.SNDHWM, QUEUED_LINES)
        self._socket.setsockopt(zmq.LINGER, GOODBYE_MS)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_SUBSCRIPTION_BYTES)
        bind_for_group(self._socket, self._path)

    def publish(self, event: LogEvent) -> None:
        self._socket.send(event_codec.encode(event))

    def close(self) -> None:
        self._socket.close()
        self._path.unlink(missing_ok=True)
