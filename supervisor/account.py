# SPDX-License-Identifier: GPL-2.0-or-later
"""Which user and group the workers run as.

Their group is never the user's own: the members of `bpftune` may use the control socket.
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Sequence
from dataclasses import dataclass

from bpftune.ipc.errors import NotSupported

CANDIDATES = ("bpftune", "nobody")
"""The service's own user, made by its sysusers.d file; else the one that every system has."""
GROUPS = ("nogroup", "nobody")
"""What distributions call the group that owns nothing."""
_OVERFLOW_GID = 65534
"""/proc/sys/kernel/overflowgid: nobody's by custom, whether it has a name or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    name: str
    uid: int
    gid: int


def find_account(candidates: Sequence[str] = CANDIDATES, groups: Sequence[str] = GROUPS) -> Account:
    """Raises NotSupported if there is no unprivileged user to run workers as."""
    for name in candidates:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name=name, uid=entry.pw_uid, gid=_find_group(groups))
    raise NotSupported(f"cannot run workers: there is no unprivileged user {' or '.join(candidates)}")


def _find_group(names: Sequence[str]) -> int:
    for name in names:
        try:
            gid = grp.getgrnam(name).gr_gid
        except KeyError:
            continue
        if gid != 0:
            return gid
    return _OVERFLOW_GID
