# SPDX-License-Identifier: GPL-2.0-or-later
"""BPF programs, links and maps by id: which ones a process holds, whether they still exist, and how
long programs run."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

Object = tuple[str, int]
"""("prog", "link" or "map", id)"""

_ID = re.compile(r"^(prog|link|map)_id:\t(\d+)", re.MULTILINE)
_RUNS = re.compile(r"^prog_id:\t(\d+)\nrun_time_ns:\t(\d+)\nrun_cnt:\t(\d+)", re.MULTILINE)
_STATISTICS = Path("/proc/sys/kernel/bpf_stats_enabled")

_PROGRAM_INFO_BYTES = 256
_NAME = slice(64, 80)  # struct bpf_prog_info, include/uapi/linux/bpf.h


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTime:
    """Of one program, since `program_statistics` began."""

    name: str
    runs: int
    total_ns: int


def held(pid: int) -> set[Object]:
    """What a process has descriptors of; a link counts with its program."""
    found: set[Object] = set()
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile, as that of a listing of our own is
            found |= {(kind, int(number)) for kind, number in _ID.findall(entry.read_text())}
    return found


def existing(objects: set[Object]) -> set[Object]:
    """Those that the kernel still has."""
    return {one for one in objects if _exists(*one)}


def _exists(kind: str, number: int) -> bool:
    library = ctypes.CDLL("libbpf.so.1")
    descriptor: int = getattr(library, f"bpf_{kind}_get_fd_by_id")(ctypes.c_uint32(number))
    if descriptor >= 0:
        os.close(descriptor)
    return descriptor != -errno.ENOENT


@contextlib.contextmanager
def program_statistics() -> Iterator[None]:
    """The kernel counts and times every run of a BPF program, which costs each one some 20 ns."""
    before = _STATISTICS.read_text()
    _STATISTICS.write_text("1")
    try:
        yield
    finally:
        _STATISTICS.write_text(before)


def run_times(pid: int) -> list[RunTime]:
    """Of the programs that a process holds and that ran, the busiest first."""
    infos = [entry.read_text() for entry in Path(f"/proc/{pid}/fdinfo").iterdir()]
    found = {tuple(map(int, counts)) for info in infos for counts in _RUNS.findall(info)}
    times = [
        RunTime(name=_program_name(number), runs=runs, total_ns=total_ns)
        for number, total_ns, runs in found
        if runs
    ]
    return sorted(times, key=lambda one: one.total_ns, reverse=True)


def _program_name(number: int) -> str:
    library = ctypes.CDLL("libbpf.so.1")
    descriptor: int = library.bpf_prog_get_fd_by_id(ctypes.c_uint32(number))
    info = ctypes.create_string_buffer(_PROGRAM_INFO_BYTES)
    length = ctypes.c_uint32(_PROGRAM_INFO_BYTES)
    result: int = library.bpf_obj_get_info_by_fd(descriptor, info, ctypes.byref(length))
    os.close(descriptor)
    assert result == 0, f"program {number}: {os.strerror(-result)}"
    return info.raw[_NAME].rstrip(b"\0").decode()
