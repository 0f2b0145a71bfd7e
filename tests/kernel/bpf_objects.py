# SPDX-License-Identifier: GPL-2.0-or-later
"""BPF programs, links and maps by id: which ones a process holds, and whether they still exist."""

from __future__ import annotations

import ctypes
import errno
import os
import re
from pathlib import Path

Object = tuple[str, int]
"""("prog", "link" or "map", id)"""

_ID = re.compile(r"^(prog|link|map)_id:\t(\d+)", re.MULTILINE)


def held(pid: int) -> set[Object]:
    """What a process has descriptors of; a link counts with its program."""
    infos = (entry.read_text() for entry in Path(f"/proc/{pid}/fdinfo").iterdir())
    return {(kind, int(number)) for info in infos for kind, number in _ID.findall(info)}


def existing(objects: set[Object]) -> set[Object]:
    """Those that the kernel still has."""
    return {one for one in objects if _exists(*one)}


def _exists(kind: str, number: int) -> bool:
    library = ctypes.CDLL("libbpf.so.1")
    descriptor: int = getattr(library, f"bpf_{kind}_get_fd_by_id")(ctypes.c_uint32(number))
    if descriptor >= 0:
        os.close(descriptor)
    return descriptor != -errno.ENOENT
