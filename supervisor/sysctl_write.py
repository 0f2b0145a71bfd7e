# SPDX-License-Identifier: GPL-2.0-or-later
"""One write to a sysctl as the BPF program saw it, and what is to be made of it. Pure.

sysctl_judge.py feeds it. The program runs before the kernel parses the value and so also for
writes that fail: only reading the sysctl afterwards tells.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from bpftune.ipc.declaration import Format, Tunable
from bpftune.ipc.messages import Value
from bpftune.ipc.record import Event
from bpftune.supervisor.known_values import Known
from bpftune.supervisor.tunables import parse_cpumask

REAPPLYING_COMMS = frozenset({"systemd-sysctl", "systemd-udevd", "(udev-worker)"})
"""Who writes what is configured again at boot, on upgrades and when devices appear."""
SYSCTL_COMM = "sysctl"
"""May do so as well, with --system; its name does not tell."""

_NUMBER = re.compile(r"(-?)(0[xX][0-9a-fA-F]+|[0-9]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class SysctlWrite:
    time_ns: int
    netns_cookie: int
    netns_inum: int
    pid: int
    uid: int
    comm: str
    key: str
    """As below /proc/sys: net/ipv4/tcp_rmem."""
    new: str | None
    """As written; None: unknown or too long for the record."""
    current: str | None
    file_pos: int


class Verdict(StrEnum):
    OVERRIDE = "override"
    IGNORE = "ignore"
    WAIT = "wait"
    """The write is not visible: it comes in a moment, or it failed."""
    REDO = "redo"
    """We wrote after it and may have undone it."""


def decode_sysctl_write(event: Event) -> SysctlWrite:
    return SysctlWrite(
        time_ns=event.time_ns,
        netns_cookie=event.netns_cookie,
        netns_inum=event.netns_inum,
        pid=event["pid"],
        uid=event["uid"],
        comm=_string(event.vectors["comm"]),
        key=_string(event.vectors["key"]),
        new=_string(event.vectors["new_value"]) if event["new_length"] >= 0 else None,
        current=_string(event.vectors["current_value"]) if event["current_length"] >= 0 else None,
        file_pos=event["file_pos"],
    )


def judge_write(
    write: SysctlWrite,
    *,
    before: Value | None,
    wanted: Value | None,
    now: Value,
    known: Known | None,
    configured: Value | None = None,
) -> Verdict:
    """`before` held when the program ran, `wanted` is what the write would make of it, `now` holds;
    `configured` is what `sysctl --system` would write, None: nothing, or somebody else wrote."""
    same = wanted is not None and wanted == before
    if same and (write.comm in REAPPLYING_COMMS or wanted == configured):
        return Verdict.IGNORE
    if known is not None and known.written_ns > write.time_ns and now == known.value:
        if write.new is None or write.file_pos:
            return Verdict.OVERRIDE
        # What is no value the kernel refused, and there is nothing to put back.
        return Verdict.REDO if wanted is not None else Verdict.IGNORE
    if same or before is None or now != before:
        return Verdict.OVERRIDE
    return Verdict.WAIT


def wanted_value(tunable: Tunable, write: SysctlWrite, before: Value | None) -> Value | None:
    """What the tunable holds if the write succeeds; None when that cannot be told.

    A write may give fewer fields than there are, the rest stays; more are ignored by the kernel. At
    a file position other than 0 the kernel ignores numbers (Documentation/admin-guide/sysctl/
    kernel.rst, sysctl_writes_strict).
    """
    if write.new is None or write.file_pos:
        return None
    if tunable.format is Format.CPUMASK:
        return parse_cpumask(write.new) or None
    numbers = [_parse_number(word) for word in write.new.split()][: tunable.width]
    given = tuple(number for number in numbers if number is not None)
    if not given or len(given) != len(numbers):
        return None
    if len(given) < tunable.width:
        return given + before[len(given) :] if before is not None else None
    return given


def _parse_number(word: str) -> int | None:
    """As the kernel's simple_strtoul(word, NULL, 0) behind an optional minus."""
    match = _NUMBER.fullmatch(word)
    if match is None:
        return None
    sign, digits = match.groups()
    octal = digits.startswith("0") and digits.isdigit() and len(digits) > 1
    try:
        number = int(digits, 8) if octal else int(digits, 0)
    except ValueError:
        return None
    return -number if sign else number


def _string(vector: tuple[int, ...]) -> str:
    return bytes(vector).split(b"\0", 1)[0].decode("utf-8", "replace")
