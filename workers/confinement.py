# SPDX-License-Identifier: GPL-2.0-or-later
"""What a worker gives up before it runs any tuner code.

Called by host.py in the freshly forked child, in the order of the functions below. A right that
cannot be given up ends the worker; the only exception is the bounding set.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import sys
from typing import TextIO, cast

from bpftune.workers import syscalls

ADDRESS_SPACE_BYTES = 512 << 20
OPEN_FILES = 64

_STANDARD_DESCRIPTORS = 3
_MAX_DESCRIPTOR = 1 << 20


def adopt_descriptors(stdout: int, stderr: int) -> None:
    """Make the two pipes fd 1 and 2 and close every other descriptor but stdin."""
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.closerange(_STANDARD_DESCRIPTORS, _MAX_DESCRIPTOR)
    cast("TextIO", sys.stdout).reconfigure(line_buffering=True)  # type: ignore[attr-defined]
    faulthandler.enable(file=2)  # SIGABRT is how the supervisor asks for a hung worker's stack


def drop_privileges(uid: int, gid: int, parent_pid: int) -> None:
    """Become `uid`:`gid` without groups or capabilities, for good."""
    if uid == 0 or gid == 0:
        raise PermissionError("cannot run a worker: its user must not be root")
    syscalls.drop_bounding_set()
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    syscalls.clear_capabilities()
    syscalls.forbid_new_privileges()
    syscalls.forbid_tracing()
    syscalls.die_with_parent(parent_pid)


def limit_resources() -> None:
    """No files written, no core, bounded memory and descriptors, nothing reached by a relative path."""
    os.chdir("/")
    os.umask(0o077)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _limit(resource.RLIMIT_AS, ADDRESS_SPACE_BYTES)
    _limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)


def forbid_processes() -> None:
    """No fork and no thread from here on; ZeroMQ must have started its threads before."""
    _limit(resource.RLIMIT_NPROC, 0)


def _limit(which: int, value: int) -> None:
    resource.setrlimit(which, (value, value))
