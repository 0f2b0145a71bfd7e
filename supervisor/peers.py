# SPDX-License-Identifier: GPL-2.0-or-later
"""Who is at the other end of an ipc socket, as the kernel says.

libzmq hands on what SO_PEERCRED told it of a connection with every message that comes through it.
"""

from __future__ import annotations

from dataclasses import dataclass

import zmq

from bpftune.ipc.errors import NotPermitted


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    uid: int
    pid: int
    """In our pid namespace; 0: it is in none that we see."""

    def __str__(self) -> str:
        return f"uid {self.uid}, pid {self.pid}"


def peer_of(frame: zmq.Frame) -> Peer:
    """Raises NotPermitted when it cannot be told: nobody unknown is served."""
    try:
        # typeshed knows integer properties only
        address = str(frame.get("Peer-Address"))  # type: ignore[arg-type]
    except zmq.ZMQError:
        address = ""
    return parse_peer(address)


def parse_peer(address: str) -> Peer:
    """ "...:uid:gid:pid"; raises NotPermitted for anything else."""
    try:
        uid, _gid, pid = map(int, address.rsplit(":", 3)[-3:])
    except ValueError:
        raise NotPermitted(f"cannot tell who asks: peer address {address!r}") from None
    return Peer(uid=uid, pid=pid)
