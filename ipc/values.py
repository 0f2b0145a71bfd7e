# SPDX-License-Identifier: GPL-2.0-or-later
"""A tunable's value as sysctl(8) takes and prints it. Pure; the supervisor writes it, people read it."""

from __future__ import annotations

from bpftune.ipc.declaration import Format
from bpftune.ipc.messages import Value


def format_value(value: Value, format_: Format) -> str:
    if format_ is Format.CPUMASK:
        return ",".join(map(_format_cpumask, value))
    return " ".join(map(str, value))


def _format_cpumask(mask: int) -> str:
    """Hexadecimal groups of 32 bits, highest first, separated by commas."""
    groups = [f"{mask & 0xFFFFFFFF:08x}"]
    while mask := mask >> 32:
        groups.append(f"{mask & 0xFFFFFFFF:08x}")
    return ",".join(reversed(groups))
