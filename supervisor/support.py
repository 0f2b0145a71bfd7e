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
    statuses = [status for probes in hooks.values() for status in probes if not status.unused]
    if not any(status.hook for status in statuses):
        return Support.NONE
    return Support.FULL if all(_is_full(status) for status in statuses) else Support.LEGACY


def format_hook_table(hooks: Mapping[str, list[HookStatus]]) -> list[str]:
    """One line per (tuner, scenario), and below it one per rung that the kernel refused."""
    lines = [_row("tuner", "scenario", "hook in use")]
    for tuner, probes in sorted(hooks.items()):
        for status in probes:
            # A probe that only helps others has no scenario; it is worth a line if something is wrong.
            shown = status.scenarios or [f"({status.probe})"] * bool(status.refused)
            lines += [_row(tuner, scenario, status.hook or "none") for scenario in shown]
            lines += [f"    not {hook}: {reason}" for hook, reason in status.refused.items()]
            lines += [f"    inactive: {status.unused}"] if status.unused else []
    return lines


def _row(tuner: str, scenario: str, hook: str) -> str:
    return f"{tuner:<14} {scenario:<24} {hook}"


def _is_full(status: HookStatus) -> bool:
    return status.hook is not None and not status.hook.startswith(LEGACY_KINDS)
