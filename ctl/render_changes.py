# SPDX-License-Identifier: GPL-2.0-or-later
"""Replies about changes: `history`, `explain`, and lines of `events`. Pure: a reply in, lines out."""

from __future__ import annotations

from collections.abc import Sequence

from bpftune.ctl.numbers import format_ago, format_evidence, format_time
from bpftune.ctl.screen import Colour, Screen
from bpftune.ctl.values import format_change, format_elsewhere, format_netns, format_where
from bpftune.ipc.control import Change, ExplainReply, HistoryReply, LogEvent
from bpftune.ipc.text_table import Row, fits, format_columns

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
    lines += screen.field("values", format_change(change.old, change.new, change.format))
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
    """Newest last: that is what is left on the screen. A table where it fits, else two lines each."""
    newest_last = sorted(changes, key=lambda change: change.id)
    columns = ("ID", "TIME", "TUNABLE", "NETNS", "CHANGE", "OUTCOME")
    rows: list[Row] = [
        (
            change.id,
            format_time(change.time_s),
            change.tunable,
            format_netns(change.netns),
            format_change(change.old, change.new, change.format),
            change.outcome,
        )
        for change in newest_last
    ]
    if not rows:
        return []
    if fits(columns, rows, screen.width):
        return format_columns(columns, rows)
    return [line for change in newest_last for line in _change(change, screen)]


def _change(change: Change, screen: Screen) -> list[str]:
    heading = f"{change.id:>6}  {format_time(change.time_s)}  {change.outcome}"
    values = format_change(change.old, change.new, change.format)
    text = f"{change.tunable} {values}{format_elsewhere(change.netns)}"
    return [*screen.wrap(heading, hang=8), *screen.wrap(text, indent=8)]


def _colour(priority: int) -> Colour | None:
    if priority <= _ERROR:
        return Colour.RED
    return Colour.YELLOW if priority == _WARNING else None
