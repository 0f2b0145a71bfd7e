# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon's own directories: state and run. Made where they are missing, never emptied."""

from __future__ import annotations

import stat
from pathlib import Path

from bpftune.ipc.errors import BpftuneError
from bpftune.supervisor.account import Account


def make_directory(path: Path, *, mode: int) -> None:
    """`mode` counts where it is made. Raises BpftuneError when there cannot be such a directory."""
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise BpftuneError(f"cannot make directory {path}: {error.strerror}") from error


def require_passage(path: Path, account: Account) -> None:
    """Raises BpftuneError when `account` may not enter `path`, where workers have their sockets."""
    for folder in reversed((path.resolve(), *path.resolve().parents)):
        status = folder.stat()
        if status.st_uid == account.uid:
            may_enter = status.st_mode & stat.S_IXUSR
        elif status.st_gid == account.gid:
            may_enter = status.st_mode & stat.S_IXGRP
        else:
            may_enter = status.st_mode & stat.S_IXOTH
        if not may_enter:
            raise BpftuneError(f"cannot use {path}: workers, user '{account.name}', may not enter {folder}")
