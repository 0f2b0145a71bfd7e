# SPDX-License-Identifier: GPL-2.0-or-later
"""Killed or blocked under systemd: who starts what again, and what stays of the old."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.kernel import bpf_objects
from tests.vm.service import unit
from tests.waiting import wait_for

WATCHDOG_S = 10


def test_a_killed_supervisor_is_started_again(started: int) -> None:
    old = unit.pids()
    held = bpf_objects.held(started)

    os.kill(started, signal.SIGKILL)

    unit.wait_restarted(started, 20)
    assert unit.show("NRestarts") == "1"
    assert not old & unit.pids()
    wait_for(lambda: not bpf_objects.existing(held), 5, "the old programs are gone")
    assert unit.wait_active_tuners().keys() >= {"tcp_buffer", "neigh_table"}


def test_a_killed_worker_is_the_supervisors_business(started: int) -> None:
    old = unit.wait_active_tuners()["tcp_buffer"]["pid"]

    os.kill(old, signal.SIGKILL)

    wait_for(lambda: unit.tuners()["tcp_buffer"]["restarts"] == 1, 5, "a restart", interval_s=0.2)
    assert unit.wait_active_tuners()["tcp_buffer"]["pid"] != old
    assert unit.main_pid() == started
    assert unit.show("NRestarts") == "0"


def test_all_killed_at_once(started: int) -> None:
    unit.wait_active_tuners()
    old = unit.pids()

    unit.systemctl("kill", "--signal=KILL", "--kill-who=all")

    unit.wait_restarted(started, 20)
    assert not [pid for pid in old if Path(f"/proc/{pid}").exists()]
    assert unit.wait_active_tuners().keys() >= {"tcp_buffer", "neigh_table"}


def test_a_blocked_supervisor_is_killed_and_started_again(stopped: None) -> None:
    unit.configure(f"WatchdogSec={WATCHDOG_S}")
    unit.systemctl("start")
    started = unit.main_pid()
    unit.wait_active_tuners()

    os.kill(started, signal.SIGSTOP)

    unit.wait_restarted(started, 20)
    assert unit.show("NRestarts") == "1"
    assert any("Watchdog timeout" in line["MESSAGE"] for line in unit.journal("--unit", unit.NAME))
    assert unit.wait_active_tuners()


def test_the_watchdog_is_fed(stopped: None) -> None:
    """Two intervals pass, long enough for systemd to act if nobody fed it."""
    unit.configure(f"WatchdogSec={WATCHDOG_S}")
    unit.systemctl("start")
    started = unit.main_pid()
    first = int(unit.show("WatchdogTimestampMonotonic"))

    wait_for(
        lambda: int(unit.show("WatchdogTimestampMonotonic")) > first + 2 * WATCHDOG_S * 1_000_000,
        3 * WATCHDOG_S,
        "keep-alives over two intervals",
        interval_s=0.5,
    )

    assert unit.main_pid() == started
    assert unit.show("NRestarts") == "0"
