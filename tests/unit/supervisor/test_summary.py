# SPDX-License-Identifier: GPL-2.0-or-later
"""The merged summary: order, what is left out, tables."""

from __future__ import annotations

from bpftune.ipc.declaration import Scenario, Scope, Tunable
from bpftune.ipc.messages import Netns, Table
from bpftune.supervisor.summary import (
    NOTHING_LINE,
    ChangedTunable,
    ScenarioCount,
    format_summary,
    summary_lines,
)

INITIAL = Netns(cookie=1, name="global", initial=True)
BLUE = Netns(cookie=77, name="blue")
RMEM = Tunable(name="net.ipv4.tcp_rmem", scope=Scope.NETNS, width=3)
FULL = Scenario(id="full", name="full", tunable=RMEM.name, why="Why.", reason="x")


def count(netns: Netns, times: int) -> ScenarioCount:
    return ScenarioCount(scenario=FULL, tunable=RMEM.name, netns=netns, count=times)


def changed(netns: Netns, current: int) -> ChangedTunable:
    return ChangedTunable(tunable=RMEM, netns=netns, original=(1, 2, 3), current=(1, 2, current))


def test_initial_namespace_comes_first_and_scenarios_before_values() -> None:
    lines = summary_lines([count(BLUE, 1), count(INITIAL, 2)], [changed(BLUE, 5), changed(INITIAL, 4)])

    assert lines == [
        "Summary: scenario 'full' occurred 2 times for tunable 'net.ipv4.tcp_rmem' in global ns. Why.",
        "Summary: scenario 'full' occurred 1 time for tunable 'net.ipv4.tcp_rmem' in netns 'blue'. Why.",
        "sysctl 'net.ipv4.tcp_rmem' changed from (1 2 3) -> (1 2 4)",
        "sysctl 'net.ipv4.tcp_rmem' changed from (1 2 3) -> (1 2 5) in netns 'blue'",
    ]


def test_what_did_not_happen_is_left_out() -> None:
    assert summary_lines([count(INITIAL, 0)], [changed(INITIAL, 3)]) == [NOTHING_LINE]


def test_tables_follow_aligned_and_empty_ones_are_left_out() -> None:
    tables = [
        Table(title="Gateways", columns=["gateway", "count"], rows=[["10.0.0.1", 7], ["10.0.0.20", 1200]]),
        Table(title="Nothing", columns=["a"], rows=[]),
    ]

    assert format_summary(["first"], tables) == [
        "first",
        "Gateways:",
        "  gateway    count",
        "  10.0.0.1       7",
        "  10.0.0.20   1200",
    ]
