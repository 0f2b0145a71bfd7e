# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading and writing one declared tunable under /proc/sys.

Called by decision.py, overrides.py and rollback.py. The kernel shows the sysctls of the calling
thread's network namespace, so callers do this inside `NetnsRegistry.enter`. Nothing here judges a
value: bounds, compare-and-set and reading back belong to decision.py.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path

from bpftune.ipc import values
from bpftune.ipc.declaration import Format, Tunable
from bpftune.ipc.errors import TunableError, TunableMissing
from bpftune.ipc.messages import Value

_READ_BYTES = 16384  # a cpumask takes 9 characters per 32 CPUs; everything else is shorter
_CPUMASK = re.compile(r"[0-9a-fA-F]{1,8}(?:,[0-9a-fA-F]{1,8})*")
_INTEGER = re.compile(r"-?[0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What /proc/sys shows: the numbers, and the text that a rollback has to bring back."""

    value: Value
    text: str


def read_tunable(tunable: Tunable, *, proc_root: Path = Path("/proc")) -> Reading:
    """Raises TunableMissing when this kernel or namespace lacks it, else TunableError."""
    try:
        fd = os.open(sysctl_path(tunable.name, proc_root), os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(fd, _READ_BYTES).decode("ascii", "replace")
        finally:
            os.close(fd)
    except OSError as error:
        raise _tunable_error("read", tunable.name, error) from error
    return Reading(value=parse_value(tunable, text), text=text.removesuffix("\n"))


def write_tunable(tunable: Tunable, value: Value, *, proc_root: Path = Path("/proc")) -> None:
    """Raises as `read_tunable`; whether the kernel took the value as it is shows in reading back."""
    write_text(tunable.name, format_value(tunable, value), proc_root=proc_root)


def write_text(name: str, text: str, *, proc_root: Path = Path("/proc")) -> None:
    """Write `text` in one write(2), which /proc/sys takes whole or not at all. Raises as `read_tunable`."""
    try:
        fd = os.open(sysctl_path(name, proc_root), os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode("ascii"))
        finally:
            os.close(fd)
    except OSError as error:
        raise _tunable_error("write", name, error) from error
    except ValueError as error:  # no ASCII, or a name with NUL
        raise TunableError("write", name, str(error)) from error


def parse_value(tunable: Tunable, text: str) -> Value:
    """The numbers in what /proc/sys shows, as many as the tunable declares; else TunableError."""
    value = parse_cpumask(text) if tunable.format is Format.CPUMASK else parse_integers(text)
    if len(value) != tunable.width:
        raise TunableError("read", tunable.name, f"'{text.strip()[:80]}' is not {tunable.width} numbers")
    return value


def parse_integers(text: str) -> Value:
    """All of `text` as decimal integers separated by white space; () when it is anything else."""
    words = text.split()
    return tuple(map(int, words)) if all(map(_INTEGER.fullmatch, words)) else ()


def parse_cpumask(text: str) -> Value:
    """Hexadecimal groups of 32 bits, highest first, separated by commas, as one integer."""
    if not _CPUMASK.fullmatch(text.strip()):
        return ()
    mask = 0
    for group in text.strip().split(","):
        mask = mask << 32 | int(group, 16)
    return (mask,)


def format_value(tunable: Tunable, value: Value) -> str:
    """`value` as the kernel takes it."""
    return values.format_value(value, tunable.format)


def sysctl_path(name: str, proc_root: Path) -> str:
    return f"{proc_root}/sys/{name.replace('.', '/')}"


def _tunable_error(verb: str, name: str, error: OSError) -> TunableError:
    kind = TunableMissing if error.errno == errno.ENOENT else TunableError
    return kind(verb, name, error.strerror or str(error), errno=error.errno or 0)
