# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a daemon listens behind a socket, asked with one plain connect.

libzmq connects in the background and retries for ever without a word, so bpftune-ctl asks the kernel
before it hands a path to it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from pathlib import Path

from bpftune.ipc.errors import NotPermitted, NotRunning, UsageError

GROUP = "bpftune"
_NOBODY_LISTENS = frozenset(
    {errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR, errno.ENOTSOCK, errno.EPROTOTYPE}
)


def check_daemon(path: Path) -> None:
    """Raises NotRunning or NotPermitted; UsageError for a path that cannot be a socket's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fsencode(path))
        except BlockingIOError:
            return  # the backlog is full: somebody listens
        except OSError as error:
            raise _explain(path, error) from error


def _explain(path: Path, error: OSError) -> Exception:
    if error.errno in _NOBODY_LISTENS:
        what = "no socket" if error.errno in (errno.ENOENT, errno.ENOTDIR) else "nobody listens"
        return NotRunning(f"bpftune is not running ({what} at {path})")
    if error.errno in (errno.EACCES, errno.EPERM):
        return NotPermitted(f"cannot connect to {path}: permission denied; {_advice(path)}")
    return UsageError(f"cannot connect to {path}: {error.strerror or error}")


def _advice(path: Path) -> str:
    group = _group_of(path)
    if group is None:
        return "only root may: use sudo"
    return f"join group '{group}' (usermod -aG {group} USER) or use sudo"


def _group_of(path: Path) -> str | None:
    """The group that may connect; the service's when the directory does not let us look."""
    import grp  # noqa: PLC0415 - only needed for this one message

    with contextlib.suppress(PermissionError):
        gid = path.stat().st_gid
        if gid == 0:
            return None
        with contextlib.suppress(KeyError):
            return grp.getgrgid(gid).gr_name
    return GROUP
