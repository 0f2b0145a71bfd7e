# SPDX-License-Identifier: GPL-2.0-or-later
"""Says that something changed in a directory; what, its owner looks up: inotify(7).

Called by folders.py. Three calls of the C library: the package for it brings 2 MB of modules along
and runs ldconfig(8) at every start to find that library.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from enum import IntFlag
from pathlib import Path


class Change(IntFlag):
    """What to be told about: sys/inotify.h."""

    ATTRIB = 0x004
    CLOSE_WRITE = 0x008
    MOVED_FROM = 0x040
    MOVED_TO = 0x080
    CREATE = 0x100
    DELETE = 0x200
    DELETE_SELF = 0x400
    ONLY_DIRECTORY = 0x0100_0000
    """Not a change: refuse to watch anything else."""


_READ_BYTES = 64 << 10
_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """Owns one descriptor, readable when something happened in a watched directory."""

    def __init__(self) -> None:
        """Raises OSError."""
        self._fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def fileno(self) -> int:
        return self._fd

    def watch(self, directory: Path, changes: Change) -> None:
        """Idempotent. Raises OSError, when it is gone for one."""
        _checked(_libc.inotify_add_watch(self._fd, os.fsencode(directory), ctypes.c_uint32(changes)))

    def drain(self) -> None:
        """Take what happened so far, unseen."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._fd, _READ_BYTES):
                pass

    def close(self) -> None:
        os.close(self._fd)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
