# SPDX-License-Identifier: GPL-2.0-or-later
"""Other programs that tune the same settings: noticed at start and said, never fought.

What they write counts as an administrator's setting, so tuners will turn off one after the other;
whoever runs both should know why.
"""

from __future__ import annotations

import os
from pathlib import Path

TUNED = "tuned"
BPFTUNE = "bpftune"
"""The comm of the C bpftune, and of this one."""


def find_rivals(proc_root: Path = Path("/proc")) -> list[str]:
    """One sentence per program, in the order of their pids."""
    rivals = []
    for pid in sorted(int(name) for name in os.listdir(proc_root) if name.isdigit()):
        name = _rival(proc_root / str(pid))
        if name is not None:
            rivals.append(
                f"{name} is running as pid {pid}: a tuner turns itself off where {name} writes its sysctls"
            )
    return rivals


def _rival(process: Path) -> str | None:
    """A process that ends while it is looked at is none."""
    try:
        comm = (process / "comm").read_text().strip()
        if comm == TUNED:
            return "TuneD"
        if comm == BPFTUNE and not _is_interpreter(process):
            return "another bpftune"
    except OSError:
        return None
    return None


def _is_interpreter(process: Path) -> bool:
    """This bpftune is a Python program, the one in C is its own executable."""
    return os.path.basename(os.readlink(process / "exe")).startswith("python")
