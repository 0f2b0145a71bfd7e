# SPDX-License-Identifier: GPL-2.0-or-later
"""One daemon per run directory: an flock on a file that names the holder's pid.

The kernel releases the lock however the process dies, so a stale file never blocks a start.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from bpftune.ipc.errors import BpftuneError

PID_FILE = "bpftune.pid"


class InstanceLock:
    """Raises BpftuneError naming the holder's pid when another daemon has the lock."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / PID_FILE
        try:
            self._fd = _lock(self._path)
            os.ftruncate(self._fd, 0)
            os.write(self._fd, f"{os.getpid()}\n".encode())
        except OSError as error:
            raise BpftuneError(f"cannot lock {self._path}: {error.strerror}") from error

    def release(self) -> None:
        """Unlink while still holding it, so that no second daemon locks a file that then vanishes."""
        self._path.unlink(missing_ok=True)
        os.close(self._fd)


def _lock(path: Path) -> int:
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise BpftuneError(f"bpftune is already running as pid {holder} ({path})") from error
        if _is_at(path, fd):
            return fd
        os.close(fd)  # its holder ended between our open and our lock, and unlinked it


def _is_at(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False
