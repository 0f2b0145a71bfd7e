# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon's log lines as they are written, for `events --follow`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import zmq

from bpftune.ctl.reachability import check_daemon
from bpftune.ipc.control import EVENTS_SOCKET, LogEvent, events
from bpftune.ipc.errors import NotRunning


def follow_events(run_dir: Path) -> Iterator[LogEvent]:
    """Every line from now on. Raises NotRunning when there is no daemon, or no longer one."""
    path = run_dir / EVENTS_SOCKET
    check_daemon(path)
    with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.setsockopt(zmq.LINGER, 0)
        with subscriber.get_monitor_socket(zmq.EVENT_DISCONNECTED) as gone:
            subscriber.subscribe(b"")
            subscriber.connect(f"ipc://{path}")
            while _wait(subscriber, gone):
                yield events.decode(subscriber.recv())
    raise NotRunning("bpftune has stopped")


def _wait(subscriber: zmq.Socket[bytes], gone: zmq.Socket[bytes]) -> bool:
    """Wait for the next line; False when the daemon closed and everything it sent was read."""
    poller = zmq.Poller()
    poller.register(subscriber, zmq.POLLIN)
    poller.register(gone, zmq.POLLIN)
    ready = dict(poller.poll())
    return subscriber in ready or bool(subscriber.poll(0))
