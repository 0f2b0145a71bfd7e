# SPDX-License-Identifier: GPL-2.0-or-later
"""What supervisor and fork server say to each other, one message per SOCK_SEQPACKET packet.

`Spawn` carries the worker's stdout and stderr as SCM_RIGHTS, `Spawned` its pidfd. A child is named
by the `id` that the supervisor gave it, so a reused pid cannot be mistaken for it.
"""

from __future__ import annotations

import msgspec

from bpftune.ipc.codec import Codec
from bpftune.ipc.declaration import Declaration

MAX_PACKET_BYTES = 128 << 10
"""A socket's default buffer holds it."""
SPAWN_DESCRIPTORS = 2
"""stdout and stderr, in this order."""


class Spawn(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: int
    declaration: Declaration
    """As the supervisor accepted it, whatever tuner.toml says by now."""
    folder: str
    endpoint: str
    """ZeroMQ endpoint that the worker connects to."""
    uid: int
    gid: int


class Spawned(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: int
    pid: int


class NotSpawned(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: int
    why: str


class Exited(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: int
    status: int
    """As from waitpid(2)."""


FromForkServer = Spawned | NotSpawned | Exited

to_fork_server: Codec[Spawn] = Codec(Spawn, max_bytes=MAX_PACKET_BYTES)
from_fork_server: Codec[FromForkServer] = Codec(FromForkServer, max_bytes=MAX_PACKET_BYTES)
