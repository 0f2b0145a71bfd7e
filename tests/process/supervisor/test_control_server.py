# SPDX-License-Identifier: GPL-2.0-or-later
"""The control socket with real peers: who may ask what, and what garbage does."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from bpftune.ipc.control import (
    CONTROL_SOCKET,
    MAX_REQUEST_BYTES,
    QUEUED_MESSAGES,
    DoneReply,
    Failure,
    Reply,
    Request,
    RestartRequest,
    StatusRequest,
    SummaryRequest,
    SupportReply,
    SupportRequest,
    VerifyRequest,
    replies,
    requests,
)
from bpftune.ipc.errors import NotPermitted, UnknownName
from bpftune.supervisor.control_server import ControlServer
from bpftune.supervisor.loop import Loop
from bpftune.supervisor.peers import Peer, parse_peer

NOBODY = 65534


class Serving:
    """A control server whose loop runs on a thread of its own."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.seen: list[tuple[Request, Peer]] = []
        self._loop = Loop()
        self._context = zmq.Context()
        self.errors: list[str] = []
        self.turns: list[int] = []
        """How many requests had been taken when each timer that one set was due."""
        self._server = ControlServer(
            loop=self._loop, context=self._context, run_dir=run_dir, error=self.errors.append
        )
        self._server.serve(self._answer)
        self._wake_fd, self._stop_fd = os.pipe()
        self._loop.watch(self._wake_fd, self._loop.stop)
        self._thread = threading.Thread(target=self._loop.run)
        self._thread.start()

    def close(self) -> None:
        os.write(self._stop_fd, b"x")
        self._thread.join(10)
        self._server.close()
        self._context.term()
        os.close(self._wake_fd)
        os.close(self._stop_fd)

    def ask(self, *frames: bytes) -> Reply:
        context = zmq.Context()
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(f"ipc://{self.run_dir / CONTROL_SOCKET}")
        socket.send_multipart(frames)
        assert socket.poll(10_000), "no reply"
        reply = replies.decode(socket.recv())
        context.destroy(linger=0)
        return reply

    def _answer(self, request: Request, peer: Peer, reply: Callable[[Reply], None]) -> None:
        self.seen.append((request, peer))
        if isinstance(request, VerifyRequest):
            raise OverflowError("nobody foresaw this")
        if isinstance(request, SummaryRequest):
            self._loop.call_later(0, lambda: self.turns.append(len(self.seen)))
        if isinstance(request, SupportRequest):
            raise UnknownName("tuner", "tcp_bufer", ["tcp_buffer"])
        reply(DoneReply(lines=["done"]))


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    serving = Serving(tmp_path)
    yield serving
    serving.close()


def test_a_request_is_answered_and_the_peer_is_known(serving: Serving) -> None:
    assert serving.ask(requests.encode(StatusRequest())) == DoneReply(lines=["done"])
    ((_, peer),) = serving.seen
    assert (peer.uid, peer.pid) == (os.getuid(), os.getpid())


def test_our_own_errors_become_failures_with_their_data(serving: Serving) -> None:
    failure = serving.ask(requests.encode(SupportRequest()))
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.value, failure.exit_code) == ("UnknownName", "tcp_bufer", 2)
    assert "did you mean 'tcp_buffer'" in failure.message


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"\xc1"],
        [b"\x00" * 64],
        [replies.encode(SupportReply(supported=True, lines=[], hooks={}))[:-1]],
        [b"x" * (MAX_REQUEST_BYTES + 1)],
        [requests.encode(StatusRequest()), b"more"],
    ],
    ids=["empty", "reserved byte", "zeros", "truncated", "oversized", "two parts"],
)
def test_garbage_gets_an_error_and_reaches_nobody(serving: Serving, frames: list[bytes]) -> None:
    failure = serving.ask(*frames)
    assert isinstance(failure, Failure)
    assert failure.kind == "ProtocolError"
    assert not serving.seen
    assert serving.ask(requests.encode(StatusRequest())) == DoneReply(lines=["done"])


def test_an_error_that_nobody_foresaw_is_logged_once_and_ends_nothing(serving: Serving) -> None:
    failure = serving.ask(requests.encode(VerifyRequest()))
    assert isinstance(failure, Failure)
    assert failure.kind == "InternalError"
    (line,) = serving.errors
    assert "OverflowError('nobody foresaw this') at " in line
    assert serving.ask(requests.encode(StatusRequest())) == DoneReply(lines=["done"])


def test_requests_in_a_row_leave_room_for_everything_else(serving: Serving) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(f"ipc://{serving.run_dir / CONTROL_SOCKET}")
        for _ in range(QUEUED_MESSAGES):
            socket.send(requests.encode(SummaryRequest()))
        for served in range(1, QUEUED_MESSAGES + 1):
            assert socket.poll(10_000), f"no reply after {served - 1}"
            socket.recv()
    assert serving.turns == [*range(1, QUEUED_MESSAGES + 1)]


def test_a_changing_verb_needs_root(serving: Serving) -> None:
    if os.getuid() != 0:
        failure = serving.ask(requests.encode(RestartRequest(tuner="x")))
    else:
        (serving.run_dir / CONTROL_SOCKET).chmod(0o666)
        for folder in (serving.run_dir, *serving.run_dir.parents[:3]):
            folder.chmod(0o711)
        failure = replies.decode(ask_as_nobody(serving, requests.encode(RestartRequest(tuner="x"))))
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.exit_code) == ("NotPermitted", 4)
    assert not serving.seen


def ask_as_nobody(serving: Serving, request: bytes) -> bytes:
    """The encoded reply that an unprivileged process gets."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setuid(NOBODY)
        os.write(writing, replies.encode(serving.ask(request)))
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as file:
        return file.read()


def test_the_socket_is_not_for_everybody(serving: Serving) -> None:
    assert (serving.run_dir / CONTROL_SOCKET).stat().st_mode & 0o007 == 0


def test_a_peer_without_credentials_is_nobody() -> None:
    assert parse_peer("localhost:0:1:42") == Peer(uid=0, pid=42)
    for address in ("", "localhost", "localhost:a:b:c"):
        with pytest.raises(NotPermitted):
            parse_peer(address)
