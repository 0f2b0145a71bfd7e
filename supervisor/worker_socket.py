# SPDX-License-Identifier: GPL-2.0-or-later
"""The supervisor's end of the channel to one worker process.

A ZeroMQ PAIR over an ipc socket that only the workers' user may connect to. All workers are that user,
so every message is asked which process it came from. A monitor beside the socket tells when somebody
connected (only then can anything be sent) and when the connection broke.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import zmq

from bpftune.ipc.codec import MAX_MESSAGE_BYTES, to_supervisor, to_worker
from bpftune.ipc.errors import NotPermitted, ProtocolError
from bpftune.ipc.messages import ToSupervisor, ToWorker
from bpftune.supervisor.account import Account
from bpftune.supervisor.loop import Loop
from bpftune.supervisor.peers import peer_of

SOCKETS_FOLDER = "workers"

_QUEUED_MESSAGES = 16
"""What a worker may have under way. libzmq counts messages and looks at the size of each part: what one
of many parts can make us hold, only MemoryMax of the service bounds."""

_MONITOR_EVENT = struct.Struct("=HI")  # zmq_socket_monitor(3)


class SocketListener(Protocol):
    def connected(self) -> None: ...

    def received(self, message: ToSupervisor) -> None: ...

    def broken(self, why: str) -> None:
        """It broke the rules: nothing more of it is heard."""

    def disconnected(self) -> None:
        """Its end is closed: nothing more of it is heard."""


class WorkerSocket:
    def __init__(
        self, path: Path, *, loop: Loop, context: zmq.Context[zmq.Socket[bytes]], account: Account
    ) -> None:
        """Raises OSError when the socket cannot be made."""
        self.endpoint = f"ipc://{path}"
        self._path = path
        self._loop = loop
        self._listener: SocketListener | None = None
        self._pid = 0
        self._socket = context.socket(zmq.PAIR)
        self._socket.set(zmq.LINGER, 0)
        self._socket.set(zmq.RCVHWM, _QUEUED_MESSAGES)
        self._socket.set(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        self._monitor = self._socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        )
        try:
            with _umask(0o177):
                self._socket.bind(self.endpoint)
            os.chown(path, account.uid, account.gid)
        except (zmq.ZMQError, OSError) as error:
            self.close()
            raise OSError(f"cannot make socket {path}: {error}") from error

    def listen(self, listener: SocketListener, pid: int) -> None:
        """`pid`: the process whose socket this is. What it did before waits for this call."""
        self._listener = listener
        self._pid = pid
        self._loop.watch(self._socket, self._receive)
        self._loop.watch(self._monitor, self._receive_event)

    def send(self, message: ToWorker) -> None:
        """Never blocks: a worker that does not read is broken."""
        try:
            self._socket.send(to_worker.encode(message), zmq.NOBLOCK)
        except zmq.Again:
            self._break("it does not read its messages")

    def close(self) -> None:
        self._listener = None
        for source in (self._socket, self._monitor):
            self._loop.unwatch(source)
        self._socket.disable_monitor()
        self._monitor.close()
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _receive(self) -> None:
        # One message per round of the loop, so that no worker keeps the others waiting.
        try:
            frame = self._socket.recv(zmq.NOBLOCK, copy=False)
            peer = peer_of(frame)
            if peer.pid != self._pid:
                raise NotPermitted(f"its socket was taken by another process ({peer})")
            message = to_supervisor.decode(frame.bytes)
        except zmq.Again:
            return
        except (NotPermitted, ProtocolError) as error:
            self._break(str(error))
            return
        if self._listener is not None:
            self._listener.received(message)

    def _receive_event(self) -> None:
        try:
            frame = self._monitor.recv_multipart(zmq.NOBLOCK)[0]
        except zmq.Again:
            return
        event, _value = _MONITOR_EVENT.unpack(frame)
        if self._listener is None:
            return
        if event == zmq.EVENT_DISCONNECTED:
            self._listener.disconnected()
        else:
            # Nobody else can connect from here on; the worker never needs to again.
            self._path.unlink(missing_ok=True)
            self._listener.connected()

    def _break(self, why: str) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.broken(why)


def prepare_folder(run_dir: Path, tuner: str) -> Path:
    """Make the sockets' folder and remove what an earlier supervisor left of this tuner."""
    folder = run_dir / SOCKETS_FOLDER
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    folder.chmod(0o711)  # workers pass, nobody lists
    for leftover in folder.glob(f"{tuner}.*.sock"):
        leftover.unlink(missing_ok=True)
    return folder


@contextlib.contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
