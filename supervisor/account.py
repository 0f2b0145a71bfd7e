# SPDX-License-Identifier: GPL-2.0-or-later
"""Which user the workers run as."""

from __future__ import annotations

import pwd
from collections.abc import Sequence
from dataclasses import dataclass

from bpftune.ipc.errors import NotSupported

CANDIDATES = ("bpftune", "nobody")
"""The service's own user, made by its sysusers.d file; else the one that every system has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    name: str
    uid: int
    gid: int


def find_account(candidates: Sequence[str] = CANDIDATES) -> Account:
    """Raises NotSupported if there is no unprivileged user to run workers as."""
    for name in candidates:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0 and entry.pw_gid != 0:
            return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
    raise NotSupported(f"cannot run workers: there is no unprivileged user {' or '.join(candidates)}")
