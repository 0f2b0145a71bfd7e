# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bpftune.ipc.declaration import Counter, Declaration, Scenario
from bpftune.supervisor.counters import Counters, read_counters
from bpftune.supervisor.netns import NetnsRegistry

SNMP = """\
Ip: Forwarding DefaultTTL ReasmReqds
Ip: 2 64 1234
Icmp: InMsgs InErrors
Icmp: 5 6
"""
REQUESTS = Counter(
    name="requests",
    file="/proc/net/snmp",
    match=r"^Ip:(?: \S+){2} ReasmReqds.*\nIp:(?: \S+){2} (\d+)",
)
ERRORS = Counter(name="errors", file="/proc/net/snmp", match=r"^Icmp: \d+ (\d+)")
NETSTAT = """\
TcpExt: SyncookiesSent ListenDrops
TcpExt: 3 17
IpExt: InNoRoutes ListenDrops
IpExt: 5 19
Odd: One
"""
DROPS = Counter(name="drops", file="/proc/net/netstat", column="TcpExt ListenDrops")
IPV6 = Counter(name="ipv6", file="/proc/net/snmp6", match=r"^Ip6ReasmReqds\s+(\d+)")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "proc/net/snmp").write_text(SNMP)
    (tmp_path / "proc/net/netstat").write_text(NETSTAT)
    return tmp_path


def test_counters_are_read(root: Path) -> None:
    assert read_counters([REQUESTS, ERRORS], root) == {"requests": 1234, "errors": 6}


def test_what_a_namespace_lacks_is_absent(root: Path) -> None:
    assert read_counters([IPV6, ERRORS], root) == {"errors": 6}


def test_a_counter_that_moved_to_another_column_is_absent(root: Path) -> None:
    (root / "proc/net/snmp").write_text(SNMP.replace("DefaultTTL ReasmReqds", "ReasmReqds DefaultTTL"))

    assert read_counters([REQUESTS], root) == {}


def test_all_matches_add_up(root: Path) -> None:
    every = Counter(name="every", file="/proc/net/snmp", match=r"(\d+)$")

    assert read_counters([every], root) == {"every": 1240}


def test_only_what_the_scenario_names(root: Path) -> None:
    declaration = Declaration(
        name="small",
        description="a tuner for the test",
        tunables=[],
        scenarios=[
            Scenario(id="failing", name="n", why="w", reason="r", event=[], counters=["errors"]),
            Scenario(id="idle", name="n", why="w", reason="r"),
        ],
        probes=[],
        counters=[REQUESTS, ERRORS],
    )
    registry = NetnsRegistry()
    try:
        counters = Counters(registry=registry, root=root)

        assert counters.read(declaration, "failing", registry.initial.cookie) == {"errors": 6}
        assert counters.read(declaration, "idle", registry.initial.cookie) == {}
        assert counters.read(declaration, "failing", 987654321) == {}, "no such namespace"
    finally:
        registry.close()


def test_a_column_is_found_wherever_it_is(root: Path) -> None:
    assert read_counters([DROPS], root) == {"drops": 17}
    (root / "proc/net/netstat").write_text("TcpExt: ListenDrops Other\nTcpExt: 21 3\n")
    assert read_counters([DROPS], root) == {"drops": 21}


@pytest.mark.parametrize("column", ["TcpExt Missing", "Missing ListenDrops", "Odd One"])
def test_a_column_that_is_not_there_is_absent(root: Path, column: str) -> None:
    assert read_counters([msgspec.structs.replace(DROPS, column=column)], root) == {}
