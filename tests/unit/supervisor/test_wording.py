# SPDX-License-Identifier: GPL-2.0-or-later
"""The line formats, to the letter: users of the existing tool grep for them."""

from __future__ import annotations

import pytest

from bpftune.ipc.declaration import Format, Scenario, Scope, Strategy, Tunable
from bpftune.ipc.messages import GLOBAL, Netns
from bpftune.supervisor import wording

INITIAL = Netns(cookie=1, inum=4026531840, name="global", initial=True)
BLUE = Netns(cookie=77, inum=4026532000, name="blue")
NO_NETNS = Netns(cookie=GLOBAL)
RMEM = Tunable(name="net.ipv4.tcp_rmem", scope=Scope.NETNS, width=3, fields=["min", "default", "max"])
BACKLOG = Tunable(name="net.core.netdev_max_backlog", scope=Scope.GLOBAL)
CPUS = Tunable(name="net.core.flow_limit_cpu_bitmap", scope=Scope.GLOBAL, format=Format.CPUMASK)
GROW = Scenario(
    id="grow",
    name="need to increase TCP buffer size(s)",
    tunable="net.ipv4.tcp_rmem",
    why="Receivers wait for room.",
    reason="full receive buffers",
)
OLD, NEW = (4096, 131072, 6291456), (4096, 131072, 7864320)


@pytest.mark.parametrize(
    ("netns", "where"),
    [(INITIAL, "in global ns"), (NO_NETNS, "in global ns"), (BLUE, "in netns 'blue'")],
)
def test_scenario_line(netns: Netns, where: str) -> None:
    assert wording.scenario_line(GROW, RMEM.name, netns) == (
        "Scenario 'need to increase TCP buffer size(s)' occurred for tunable 'net.ipv4.tcp_rmem'"
        f" {where}. Receivers wait for room."
    )


def test_scenario_line_names_the_tunable_that_is_changed() -> None:
    line = wording.scenario_line(GROW, "net.ipv4.tcp_moderate_rcvbuf", INITIAL)

    assert "for tunable 'net.ipv4.tcp_moderate_rcvbuf' in global ns." in line


def test_namespace_without_a_name_is_named_by_cookie() -> None:
    assert wording.format_where(Netns(cookie=77)) == "in netns 'cookie 77'"


def test_change_line_of_a_vector_names_its_fields() -> None:
    assert wording.change_line("full receive buffers", RMEM, OLD, NEW, netns=INITIAL) == (
        "Due to full receive buffers change net.ipv4.tcp_rmem(min default max)"
        " from (4096 131072 6291456) -> (4096 131072 7864320)"
    )


def test_change_line_of_one_value_has_no_field_names() -> None:
    assert wording.change_line("drops", BACKLOG, (1000,), (1250,), netns=INITIAL) == (
        "Due to drops change net.core.netdev_max_backlog from (1000) -> (1250)"
    )


def test_change_line_elsewhere_ends_with_the_namespace() -> None:
    line = wording.change_line("drops", RMEM, OLD, NEW, netns=BLUE)

    assert line.endswith("-> (4096 131072 7864320) in netns 'blue'")


def test_observe_mode_says_would() -> None:
    line = wording.change_line("drops", BACKLOG, (1000,), (1250,), netns=INITIAL, observe=True)

    assert line == "Due to drops would change net.core.netdev_max_backlog from (1000) -> (1250)"


def test_a_cpumask_is_written_as_the_kernel_takes_it() -> None:
    line = wording.change_line("drops", CPUS, (0,), (1 << 32,), netns=INITIAL)

    assert line.endswith("from (00000000) -> (00000001,00000000)")


def test_everywhere_is_no_namespace() -> None:
    assert wording.format_where(Netns(cookie=-1, name="everywhere")) == "everywhere"


def test_override_line_with_all_that_is_known() -> None:
    line = wording.override_line(
        pid=12,
        argv0="sysctl",
        key="net.ipv4.tcp_rmem",
        tuner="tcp_buffer",
        netns=BLUE,
        old="4096\t131072\t6291456",
        new="4096 131072  1310720\n",
        user="root",
    )

    assert line == (
        "pid 12, cmd 'sysctl' modified sysctl 'net.ipv4.tcp_rmem' that tuner 'tcp_buffer' uses;"
        " disabling 'tcp_buffer' in netns 'blue':"
        " user 'root', from (4096 131072 6291456) -> (4096 131072 1310720)"
    )


def test_override_line_with_little_known() -> None:
    line = wording.override_line(pid=12, argv0="sh", key="a.b", tuner="t", netns=INITIAL)

    assert line == "pid 12, cmd 'sh' modified sysctl 'a.b' that tuner 't' uses; disabling 't' in global ns"


def test_summary_lines() -> None:
    occurred = wording.scenario_summary_line(
        name="full", count=9, tunable="net.ipv4.tcp_rmem", netns=INITIAL, why="Why."
    )
    changed = wording.changed_line(tunable=RMEM, netns=INITIAL, original=OLD, current=NEW)

    assert occurred == (
        "Summary: scenario 'full' occurred 9 times for tunable 'net.ipv4.tcp_rmem' in global ns. Why."
    )
    assert changed == (
        "sysctl 'net.ipv4.tcp_rmem' changed from (4096 131072 6291456) -> (4096 131072 7864320)"
    )


def test_a_switch_of_strategies_is_told_with_its_values() -> None:
    calm, eager = (
        Strategy(name=name, description=f"Does it {name}ly.", timeout_s=1, probes=[])
        for name in ("calm", "eager")
    )
    assert wording.strategy_line("x", calm, eager, {"calm": 1.0, "eager": 2.25}) == (
        "Strategy of tuner 'x' changes from 'calm' to 'eager' (calm 1, eager 2.25). Does it eagerly."
    )


def test_repeated_line() -> None:
    assert wording.repeated_line("Line", count=3, seconds=10) == "Line (repeated 3 times in 10 s)"
    assert wording.repeated_line("Line", count=1, seconds=10) == "Line (repeated 1 time in 10 s)"
