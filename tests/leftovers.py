# SPDX-License-Identifier: GPL-2.0-or-later
"""What a test run may leave behind: processes, named namespaces, mounts, BPF programs.

Descendants are found by a mark in their environment, so that orphans count too and other runs on
the same machine do not.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import uuid
from collections.abc import Callable, Sized
from pathlib import Path
from typing import TypeVar

from tests.waiting import wait_for

PROC = Path("/proc")
Left = TypeVar("Left", bound=Sized)
MARK = "BPFTUNE_TESTS_SESSION"
OUR_MOUNTS = {"bpf", "cgroup", "cgroup2", "nsfs"}
SYSTEMD_OWN_TYPES = {"8", "15"}
"""cgroup_skb and cgroup_device: systemd attaches these for its units whenever it likes."""


def mark_descendants() -> None:
    os.environ.setdefault(MARK, uuid.uuid4().hex)


def descendants() -> set[int]:
    """Processes that carry this session's mark, but not the test runner itself."""
    wanted = f"{MARK}={os.environ[MARK]}".encode()
    return {pid for pid in _pids() if pid != os.getpid() and wanted in _environ(pid)}


def namespaces(run_netns: Path = Path("/run/netns")) -> set[str]:
    return {entry.name for entry in run_netns.iterdir()} if run_netns.is_dir() else set()


def mounts() -> set[str]:
    """Mount points of the kinds that bpftune or its tests could want: others come and go as they please."""
    fields = [line.split() for line in (PROC / "self/mountinfo").read_text().splitlines()]
    return {one[4] for one in fields if one[one.index("-") + 1] in OUR_MOUNTS} - {"/run/netns", "/run"}


def programs() -> set[int]:
    """Ids of the BPF programs in the kernel that no foreign process holds."""
    foreign = _programs_held(set(_pids()) - descendants() - {os.getpid()})
    return _program_ids() - foreign


def settle(left: Callable[[], Left], timeout_s: float = 3) -> Left:
    """What is still left after a grace: the kernel frees programs and namespaces a little later."""
    with contextlib.suppress(AssertionError):
        wait_for(lambda: not left(), timeout_s, "nothing left behind")
    return left()


def kill(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def describe(pids: set[int]) -> str:
    return ", ".join(f"{pid} ({_command(pid)})" for pid in sorted(pids))


def _pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]


def _environ(pid: int) -> list[bytes]:
    try:
        return (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _command(pid: int) -> str:
    try:
        return (PROC / str(pid) / "cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return "gone"


def _program_ids() -> set[int]:
    """All programs but systemd's own kinds; empty when the kernel does not let us look."""
    libbpf = ctypes.CDLL("libbpf.so.1")
    found = set()
    current = ctypes.c_uint32(0)
    while libbpf.bpf_prog_get_next_id(current, ctypes.byref(current)) == 0:
        found.add(current.value)
    return {program for program in found if not _is_systemd_kind(libbpf, program)}


def _is_systemd_kind(libbpf: ctypes.CDLL, program: int) -> bool:
    descriptor = libbpf.bpf_prog_get_fd_by_id(ctypes.c_uint32(program))
    if descriptor < 0:
        return True  # it went away meanwhile
    try:
        info = (PROC / f"self/fdinfo/{descriptor}").read_text()
    finally:
        os.close(descriptor)
    return bool(SYSTEMD_OWN_TYPES.intersection(re.findall(r"^prog_type:\s*(\d+)", info, re.MULTILINE)))


def _programs_held(pids: set[int]) -> set[int]:
    """Programs that these processes hold, themselves or through a link."""
    held: set[int] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for descriptor in (PROC / str(pid) / "fd").iterdir():
                if os.readlink(descriptor).startswith("anon_inode:bpf"):
                    info = (PROC / str(pid) / "fdinfo" / descriptor.name).read_text()
                    held.update(
                        int(number) for number in re.findall(r"^prog_id:\s*(\d+)", info, re.MULTILINE)
                    )
    return held
