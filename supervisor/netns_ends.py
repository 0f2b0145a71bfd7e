# SPDX-License-Identifier: GPL-2.0-or-later
"""Hears of network namespaces that end, without keeping any of them alive.

The kernel announces the end of a namespace to those who gave it an id (RTM_DELNSID in group
RTNLGRP_NSID, Linux kernel commit 9a9634545c70 ("netns: notify netns id events") (in v4.0)), so every
namespace gets one. Called by namespaces.py. Which one ended is not worth keeping a table for: the
caller sweeps.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable

from bpftune.supervisor.loop import Loop

# include/uapi/linux/rtnetlink.h, netlink.h and net_namespace.h
_RTM_NEWNSID = 88
_RTMGRP_NSID = 1 << (28 - 1)
_NLM_F_REQUEST_ACK = 0x5
_NLMSG_ERROR = 2
_NETNSA_NSID = 1
_NETNSA_FD = 3
_ANY_ID = -1
_HEADER = struct.Struct("=IHHII")
_GENERIC = struct.Struct("=Bxxx")
_ATTRIBUTE = struct.Struct("=HHi")
_RECEIVE_BYTES = 1 << 16
_TIMEOUT_S = 1


class NetnsEnds:
    def __init__(self, loop: Loop, ended: Callable[[], None]) -> None:
        """Raises OSError when the kernel does not tell."""
        self._loop = loop
        self._ended = ended
        self._events = _open()
        self._events.bind((0, _RTMGRP_NSID))
        self._events.setblocking(False)
        loop.watch(self._events.fileno(), self._receive)

    def close(self) -> None:
        self._loop.unwatch(self._events.fileno())
        self._events.close()

    def announce(self, netns_fd: int) -> None:
        """Have the end of this namespace announced. OSError."""
        with _open() as asking:
            asking.settimeout(_TIMEOUT_S)
            asking.send(format_new_id(netns_fd))
            number = parse_error(asking.recv(_RECEIVE_BYTES))
        if number not in (0, errno.EEXIST):
            raise OSError(number, os.strerror(number))

    def _receive(self) -> None:
        try:
            while self._events.recv(_RECEIVE_BYTES):
                pass
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            # More ended at once than the socket holds: a sweep finds them all.
        self._ended()


def format_new_id(netns_fd: int) -> bytes:
    """RTM_NEWNSID: give the namespace any free id as seen from ours."""
    body = (
        _GENERIC.pack(0)
        + _ATTRIBUTE.pack(_ATTRIBUTE.size, _NETNSA_FD, netns_fd)
        + _ATTRIBUTE.pack(_ATTRIBUTE.size, _NETNSA_NSID, _ANY_ID)
    )
    return _HEADER.pack(_HEADER.size + len(body), _RTM_NEWNSID, _NLM_F_REQUEST_ACK, 1, 0) + body


def parse_error(data: bytes) -> int:
    """errno of an acknowledgement, 0 for success."""
    _, kind, _, _, _ = _HEADER.unpack_from(data)
    if kind != _NLMSG_ERROR:
        raise OSError(errno.EPROTO, "rtnetlink did not acknowledge")
    return -int(struct.unpack_from("=i", data, _HEADER.size)[0])


def _open() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
