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
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(self._fd, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            raise BpftuneError(f"bpftune is already running as pid {holder} ({self._path})") from error
        os.ftruncate(self._fd, 0)
        os.write(self._fd, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Unlink while still holding it, so that no second daemon locks a file that then vanishes."""
        self._path.unlink(missing_ok=True)
        os.close(self._fd)
