# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the kernel's file systems are: the cgroup2 root, the ids of tracepoints, probe PMUs.

Hooks ask. Nothing is ever mounted where another process could see it or where it would stay.
"""

from __future__ import annotations

import ctypes as ct
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")
EVENT_SOURCES = Path("/sys/bus/event_source/devices")

# The same on every architecture, as all calls from 424 on (include/uapi/asm-generic/unistd.h).
_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432
_FSCONFIG_CMD_CREATE = 6
_CLOEXEC = 1
_MOUNT_FIELDS = 6
"""Fixed fields of a mountinfo line in front of the optional ones."""


def find_mounts(fstype: str, mountinfo: Path = MOUNTINFO) -> list[Path]:
    """Where that type of file system is mounted with its root visible."""
    return parse_mounts(mountinfo.read_text(), fstype)


def parse_mounts(text: str, fstype: str) -> list[Path]:
    """proc(5), /proc/pid/mountinfo: optional fields end with a single hyphen."""
    mounts = []
    for line in text.splitlines():
        fields = line.split()
        kind = fields[fields.index("-", _MOUNT_FIELDS) + 1]
        if kind == fstype and fields[3] == "/":
            mounts.append(Path(_unescape(fields[4])))
    return mounts


def find_cgroup_root(mountinfo: Path = MOUNTINFO) -> Path | None:
    """The root of the cgroup2 hierarchy; None: cgroup2 is not mounted."""
    mounts = find_mounts("cgroup2", mountinfo)
    return mounts[0] if mounts else None


def read_tracepoint_id(target: str) -> int:
    """The perf event id of `category/name`. Raises OSError; FileNotFoundError: no such tracepoint.

    A kernel in confidentiality lockdown mounts tracefs and leaves it empty: PermissionError.
    """
    with _tracefs() as directory:
        if not _has_entry(directory, "events"):
            raise PermissionError(errno.EPERM, "tracefs is empty")
        descriptor = os.open(f"events/{target}/id", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        with os.fdopen(descriptor) as file:
            return int(file.read())


def read_pmu_type(name: str, root: Path = EVENT_SOURCES) -> int | None:
    """The perf event type of a dynamic source such as "kprobe"; None: this kernel has none."""
    try:
        return int((root / name / "type").read_text())
    except FileNotFoundError:
        return None


def read_retprobe_bit(root: Path = EVENT_SOURCES) -> int:
    """Which bit of perf_event_attr.config makes a kprobe a kretprobe; the file says "config:<bit>"."""
    return int((root / "kprobe" / "format" / "retprobe").read_text().partition(":")[2])


def _has_entry(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def _tracefs() -> Iterator[int]:
    """A descriptor of tracefs's root: the mounted one, or a mount of our own that has no place in
    the tree and ends with its descriptor."""
    mounts = find_mounts("tracefs")
    descriptor = (
        os.open(mounts[0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if mounts else _mount_tracefs()
    )
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _mount_tracefs() -> int:
    context = _syscall(_SYS_FSOPEN, b"tracefs", _CLOEXEC)
    try:
        _syscall(_SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return _syscall(_SYS_FSMOUNT, context, _CLOEXEC, 0)
    finally:
        os.close(context)


def _syscall(number: int, *arguments: object) -> int:
    libc = ct.CDLL(None, use_errno=True)
    result: int = libc.syscall(ct.c_long(number), *arguments)
    if result < 0:
        raise OSError(ct.get_errno(), os.strerror(ct.get_errno()))
    return result


def _unescape(path: str) -> str:
    r"""mountinfo writes blanks, tabs, newlines and backslashes as \ooo."""
    return path.encode().decode("unicode_escape")
