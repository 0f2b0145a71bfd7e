# SPDX-License-Identifier: GPL-2.0-or-later
"""Who wrote a sysctl, described for people.

Called by sysctl_judge.py. The process may be gone by now, and what it says about itself is not to
be trusted: it ends up in log lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_MAX_COMMAND = 64
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_./+:@()=,-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class SysctlWriter:
    pid: int
    command: str
    """argv[0], or the comm of a process that is gone."""
    user: str

    def __str__(self) -> str:
        return f"pid {self.pid}, cmd '{self.command}', user '{self.user}'"


def describe_writer(
    *, pid: int, uid: int, comm: str, proc_root: Path = Path("/proc"), passwd: Path = Path("/etc/passwd")
) -> SysctlWriter:
    command = _read_argv0(proc_root, pid) or comm
    plain = _NOT_PLAIN.sub("?", command)[:_MAX_COMMAND]
    return SysctlWriter(pid=pid, command=plain, user=_user_name(uid, passwd))


def _read_argv0(proc_root: Path, pid: int) -> str:
    try:
        with (proc_root / str(pid) / "cmdline").open("rb") as file:
            return file.read(4096).split(b"\0", 1)[0].decode("utf-8", "replace")
    except OSError:
        return ""


def _user_name(uid: int, passwd: Path) -> str:
    """Straight from the file: a look-up through NSS could wait for a directory server."""
    try:
        lines = passwd.read_text(errors="replace").splitlines()
    except OSError:
        return str(uid)
    entries = (line.split(":") for line in lines)
    names = [entry[0] for entry in entries if len(entry) > 2 and entry[2] == str(uid)]
    return names[0] if names else str(uid)
