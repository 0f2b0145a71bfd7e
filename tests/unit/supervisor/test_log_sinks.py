# SPDX-License-Identifier: GPL-2.0-or-later
"""Sinks never raise and the one on stderr never waits, whatever is behind it."""

from __future__ import annotations

import os
import pty
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpftune.ipc.control import LogEvent
from bpftune.supervisor.log_sinks import (
    MAX_STDERR_BYTES,
    JournalSink,
    StderrSink,
    SyslogSink,
    journal_fields,
    open_sink,
)


def event(message: str) -> LogEvent:
    return LogEvent(time_s=0, priority=5, message=message)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            continue  # the test closed it


def test_a_line_carries_the_name_and_no_level(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = StderrSink(writer)
    sink.write(event("hello"), "")
    sink.close()

    assert os.read(reader, 100) == b"bpftune: hello\n"


def test_a_pipe_that_nobody_reads_costs_lines_and_says_so(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = StderrSink(writer)
    for _ in range(2000):
        sink.write(event("x" * 100), "")
    assert os.get_blocking(writer), "the descriptor we share must not change"

    kept = os.read(reader, 1 << 20).count(b"\n")
    sink.write(event("back"), "")
    sink.close()

    assert os.read(reader, 1 << 20).decode().splitlines() == [
        f"bpftune: {2000 - kept} lines lost: nobody reads stderr",
        "bpftune: back",
    ]


def test_a_closed_pipe_is_survived(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = StderrSink(writer)
    os.close(reader)
    sink.write(event("into the void"), "")
    sink.close()


def test_a_closed_descriptor_is_survived(pipe: tuple[int, int]) -> None:
    _, writer = pipe
    os.close(writer)
    sink = StderrSink(writer)
    sink.write(event("into the void"), "")
    sink.close()


def test_a_terminal_that_was_stopped_does_not_hold_us() -> None:
    master, slave = pty.openpty()
    sink = StderrSink(slave)
    for _ in range(5000):
        sink.write(event("x" * 100), "")
    sink.close()
    os.close(slave)
    os.close(master)


def test_a_socket_that_nobody_reads_does_not_hold_us() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sink = StderrSink(ours.fileno())
        for _ in range(5000):
            sink.write(event("x" * 100), "")
        sink.close()

        assert theirs.recv(200).startswith(b"bpftune: xxx")


def test_a_file_is_written_at_the_offset_it_shares(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb", buffering=0) as file:
        sink = StderrSink(file.fileno())
        sink.write(event("one"), "")
        file.write(b"Traceback\n")
        sink.write(event("two"), "")
        sink.close()

    assert path.read_text() == "bpftune: one\nTraceback\nbpftune: two\n"


def test_a_long_line_still_fits_a_pipe_at_once(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = StderrSink(writer)
    sink.write(event("x" * 10_000), "")
    sink.close()

    line = os.read(reader, 1 << 20)
    assert len(line) == MAX_STDERR_BYTES
    assert line.endswith(b"x\n")


def test_journal_fields_leave_out_what_does_not_apply() -> None:
    change = LogEvent(
        time_s=0, priority=5, message="m", tuner="t", tunable="a.b", scenario="s", netns="n",
        old="1", new="2", change_id=7,
    )  # fmt: skip

    assert journal_fields(change, "id") == [
        "MESSAGE=m",
        "PRIORITY=5",
        "SYSLOG_IDENTIFIER=bpftune",
        "MESSAGE_ID=id",
        "BPFTUNE_TUNER=t",
        "BPFTUNE_TUNABLE=a.b",
        "BPFTUNE_SCENARIO=s",
        "BPFTUNE_NETNS=n",
        "BPFTUNE_OLD=1",
        "BPFTUNE_NEW=2",
        "BPFTUNE_CHANGE=7",
    ]
    assert journal_fields(event("m"), "") == ["MESSAGE=m", "PRIORITY=5", "SYSLOG_IDENTIFIER=bpftune"]


def test_a_journal_that_fails_is_survived() -> None:
    def fail(*fields: str) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    JournalSink(fail).write(event("m"), "")


def test_journal_is_chosen_by_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    assert isinstance(open_sink(stderr=False, journal_socket=path), SyslogSink)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(path))
        assert isinstance(open_sink(stderr=False, journal_socket=path), JournalSink)
        sink = open_sink(stderr=True, journal_socket=path)
    assert isinstance(sink, StderrSink)
    sink.close()
