# SPDX-License-Identifier: GPL-2.0-or-later
"""Where log lines end up: systemd's journal, syslog(3), or stderr.

`open_sink` chooses. No sink raises; the one on stderr never waits either, so a terminal that was
stopped or a pipe that nobody reads costs lines (counted), not the daemon.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import syslog
from collections.abc import Callable
from pathlib import Path

from bpftune.ipc.control import LogEvent
from bpftune.supervisor.logger import Sink

IDENTIFIER = "bpftune"
JOURNAL_SOCKET = Path("/run/systemd/journal/socket")
MAX_STDERR_BYTES = 4096
"""PIPE_BUF: a pipe takes so much at once or nothing, never half a line (pipe(7))."""


def open_sink(*, stderr: bool, journal_socket: Path = JOURNAL_SOCKET) -> Sink:
    if stderr:
        return StderrSink(2)
    if journal_socket.is_socket():
        return JournalSink()
    return SyslogSink()


class JournalSink:
    def __init__(self, sendv: Callable[..., None] | None = None) -> None:
        self._sendv = sendv or _journal_sendv()

    def write(self, event: LogEvent, message_id: str) -> None:
        try:
            self._sendv(*journal_fields(event, message_id))
        except OSError:
            return  # the journal is restarting or full; there is nowhere to say so

    def close(self) -> None:
        pass


class SyslogSink:
    def __init__(self) -> None:
        syslog.openlog(IDENTIFIER, syslog.LOG_PID, syslog.LOG_DAEMON)

    def write(self, event: LogEvent, message_id: str) -> None:
        syslog.syslog(event.priority, event.message)

    def close(self) -> None:
        syslog.closelog()


class StderrSink:
    """`bpftune: <line>` on a descriptor that belongs to whoever started us."""

    def __init__(self, fd: int) -> None:
        self._write, self._close = _without_waiting(fd)
        self._lost = 0

    def write(self, event: LogEvent, message_id: str) -> None:
        if self._lost:
            if not self._put(f"{self._lost} lines lost: nobody reads stderr"):
                self._lost += 1
                return
            self._lost = 0
        if not self._put(event.message):
            self._lost += 1

    def close(self) -> None:
        self._close()

    def _put(self, message: str) -> bool:
        line = f"{IDENTIFIER}: {message}".encode("utf-8", "backslashreplace")
        try:
            self._write(line[: MAX_STDERR_BYTES - 1] + b"\n")
        except OSError:
            return False
        return True


def journal_fields(event: LogEvent, message_id: str) -> list[str]:
    """`NAME=value` as sd_journal_sendv(3) takes them; what does not apply is left out."""
    fields = {
        "MESSAGE": event.message,
        "PRIORITY": str(event.priority),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "MESSAGE_ID": message_id,
        "BPFTUNE_TUNER": event.tuner,
        "BPFTUNE_TUNABLE": event.tunable,
        "BPFTUNE_SCENARIO": event.scenario,
        "BPFTUNE_NETNS": event.netns,
        "BPFTUNE_OLD": event.old,
        "BPFTUNE_NEW": event.new,
        "BPFTUNE_CHANGE": str(event.change_id) if event.change_id else "",
    }
    return [f"{name}={value}" for name, value in fields.items() if value]


def _journal_sendv() -> Callable[..., None]:
    import systemd.journal  # noqa: PLC0415 - 1.4 MB that a daemon on stderr does not need

    sendv: Callable[..., None] = systemd.journal.sendv
    return sendv


def _without_waiting(fd: int) -> tuple[Callable[[bytes], object], Callable[[], None]]:
    """How to write to `fd` so that it fails with EAGAIN instead of waiting, and how to let go of it.

    O_NONBLOCK on `fd` itself would change it for the shell that shares it, so pipes and terminals are
    opened anew. A regular file never waits, and a second offset into it would overwrite lines.
    """
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            return _without_waiting_on_socket(fd)
        if stat.S_ISFIFO(mode) or os.isatty(fd):
            own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            return (lambda data: os.write(own, data)), (lambda: os.close(own))
    except OSError:
        return (lambda data: _write_if_ready(fd, data)), _keep_open
    return (lambda data: os.write(fd, data)), _keep_open


def _without_waiting_on_socket(fd: int) -> tuple[Callable[[bytes], object], Callable[[], None]]:
    own = socket.socket(fileno=os.dup(fd))
    return (lambda data: own.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)), own.close


def _write_if_ready(fd: int, data: bytes) -> int:
    """For descriptors that cannot be opened anew (another user's terminal)."""
    if not select.select([], [fd], [], 0)[1]:
        raise BlockingIOError
    return os.write(fd, data)


def _keep_open() -> None:
    """The descriptor is not ours to close."""
