# SPDX-License-Identifier: GPL-2.0-or-later
"""`status` and `tuners` as text. Pure: a reply in, lines out."""

from __future__ import annotations

from collections.abc import Iterable

from bpftune.ctl.numbers import (
    format_ago,
    format_bytes,
    format_count,
    format_duration,
    format_plural,
    format_time,
)
from bpftune.ctl.screen import Colour, Screen
from bpftune.ctl.values import format_netns, format_where
from bpftune.ipc.control import HookStatus, Override, StatusReply, StrategyStatus, TunerState, TunerStatus
from bpftune.ipc.messages import GLOBAL
from bpftune.ipc.text_table import Cell, format_columns

_COLOURS = {
    TunerState.STARTING: Colour.YELLOW,
    TunerState.ACTIVE: Colour.GREEN,
    TunerState.RESTARTING: Colour.YELLOW,
    TunerState.DISABLED: Colour.YELLOW,
    TunerState.INACTIVE: None,
    TunerState.FAILED: Colour.RED,
}


def render_status(status: StatusReply, screen: Screen) -> list[str]:
    lines = _daemon(status, screen)
    for tuner in status.tuners:
        lines += ["", *_tuner(tuner, screen)]
    return lines


def render_namespaces(status: StatusReply, screen: Screen) -> list[str]:
    """One line a namespace: what is changed there, and which tuners are off."""
    changed = {one.netns_cookie: one.tunables for one in status.changed_in}
    rows: list[list[Cell]] = []
    for netns in status.namespaces:
        tunables = [*changed.get(netns.cookie, []), *(changed.get(GLOBAL, []) if netns.initial else [])]
        off = [
            tuner.name
            for tuner in status.tuners
            for override in tuner.overrides
            if override.netns.cookie == netns.cookie or override.netns.cookie < 0
        ]
        rows.append([netns.name, str(netns.cookie), str(netns.inum), _joined(tunables), _joined(off)])
    return format_columns(["NETNS", "COOKIE", "INODE", "CHANGED", "OFF"], rows, screen.width)


def _joined(names: list[str]) -> str:
    return " ".join(names) or "-"


def render_tuners(status: StatusReply, screen: Screen) -> list[str]:
    """One line a tuner; why it is not active comes last, where a narrow screen can wrap it."""
    if not status.tuners:
        return ["no tuner is loaded"]
    reasons = [_short_why(tuner) for tuner in status.tuners]
    why_columns = 1 if any(reasons) else 0
    rows: list[list[Cell]] = [
        [
            tuner.name,
            tuner.state.value,
            "-" if tuner.pid is None else str(tuner.pid),
            tuner.restarts,
            tuner.events_in,
            tuner.changes,
            *[why][:why_columns],
        ]
        for tuner, why in zip(status.tuners, reasons, strict=True)
    ]
    columns = ["TUNER", "STATE", "PID", "RESTARTS", "EVENTS", "CHANGES", *["WHY"][:why_columns]]
    return format_columns(columns, rows, screen.width)


def _daemon(status: StatusReply, screen: Screen) -> list[str]:
    up = format_duration(status.uptime_s)
    title = f"bpftune {status.version}: {_mode(status.mode)}, pid {status.pid}, up {up}"
    cost = f"{format_bytes(status.pss_bytes)} PSS, {format_duration(status.cpu_s)} CPU, all processes"
    lines = [screen.paint(line, Colour.BOLD) for line in screen.wrap(title)]
    lines += screen.field("kernel", f"{status.kernel}: {status.support}")
    lines += screen.field("learning", f"rate {status.learning_rate} of 0..4")
    lines += screen.field("cost", cost)
    lines += screen.field("namespaces", _namespaces(status))
    if status.ring_dropped:
        lines += screen.field("lost", f"{format_plural(status.ring_dropped, 'event')}, ring buffer full")
    for refused in status.refused_folders:
        lines += screen.field("refused", refused)
    for rival in status.rivals:
        lines += screen.field("notice", rival)
    return lines


def _mode(mode: str) -> str:
    return "observe mode (nothing is written)" if mode == "observe" else f"{mode} mode"


def _namespaces(status: StatusReply) -> str:
    names = [format_netns(netns) for netns in status.namespaces]
    return f"{len(names)}: {', '.join(names)}" if names else "none known"


def _tuner(tuner: TunerStatus, screen: Screen) -> list[str]:
    colour = _COLOURS[tuner.state]
    why = f" ({tuner.why})" if tuner.why else ""
    heading = screen.wrap(f"{tuner.name}: {tuner.state}{why}", hang=2)
    heading[0] = heading[0].replace(f": {tuner.state}", f": {screen.paint(tuner.state, colour)}", 1)
    return [
        *heading,
        *screen.wrap(tuner.description, indent=2),
        *screen.field("worker", _worker(tuner)),
        *screen.field("events", _events(tuner)),
        *screen.field("changes", _changes(tuner, screen)),
        *_listed(screen, "latency", _latency(tuner)),
        *_listed(screen, "strategies", [_strategy(strategy) for strategy in tuner.strategies]),
        *_listed(screen, "hooks", _hooks(tuner)),
        *_listed(screen, "in kernel", _counters(tuner)),
        *_listed(screen, "off", [_override(override, screen) for override in tuner.overrides]),
        *_listed(screen, "left alone", [f"{name} (set in sysctl.d)" for name in tuner.left_alone]),
    ]


def _listed(screen: Screen, label: str, texts: Iterable[str]) -> list[str]:
    """One entry below the other, the label before the first."""
    labels = [label]
    lines = []
    for text in texts:
        lines += screen.field(labels.pop() if labels else "", text)
    return lines


def _worker(tuner: TunerStatus) -> str:
    if tuner.pid is None:
        return f"none, {format_plural(tuner.restarts, 'restart')}"
    parts = [
        f"pid {tuner.pid}",
        f"up {format_duration(tuner.uptime_s)}",
        format_plural(tuner.restarts, "restart"),
    ]
    if tuner.pss_bytes is not None:
        parts.append(f"{format_bytes(tuner.pss_bytes)} PSS")
    if tuner.cpu_s is not None:
        parts.append(f"{format_duration(tuner.cpu_s)} CPU")
    return ", ".join(parts)


def _events(tuner: TunerStatus) -> str:
    merged, dropped = format_count(tuner.events_merged), format_count(tuner.events_dropped)
    return f"{format_count(tuner.events_in)} in, {merged} merged, {dropped} dropped"


def _changes(tuner: TunerStatus, screen: Screen) -> str:
    if tuner.last_change is None:
        return format_count(tuner.changes)
    when = "" if tuner.last_change_s is None else f" {format_ago(tuner.last_change_s, screen.now_s)}"
    return f"{format_count(tuner.changes)}, last{when}: {tuner.last_change}"


def _latency(tuner: TunerStatus) -> list[str]:
    """From a probe's timestamp to the value written: how quick the newest changes were."""
    if not tuner.write_latency_us:
        return []
    ordered = [span_us / 1e6 for span_us in sorted(tuner.write_latency_us)]
    half, all_of_them = ordered[(len(ordered) - 1) // 2], ordered[-1]
    return [
        f"half written within {format_duration(half)} of the event, all within {format_duration(all_of_them)}"
    ]


def _hooks(tuner: TunerStatus) -> list[str]:
    return [f"{status.probe}: {_hook(status)}" for status in tuner.hooks]


def _hook(status: HookStatus) -> str:
    if status.hook is None:
        return "none"
    return f"{status.hook} (not attached)" if status.resting else status.hook


def _strategy(strategy: StrategyStatus) -> str:
    state = "active" if strategy.active else "rests"
    value = "" if strategy.value is None else f", evaluated as {strategy.value:g}"
    return f"{strategy.name}: {state}{value}. {strategy.description}"


def _counters(tuner: TunerStatus) -> list[str]:
    return [
        f"{one.scenario}: {format_count(one.sent)} sent, {format_count(one.suppressed)} held back,"
        f" {format_count(one.dropped)} lost"
        for one in tuner.counters
        if one.sent or one.suppressed or one.dropped
    ]


def _override(override: Override, screen: Screen) -> str:
    what = f", {override.tunable}" if override.tunable else ""
    if override.old is not None and override.new is not None:
        what += f" ({override.old}) -> ({override.new})"
    since = f" since {format_time(override.since_s)}" if override.since_s else ""
    return f"{format_where(override.netns)}{since}: {override.by}{what}"


def _short_why(tuner: TunerStatus) -> str:
    """The reason, or where it is off although it runs."""
    if tuner.why or not tuner.overrides:
        return tuner.why
    return "off " + ", ".join(format_where(override.netns) for override in tuner.overrides)
