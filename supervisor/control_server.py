# SPDX-License-Identifier: GPL-2.0-or-later
"""The control socket: takes requests, checks who asks, answers each with a reply or a Failure.

A request never ends the daemon: whatever is wrong with it becomes a Failure and changes nothing.
Who asks is what the kernel says of the connection (SO_PEERCRED, which libzmq hands on as the
message property "Peer-Address", see peers.py), never what the message says.
"""

from __future__ import annotations

import errno
import grp
import os
import traceback
from collections.abc import Callable
from pathlib import Path

import zmq

from bpftune.ipc.control import (
    CHANGING,
    CONTROL_SOCKET,
    MAX_REQUEST_BYTES,
    QUEUED_MESSAGES,
    Failure,
    Reply,
    Request,
)
from bpftune.ipc.control import replies as reply_codec
from bpftune.ipc.control import requests as request_codec
from bpftune.ipc.errors import BpftuneError, NotPermitted, ProtocolError
from bpftune.supervisor.loop import Loop
from bpftune.supervisor.peers import Peer, peer_of

GROUP = "bpftune"
CONNECTION_LIMIT_BYTES = 128 * MAX_REQUEST_BYTES
"""Between MAX_REQUEST_BYTES and this a request gets an error; above it libzmq drops the connection.

It looks at each part by itself: what a request of many parts can make us hold, only MemoryMax of the
service bounds."""
INTERNAL_ERROR = "InternalError"


Handler = Callable[[Request, Peer, Callable[[Reply], None]], None]
"""Gives the third argument the reply, now or later; raises BpftuneError before that."""


class ControlServer:
    def __init__(
        self,
        *,
        loop: Loop,
        context: zmq.Context[zmq.Socket[bytes]],
        run_dir: Path,
        error: Callable[[str], None],
    ) -> None:
        """`error` logs what must not happen: a request that ended in anything but a reply or a Failure."""
        self._loop = loop
        self._error = error
        self._path = run_dir / CONTROL_SOCKET
        self._socket = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 200)
        self._socket.setsockopt(zmq.MAXMSGSIZE, CONNECTION_LIMIT_BYTES)
        self._socket.setsockopt(zmq.RCVHWM, QUEUED_MESSAGES)
        self._socket.setsockopt(zmq.SNDHWM, QUEUED_MESSAGES)
        bind_for_group(self._socket, self._path)
        self._handler: Handler | None = None

    def serve(self, handler: Handler) -> None:
        self._handler = handler
        self._loop.watch(self._socket, self._serve_next)

    def close(self) -> None:
        self._loop.unwatch(self._socket)
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _serve_next(self) -> None:
        # One per round of the loop, so that no client keeps everything else waiting.
        identity, *frames = self._socket.recv_multipart(copy=False)
        self._serve_one(identity.bytes, frames)

    def _serve_one(self, identity: bytes, frames: list[zmq.Frame]) -> None:
        assert self._handler is not None
        try:
            if len(frames) != 1:
                raise ProtocolError(f"cannot read request: {len(frames)} parts, want 1")
            peer = peer_of(frames[0])
            request = request_codec.decode(frames[0].bytes)
            if isinstance(request, CHANGING) and peer.uid != 0:
                raise NotPermitted(f"cannot {tag_of(request)}: only root may, you are uid {peer.uid}")
            self._handler(request, peer, lambda reply: self._reply(identity, reply))
        except BpftuneError as error:
            self._reply(
                identity,
                Failure(kind=error.kind, message=str(error), value=error.value, exit_code=error.exit_code),
            )
        except Exception as error:
            self._error(f"a request failed in a way that nobody foresaw: {_describe(error)}")
            self._reply(
                identity, Failure(kind=INTERNAL_ERROR, message=f"bpftune failed: {error!r}; see its log")
            )

    def _reply(self, identity: bytes, reply: Reply) -> None:
        """A client that left in the meantime is none of our business: ROUTER drops its reply."""
        self._socket.send_multipart([identity, reply_codec.encode(reply)])


def tag_of(request: Request) -> str:
    """The verb, as it stands in the message."""
    return str(type(request).__struct_config__.tag)


def _describe(error: Exception) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{error!r} at {place.filename}:{place.lineno}"


def bind_for_group(socket: zmq.Socket[bytes], path: Path) -> None:
    """Bind an ipc socket of mode 0660 that root and the service's group can connect to.

    Raises BpftuneError when the path cannot be a socket's.
    """
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        socket.bind(f"ipc://{path}")
    except zmq.ZMQError as error:
        raise BpftuneError(f"cannot listen at {path}: {os.strerror(error.errno or errno.EINVAL)}") from error
    finally:
        os.umask(before)
    try:
        os.chown(path, -1, grp.getgrnam(GROUP).gr_gid)
    except KeyError:
        return  # no such group on this machine: root only
    path.chmod(0o660)
