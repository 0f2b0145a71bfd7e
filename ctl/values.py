# SPDX-License-Identifier: GPL-2.0-or-later
"""How a tunable's value and a namespace are shown. Pure."""

from __future__ import annotations

from bpftune.ipc.declaration import Format
from bpftune.ipc.messages import GLOBAL, Netns, Value
from bpftune.ipc.values import format_value


def format_change(old: Value, new: Value, format_: Format) -> str:
    """Exact, as sysctl(8) prints them: people compare them."""
    return f"({format_value(old, format_)}) -> ({format_value(new, format_)})"


def is_elsewhere(netns: Netns) -> bool:
    """Whether it is another namespace than the initial one."""
    return not netns.initial and netns.cookie > GLOBAL


def format_netns(netns: Netns) -> str:
    if netns.cookie < 0:
        return netns.name  # what is no namespace: "everywhere"
    return (netns.name or f"cookie {netns.cookie}") if is_elsewhere(netns) else "global"


def format_where(netns: Netns) -> str:
    """The same words as in log lines."""
    if netns.cookie < 0:
        return netns.name
    return f"in netns '{format_netns(netns)}'" if is_elsewhere(netns) else "in global ns"


def format_elsewhere(netns: Netns) -> str:
    """` in netns 'name'`, nothing for the initial one: as the end of a line about a value."""
    return f" {format_where(netns)}" if is_elsewhere(netns) else ""
