# SPDX-License-Identifier: GPL-2.0-or-later
"""Replies about changes: `history`, `explain`, and lines of `events`. Pure: a reply in, lines out."""

from __future__ import annotations

from collections.abc import Sequence

from bpftune.ctl.numbers import format_ago, format_evidence, format_time
from bpftune.ctl.screen import Colour, Screen
from bpftune.ctl.values import format_change, format_netns, format_where, is_elsewhere
from bpftune.ipc.control import Change, ExplainReply, HistoryReply, LogEvent
from bpftune.ipc.text_table import Cell, format_columns

TIME_COLUMNS = 20
_ERROR, _WARNING = 3, 4


def render_history(reply: HistoryReply, screen: Screen) -> list[str]:
    return _changes(reply.changes, screen) or ["nothing was changed yet"]


def render_explain(reply: ExplainReply, screen: Screen) -> list[str]:
    change = reply.change
    when = f"{format_time(change.time_s)}, {format_ago(change.time_s, screen.now_s)}"
    lines = [screen.paint(f"change {change.id}: {change.outcome}", Colour.BOLD)]
    lines += screen.field("when", when)
    lines += screen.field("tuner", change.tuner)
    lines += screen.field("tunable", f"{change.tunable} {format_where(change.netns)}")
    lines += screen.field("values", format_change(change.old, change.new))
    lines += screen.field("scenario", change.scenario)
    lines += screen.field("reason", change.reason)
    lines += screen.field("why", reply.why)
    if change.evidence:
        evidence = ", ".join(format_evidence(name, number) for name, number in change.evidence.items())
        lines += screen.field("evidence", evidence)
    lines += [line for text in reply.text for line in screen.wrap(text, indent=2)]
    if reply.followed_by:
        lines += ["", "later changes of the same tunable:", *_changes(reply.followed_by, screen)]
    return lines


def render_event(event: LogEvent, screen: Screen) -> list[str]:
    """A log line with its time, as it was logged."""
    lines = screen.wrap(f"{format_time(event.time_s)} {event.message}", hang=TIME_COLUMNS)
    return [screen.paint(line, _colour(event.priority)) for line in lines]


def _changes(changes: Sequence[Change], screen: Screen) -> list[str]:
    """A table, newest last: that is what is left on the screen."""
    if not changes:
        return []
    newest_last = sorted(changes, key=lambda change: change.id)
    elsewhere = any(is_elsewhere(change.netns) for change in changes)
    columns = ["ID", "TIME", "TUNABLE", *(["NETNS"] if elsewhere else []), "CHANGE", "OUTCOME"]
    rows: list[list[Cell]] = [
        [
            change.id,
            format_time(change.time_s),
            change.tunable,
            *([format_netns(change.netns)] if elsewhere else []),
            format_change(change.old, change.new),
            change.outcome,
        ]
        for change in newest_last
    ]
    return format_columns(columns, rows, screen.width)


def _colour(priority: int) -> Colour | None:
    if priority <= _ERROR:
        return Colour.RED
    return Colour.YELLOW if priority == _WARNING else None
