# SPDX-License-Identifier: GPL-2.0-or-later
"""Replies about values: `tunables`, `rollback`, `verify`, `export`. Pure: a reply in, lines out."""

from __future__ import annotations

from collections.abc import Sequence

from bpftune.ctl.numbers import format_plural, format_time
from bpftune.ctl.screen import Colour, Screen
from bpftune.ctl.values import format_change, format_elsewhere, format_netns
from bpftune.ipc.control import ExportReply, RollbackReply, TunablesReply, TunableStatus, VerifyReply
from bpftune.ipc.text_table import Row, fits, format_columns
from bpftune.ipc.values import format_value


def render_tunables(reply: TunablesReply, screen: Screen) -> list[str]:
    if not reply.tunables:
        return ["no tunable was read yet"]
    columns = ("TUNABLE", "NETNS", "ORIGINAL", "CURRENT", "STATE")
    rows = [
        (
            one.tunable,
            format_netns(one.netns),
            format_value(one.original, one.format),
            format_value(one.current, one.format),
            one.state,
        )
        for one in reply.tunables
    ]
    lines = [_tunable_line(one) for one in reply.tunables]
    return _table_or_lines(columns, rows, lines, screen)


def render_rollback(reply: RollbackReply, screen: Screen) -> list[str]:
    warning = [] if reply.unknown is None else _warn(reply.unknown, screen)
    if not reply.restored:
        return [*warning, "nothing to put back"]
    columns = ("TUNABLE", "NETNS", "WAS", "ORIGINAL", "OUTCOME")
    rows = [
        (
            one.tunable,
            format_netns(one.netns),
            format_value(one.current, one.format),
            format_value(one.original, one.format),
            one.outcome,
        )
        for one in reply.restored
    ]
    lines = [
        f"{one.tunable} {format_change(one.current, one.original, one.format)}"
        f"{format_elsewhere(one.netns)}: {one.outcome}"
        for one in reply.restored
    ]
    return [*warning, *_table_or_lines(columns, rows, lines, screen)]


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
        "# As a file in /etc/sysctl.d they are yours: bpftune then leaves these settings",
        "# alone, unless it runs with --adopt-sysctl-d.",
        *(settings or ["# Nothing was changed."]),
    ]


def _tunable_line(one: TunableStatus) -> str:
    values = f"({format_value(one.current, one.format)})"
    if one.current != one.original:
        values = format_change(one.original, one.current, one.format)
    return f"{one.tunable}: {one.state}, {values}{format_elsewhere(one.netns)}"


def _table_or_lines(
    columns: Sequence[str], rows: Sequence[Row], lines: Sequence[str], screen: Screen
) -> list[str]:
    """A table where it fits, else a line for each row: values of three numbers wrap badly in columns."""
    if fits(columns, rows, screen.width):
        return format_columns(columns, rows)
    return [wrapped for line in lines for wrapped in screen.wrap(line, hang=4)]


def _warn(text: str, screen: Screen) -> list[str]:
    return [screen.paint(line, Colour.YELLOW) for line in screen.wrap(text)]
