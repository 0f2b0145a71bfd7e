# SPDX-License-Identifier: GPL-2.0-or-later
"""Log lines as they leave the process: to followers, and to a journal of our own."""

from __future__ import annotations

import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zmq

from bpftune.ipc.control import EVENTS_SOCKET, LogEvent, events
from bpftune.supervisor.event_stream import EventStream
from tests.requirements import require_command
from tests.waiting import SCALE

EVENT = LogEvent(time_s=1, priority=5, message="net.ipv4.tcp_rmem changed", change_id=7)

WRITE_TO_JOURNAL = """
import sys
from bpftune.supervisor.log_sinks import open_sink
assert "systemd" not in sys.modules, "imported before it is used"
from bpftune.ipc.control import LogEvent
event = LogEvent(time_s=1, priority=5, message="changed", tuner="t", change_id=7)
open_sink(stderr=False).write(event, "abc")
"""

SERVE_JOURNAL = """
mount -t tmpfs none /run && mkdir -p /run/systemd/journal && exec "$@"
"""


def test_followers_get_every_line_and_only_the_group_may_follow(tmp_path: Path) -> None:
    path = tmp_path / EVENTS_SOCKET
    with zmq.Context() as context, context.socket(zmq.SUB) as follower:
        stream = EventStream(context=context, run_dir=tmp_path)
        assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0
        follower.subscribe(b"")
        follower.connect(f"ipc://{path}")
        received = first_published(stream, follower)
        stream.close()

    assert received == EVENT
    assert not path.exists()


def first_published(stream: EventStream, follower: zmq.Socket[bytes]) -> LogEvent:
    """Publish until the subscription has arrived: what is sent before it is lost, as it should be."""
    deadline = time.monotonic() + 10 * SCALE
    while time.monotonic() < deadline:
        stream.publish(EVENT)
        if follower.poll(20):
            return events.decode(follower.recv())
    raise AssertionError("no line arrived")


@pytest.mark.needs_root
def test_the_journal_gets_structured_fields() -> None:
    require_command("unshare")
    reader = f"""
import socket, subprocess, sys
journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
journal.bind("/run/systemd/journal/socket")
journal.settimeout({30 * SCALE})
subprocess.run([sys.executable, "-c", {WRITE_TO_JOURNAL!r}], check=True)
sys.stdout.buffer.write(journal.recv(65536))
"""
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", SERVE_JOURNAL, "sh", sys.executable, "-c", reader],
        capture_output=True,
        timeout=60 * SCALE,
        check=False,
    )

    assert result.returncode == 0, result.stderr.decode()
    assert result.stdout.decode().splitlines() == [
        "MESSAGE=changed",
        "PRIORITY=5",
        "SYSLOG_IDENTIFIER=bpftune",
        "MESSAGE_ID=abc",
        "BPFTUNE_TUNER=t",
        "BPFTUNE_CHANGE=7",
    ]
