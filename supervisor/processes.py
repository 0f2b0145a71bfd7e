# SPDX-License-Identifier: GPL-2.0-or-later
"""What bpftune's own processes cost: memory and CPU time, read when somebody asks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    pss_bytes: int
    """Proportional set size: shared pages count by the share, so that sums are true."""
    cpu_s: float
    """User and system time since the process began."""


def read_usage(pid: int | None) -> Usage | None:
    """None when there is no such process (any more)."""
    if pid is None:
        return None
    import psutil  # noqa: PLC0415 - 2 MB that a daemon nobody asks does not need

    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return Usage(pss_bytes=process.memory_full_info().pss, cpu_s=times.user + times.system)
    except psutil.Error:
        return None
