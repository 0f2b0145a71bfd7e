# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks the kernel to let us run as soon as there is something to do.

Called once at start, before there are threads and children: all of them inherit it. It must never
get us more than our share of a CPU, so it is a shorter time slice and neither a nice value nor a
real-time policy.
"""

from __future__ import annotations

import ctypes
import os
import struct

SHORT_SLICE_NS = 100_000
"""The shortest that the kernel grants: Linux kernel commit 857b158dc5e8 ("sched/eevdf: Use
sched_attr::sched_runtime to set request/slice suggestion") (in v6.12). Who asks for less at a time
gets it earlier. Without it an event waits 3 ms and more for a busy CPU; older kernels ignore it."""

_SCHED_OTHER = 0
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")  # struct sched_attr, include/uapi/linux/sched/types.h
_RUNTIME = 5
_NUMBERS = {"x86_64": (315, 314), "aarch64": (275, 274), "riscv64": (275, 274)}
"""sched_getattr, sched_setattr: glibc wraps neither before 2.41."""


def ask_for_short_slices() -> bool:
    """Whether the kernel took it. Nothing depends on that, so a refusal is no error."""
    numbers = _NUMBERS.get(os.uname().machine)
    if numbers is None:
        return False
    get, set_ = numbers
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(_ATTRIBUTES.size)
    if libc.syscall(get, 0, buffer, _ATTRIBUTES.size, 0) != 0:
        return False
    attributes = list(_ATTRIBUTES.unpack(buffer.raw))
    if attributes[1] != _SCHED_OTHER:
        return False  # the administrator chose another policy
    attributes[_RUNTIME] = SHORT_SLICE_NS
    return bool(libc.syscall(set_, 0, _ATTRIBUTES.pack(*attributes), 0) == 0)
