# SPDX-License-Identifier: GPL-2.0-or-later
"""A reply as text, and what it means for the exit code. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bpftune.ctl.arguments import Arguments, Verb
from bpftune.ctl.render_changes import render_explain, render_history
from bpftune.ctl.render_status import render_namespaces, render_status, render_tuners
from bpftune.ctl.render_values import render_export, render_rollback, render_tunables, render_verify
from bpftune.ctl.screen import Screen
from bpftune.ipc.control import (
    DoneReply,
    ExplainReply,
    ExportReply,
    Failure,
    HistoryReply,
    Reply,
    RollbackReply,
    StatusReply,
    SummaryReply,
    SupportReply,
    TunablesReply,
    VerifyReply,
)
from bpftune.ipc.text_table import format_table

FAILED = 1


def render(reply: Reply, arguments: Arguments, screen: Screen) -> list[str]:  # noqa: PLR0911 - one case a type
    match reply:
        case StatusReply():
            return _status_view(arguments)(reply, screen)
        case TunablesReply():
            return render_tunables(reply, screen)
        case SummaryReply():
            return render_summary(reply, screen)
        case HistoryReply():
            return render_history(reply, screen)
        case ExplainReply():
            return render_explain(reply, screen)
        case RollbackReply():
            return render_rollback(reply, screen)
        case VerifyReply():
            return render_verify(reply, screen)
        case ExportReply():
            return render_export(reply, screen, sysctl_d=arguments.sysctl_d)
        case DoneReply() | SupportReply():
            return _wrap_all(reply.lines, screen)
        case Failure():
            return []


def _status_view(arguments: Arguments) -> Callable[[StatusReply, Screen], list[str]]:
    if arguments.verb is Verb.TUNERS:
        return render_tuners
    return render_namespaces if arguments.by_netns else render_status


def render_summary(reply: SummaryReply, screen: Screen) -> list[str]:
    """The same text as at the end of the daemon."""
    tables = [format_table(table, screen.width) for table in reply.tables if table.rows]
    return [*_wrap_all(reply.lines, screen), *(line for table in tables for line in table)]


def exit_code(reply: Reply) -> int:
    """0, or 1 for an answer that is bad news: what a script wants to know."""
    match reply:
        case Failure():
            return reply.exit_code if 0 < reply.exit_code < 256 else FAILED
        case VerifyReply():
            return FAILED if reply.differences else 0
        case SupportReply():
            return 0 if reply.supported else FAILED
        case RollbackReply():
            return FAILED if any(one.outcome.startswith("failed") for one in reply.restored) else 0
    return 0


def _wrap_all(lines: Iterable[str], screen: Screen) -> list[str]:
    """Each line wrapped below itself, so that the indentation of tables survives."""
    wrapped = []
    for line in lines:
        text = line.lstrip(" ")
        indent = len(line) - len(text)
        wrapped += screen.wrap(text, indent=indent, hang=indent + 4)
    return wrapped
