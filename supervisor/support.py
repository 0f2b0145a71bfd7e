# SPDX-License-Identifier: GPL-2.0-or-later
"""What this kernel supports: the words of `bpftune -S`, of status and of the start of the log.

Judged from the hooks that were really attached, never from a kernel version.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from bpftune.ipc.control import HookStatus

NETNS_LINE = "bpftune supports per-netns policy (via netns cookie)"
LEGACY_KINDS = ("kprobe", "kretprobe", "poll")


class Support(StrEnum):
    FULL = "bpftune works fully"
    LEGACY = "bpftune works in legacy mode"
    NONE = "bpftune is not supported"


def judge_support(hooks: Mapping[str, list[HookStatus]]) -> Support:
    """Full: every probe has a hook of the running kernel's own types; legacy: some have less."""
    statuses = [status for probes in hooks.values() for status in probes]
    if not any(status.hook for status in statuses):
        return Support.NONE
    return Support.FULL if all(_is_full(status) for status in statuses) else Support.LEGACY


def format_hook_table(hooks: Mapping[str, list[HookStatus]]) -> list[str]:
    """One line per (tuner, scenario), and one per refused better rung below it."""
    rows = [
        (tuner, scenario, status.hook or "none", status)
        for tuner, probes in sorted(hooks.items())
        for status in probes
        for scenario in status.scenarios
    ]
    header = ("tuner", "scenario", "hook in use")
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(3)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(header, widths, strict=True)).rstrip()]
    for *cells, status in rows:
        lines.append("  ".join(str(text).ljust(width) for text, width in zip(cells, widths, strict=True)))
        lines += [f"    not {hook}: {reason}" for hook, reason in status.refused.items()]
    return [line.rstrip() for line in lines]


def _is_full(status: HookStatus) -> bool:
    return status.hook is not None and not status.hook.startswith(LEGACY_KINDS)
