# SPDX-License-Identifier: GPL-2.0-or-later
"""Replies about values: `tunables`, `rollback`, `verify`, `export`. Pure: a reply in, lines out."""

from __future__ import annotations

from collections.abc import Sequence

from bpftune.ctl.numbers import format_plural, format_time
from bpftune.ctl.screen import Colour, Screen
from bpftune.ctl.values import format_netns, format_value, is_elsewhere
from bpftune.ipc.control import ExportReply, RollbackReply, TunablesReply, VerifyReply
from bpftune.ipc.messages import Netns
from bpftune.ipc.text_table import Row, format_columns

NETNS_COLUMN = 1


def render_tunables(reply: TunablesReply, screen: Screen) -> list[str]:
    if not reply.tunables:
        return ["no tunable was read yet"]
    rows = [
        (
            one.tunable,
            format_netns(one.netns),
            format_value(one.original),
            format_value(one.current),
            one.state,
        )
        for one in reply.tunables
    ]
    columns = ("TUNABLE", "NETNS", "ORIGINAL", "CURRENT", "STATE")
    return _table(columns, rows, [one.netns for one in reply.tunables], screen)


def render_rollback(reply: RollbackReply, screen: Screen) -> list[str]:
    lines = [] if reply.unknown is None else _warn(reply.unknown, screen)
    if not reply.restored:
        return [*lines, "nothing to put back"]
    rows = [
        (
            one.tunable,
            format_netns(one.netns),
            format_value(one.current),
            format_value(one.original),
            one.outcome,
        )
        for one in reply.restored
    ]
    columns = ("TUNABLE", "NETNS", "WAS", "ORIGINAL", "OUTCOME")
    return [*lines, *_table(columns, rows, [one.netns for one in reply.restored], screen)]


def render_verify(reply: VerifyReply, screen: Screen) -> list[str]:
    checked = format_plural(reply.checked, "value")
    if not reply.differences:
        return [f"{checked} checked: all are as the ledger says"]
    found = format_plural(len(reply.differences), "difference")
    lines = [screen.paint(f"{checked} checked: {found}", Colour.RED)]
    return lines + [line for text in reply.differences for line in screen.wrap(text, indent=2, hang=4)]


def render_export(reply: ExportReply, screen: Screen, *, sysctl_d: bool) -> list[str]:
    """`key = value`, never wrapped: it is input for sysctl(8). In a file comments say where it is from."""
    settings = [f"{key} = {value}" for key, value in sorted(reply.settings.items())]
    if not sysctl_d:
        return settings or ["nothing was changed"]
    return [
        f"# Values that bpftune found for this machine, exported {format_time(screen.now_s)}.",
        "# As a file in /etc/sysctl.d they are yours: bpftune then leaves these settings alone,",
        "# unless it runs with --adopt-sysctl-d.",
        *(settings or ["# Nothing was changed."]),
    ]


def _table(
    columns: Sequence[str], rows: Sequence[Row], namespaces: Sequence[Netns], screen: Screen
) -> list[str]:
    """The namespace column only where it says something."""
    if any(is_elsewhere(netns) for netns in namespaces):
        return format_columns(columns, rows, screen.width)
    kept = [i for i in range(len(columns)) if i != NETNS_COLUMN]
    return format_columns([columns[i] for i in kept], [[row[i] for i in kept] for row in rows], screen.width)


def _warn(text: str, screen: Screen) -> list[str]:
    return [screen.paint(line, Colour.YELLOW) for line in screen.wrap(text)]
