# SPDX-License-Identifier: GPL-2.0-or-later
"""An administrator's word against a running daemon: whatever writes a tunable, its tuner keeps out there."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from bpftune.supervisor.ledger import Ledger
from tests.kernel import neighbours, traffic
from tests.kernel.conftest import StartDaemon
from tests.kernel.daemon import Daemon
from tests.kernel.namespaces import INITIAL, Namespace, Pair, checked, namespace, read_sysctl
from tests.kernel.neighbours import ARP
from tests.waiting import SCALE, wait_for

RMEM, WMEM = "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"
RMEM_FILE = "/proc/sys/net/ipv4/tcp_rmem"
SMALL_RMEM = "4096 65536 131072"
TUNER = "tcp_buffer"

AIM_S = 0.1
"""What an override may take; the assertion leaves a busy machine ten times that."""
QUIET_S = 0.3
"""Longer than any look at a write that does not show."""


@pytest.fixture
def daemon(start_daemon: StartDaemon) -> Daemon:
    started = start_daemon()
    started.wait_active()
    return started


def overrides(daemon: Daemon, tuner: str = TUNER) -> dict[str, Any]:
    return {one["netns"]["name"]: one for one in daemon.tuner(tuner)["overrides"]}


def assert_nobody_overrides(daemon: Daemon) -> None:
    end = time.monotonic() + QUIET_S
    while time.monotonic() < end:
        assert not overrides(daemon)
    assert not any("disabling" in line for line in daemon.lines)


@pytest.mark.parametrize(
    ("command", "cmd", "new"),
    [
        (["sysctl", "-w", f"{RMEM}=4096 70000 500000"], "sysctl", "4096 70000 500000"),
        (["sh", "-c", f"echo 4096 70000 500000 > {RMEM_FILE}"], "sh", "4096 70000 500000"),
        (["sysctl", "-w", f"{RMEM}={SMALL_RMEM}"], "sysctl", SMALL_RMEM),
        (["sh", "-c", f"echo 4097 > {RMEM_FILE}"], "sh", "4097 65536 131072"),
    ],
    ids=["sysctl", "echo", "the same value", "a part of it"],
)
def test_a_write_turns_the_tuner_off_in_that_namespace(
    netns: Namespace, start_daemon: StartDaemon, command: list[str], cmd: str, new: str
) -> None:
    netns.write_sysctl(RMEM, SMALL_RMEM)
    daemon = start_daemon()
    with subprocess.Popen(netns.command(*command), stdout=subprocess.DEVNULL) as writer:
        writer.wait()

    daemon.wait_line(
        rf"^bpftune: pid \d+, cmd '{cmd}' modified sysctl '{RMEM}' that tuner '{TUNER}' uses; disabling"
        rf" '{TUNER}' in netns '{netns.name}': user 'root', from \({SMALL_RMEM}\) -> \({new}\)$"
    )
    override = overrides(daemon)[netns.name]
    assert (override["tunable"], override["old"], override["new"]) == (RMEM, SMALL_RMEM, new)
    assert re.fullmatch(rf"pid \d+, cmd '{cmd}', user 'root'", override["by"])
    assert netns.read_sysctl(RMEM) == new
    assert daemon.tuner(TUNER)["state"] == "active"


def test_it_takes_no_longer_than_a_tenth_of_a_second(netns: Namespace, daemon: Daemon) -> None:
    before = time.monotonic()
    netns.write_sysctl(RMEM, SMALL_RMEM)
    written = time.monotonic()
    found = daemon.wait_line(rf"pid (\d+), .* disabling '{TUNER}' in netns '{netns.name}'")
    took_s = time.monotonic() - before

    print(f"write {1000 * (written - before):.1f} ms, off after {1000 * took_s:.1f} ms")
    assert int(found[1]) == os.getpid()
    assert took_s < 10 * AIM_S * SCALE


def test_a_write_in_the_initial_namespace_stops_tuning_there_and_nowhere_else(
    initial_restored: None, distant: Pair, start_daemon: StartDaemon
) -> None:
    distant.b.write_sysctl(RMEM, SMALL_RMEM)
    daemon = start_daemon()
    daemon.wait_active()
    value = read_sysctl(RMEM)
    checked(["sysctl", "-w", f"{RMEM}={value}"])
    daemon.wait_line(rf"disabling '{TUNER}' in global ns: user 'root', from \({value}\) -> \({value}\)$")

    assert daemon.tuner(TUNER)["state"] == "disabled"
    with traffic.receiver(distant.b, distant.b_ipv4) as to, traffic.sending(distant.a, to, seconds=20):
        daemon.wait_line(rf"change {RMEM}.* in netns '{distant.b.name}'$")
    assert read_sysctl(RMEM) == value


def test_off_until_enabled(distant: Pair, start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    distant.b.run("sysctl", "-w", f"{RMEM}={SMALL_RMEM}")
    daemon.wait_line(f"disabling '{TUNER}' in netns '{distant.b.name}'")
    with traffic.receiver(distant.b, distant.b_ipv4) as to:
        for _ in range(2):
            traffic.send(distant.a, to, seconds=0.8)
        assert distant.b.read_sysctl(RMEM) == SMALL_RMEM
        assert daemon.tuner(TUNER)["changes"] == 0

        assert daemon.run_ctl("enable", TUNER, "--netns", distant.b.name).returncode == 0
        daemon.wait_line(f"enabling '{TUNER}' in netns '{distant.b.name}'")
        assert not overrides(daemon)
        with traffic.sending(distant.a, to, seconds=20):
            daemon.wait_line(rf"change {RMEM}\(min default max\) from \({SMALL_RMEM}\).*'{distant.b.name}'$")


def test_what_is_no_override(netns: Namespace, daemon: Daemon) -> None:
    """Writes that fail, other sysctls, and what systemd-sysctl sets again at an upgrade."""
    value = netns.read_sysctl(RMEM)
    with pytest.raises(OSError, match="Invalid argument"):
        netns.write_sysctl(RMEM, "bogus")
    netns.write_sysctl("net.ipv4.tcp_fin_timeout", "59")
    netns.run("sysctl", "-w", "net.ipv4.tcp_keepalive_time=7000")
    netns.run(*as_systemd_sysctl(value))

    assert_nobody_overrides(daemon)
    assert netns.read_sysctl(RMEM) == value


def test_a_new_value_is_an_override_whoever_writes_it(netns: Namespace, daemon: Daemon) -> None:
    netns.run(*as_systemd_sysctl(SMALL_RMEM))

    daemon.wait_line(f"disabling '{TUNER}' in netns '{netns.name}'")


def as_systemd_sysctl(value: str) -> list[str]:
    """A command that writes tcp_rmem under that name."""
    script = f"printf systemd-sysctl > /proc/$$/comm; echo {value} > {RMEM_FILE}"
    return ["sh", "-c", script]


def test_own_writes_are_no_override(distant: Pair, start_daemon: StartDaemon) -> None:
    distant.b.write_sysctl(RMEM, SMALL_RMEM)
    daemon = start_daemon()
    with traffic.receiver(distant.b, distant.b_ipv4) as to:
        for _ in range(2):
            traffic.send(distant.a, to, seconds=0.8)
    assert daemon.tuner(TUNER)["changes"] >= 1

    assert_nobody_overrides(daemon)


def test_a_global_tunable_in_the_initial_namespace(initial_restored: None, daemon: Daemon) -> None:
    key, tuner = f"{ARP.sysctls}3", "neigh_table"
    old = ARP.thresholds()[2]
    checked(["sysctl", "-w", f"{key}={old + 1}"])

    daemon.wait_line(rf"modified sysctl '{key}' that tuner '{tuner}' uses; disabling '{tuner}' in global ns")
    status = daemon.tuner(tuner)
    assert status["state"] == "disabled"
    with neighbours.crowd(ARP.interface) as crowd:
        assert neighbours.add(crowd, ARP, old + 200) > 0
    assert ARP.thresholds()[2] == old + 1
    assert daemon.tuner(tuner)["events_in"] == status["events_in"]


def test_a_change_through_netlink_is_noticed_before_writing_over_it(
    initial_restored: None, daemon: Daemon
) -> None:
    """No sysctl write tells who it was, but the value is not the one that the proposal expects."""
    old = ARP.thresholds()[2]
    INITIAL.run("ip", "ntable", "change", "name", "arp_cache", "thresh3", str(2 * old))
    with neighbours.crowd(ARP.interface) as crowd:
        neighbours.add(crowd, ARP, 3 * old, pace_us=20)

        daemon.wait_line(
            rf"{ARP.sysctls}3 was changed from \({old}\) -> \({2 * old}\) by unknown \(not through sysctl\);"
            " disabling 'neigh_table' in global ns"
        )
    assert ARP.thresholds()[2] == 2 * old
    wait_for(lambda: overrides(daemon, "neigh_table"), 1, "the override in status")


def test_what_is_kept_of_a_namespace_goes_with_it_also_while_no_daemon_runs(
    start_daemon: StartDaemon, daemon_directory: Path
) -> None:
    with namespace() as netns:
        first = start_daemon()
        first.wait_active()
        first.ctl("disable", TUNER, "--netns", netns.name)
        assert netns.name in overrides(first)
        first.stop()
        second = start_daemon()
        assert netns.name in overrides(second)
        second.stop()
    third = start_daemon()
    assert overrides(third) == {}
    third.stop()
    with contextlib.closing(Ledger(daemon_directory / "state")) as ledger:
        assert ledger.overrides() == []
