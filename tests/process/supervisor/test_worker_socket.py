# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose words a worker's socket takes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import zmq

from bpftune.ipc.messages import Answer, ToSupervisor
from bpftune.supervisor.account import Account
from bpftune.supervisor.loop import Loop
from bpftune.supervisor.worker_socket import WorkerSocket
from tests.waiting import wait_for

SPEAK = """
import sys, zmq
from bpftune.ipc.codec import to_supervisor
from bpftune.ipc.messages import Answer
socket = zmq.Context().socket(zmq.PAIR)
socket.connect(sys.argv[1])
socket.send(to_supervisor.encode(Answer(seq=7)))
sys.stdin.read()
"""


@dataclass(slots=True)
class Heard:
    messages: list[ToSupervisor] = field(default_factory=list)
    broken_because: list[str] = field(default_factory=list)

    def connected(self) -> None:
        pass

    def received(self, message: ToSupervisor) -> None:
        self.messages.append(message)

    def broken(self, why: str) -> None:
        self.broken_because.append(why)

    def disconnected(self) -> None:
        pass


class Line:
    """A socket, and a process that connects to it and says something."""

    def __init__(self, folder: Path) -> None:
        self.loop = Loop()
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        account = Account(name="me", uid=os.getuid(), gid=os.getgid())
        self.socket = WorkerSocket(folder / "s", loop=self.loop, context=self.context, account=account)
        self.speaker = subprocess.Popen(
            [sys.executable, "-c", SPEAK, self.socket.endpoint], stdin=subprocess.PIPE
        )
        self.heard = Heard()

    def close(self) -> None:
        assert self.speaker.stdin is not None
        self.speaker.stdin.close()
        self.speaker.wait()
        self.socket.close()
        self.context.term()

    def until_heard(self) -> None:
        def turn() -> bool:
            self.loop.run_once(10)
            return bool(self.heard.messages or self.heard.broken_because)

        wait_for(turn, 10, "something is heard")


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    line = Line(tmp_path)
    yield line
    line.close()


def test_the_process_that_it_is_for_is_heard(line: Line) -> None:
    line.socket.listen(line.heard, line.speaker.pid)
    line.until_heard()
    assert line.heard == Heard(messages=[Answer(seq=7)])


def test_another_process_that_came_first_is_not(line: Line) -> None:
    line.socket.listen(line.heard, os.getpid())
    line.until_heard()
    assert line.heard.messages == []
    (why,) = line.heard.broken_because
    assert f"taken by another process (uid {os.getuid()}, pid {line.speaker.pid})" in why
