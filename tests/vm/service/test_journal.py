# SPDX-License-Identifier: GPL-2.0-or-later
"""The journal: fields to search by, and the texts of `journalctl -x`."""

from __future__ import annotations

from typing import Any

import pytest

from bpftune.supervisor.logger import MessageId, Priority
from tests.kernel.namespaces import Pair, read_sysctl
from tests.vm.foreign.growth import RMEM, SMALL_RMEM, grow_rmem
from tests.vm.service import unit
from tests.waiting import wait_for

BACKLOG = "net.core.netdev_max_backlog"


@pytest.fixture
def invocation(stopped: None, distant: Pair) -> str:
    """Of a service that has raised tcp_rmem in a namespace."""
    distant.b.write_sysctl(RMEM, SMALL_RMEM)
    unit.systemctl("start")
    unit.wait_active_tuners()
    grow_rmem(distant)
    return unit.show("InvocationID")


def test_a_change_is_found_by_its_fields(invocation: str, distant: Pair) -> None:
    change = wait_journal("BPFTUNE_TUNER=tcp_buffer", "BPFTUNE_CHANGE=1", *of_change(invocation))[0]

    assert change["SYSLOG_IDENTIFIER"] == "bpftune"
    assert change["BPFTUNE_TUNABLE"] == RMEM
    assert change["BPFTUNE_NETNS"] == distant.b.name
    assert change["BPFTUNE_OLD"] == SMALL_RMEM
    assert change["BPFTUNE_SCENARIO"]
    assert (
        f"change {RMEM}(min default max) from ({SMALL_RMEM}) -> ({change['BPFTUNE_NEW']})"
        in change["MESSAGE"]
    )
    assert int(change["PRIORITY"]) == Priority.NOTICE


def test_the_catalog_explains_a_change(invocation: str) -> None:
    wait_journal(*of_change(invocation))
    found = unit.checked("journalctl", "-x", "--no-pager", *of_change(invocation))

    assert f"Subject: bpftune changed {RMEM}" in found
    assert "`bpftune-ctl explain 1` shows what was measured" in found


def test_the_catalog_explains_an_override(started: int) -> None:
    unit.wait_active_tuners()
    before = read_sysctl(BACKLOG)
    ours = ("BPFTUNE_TUNER=net_buffer", f"MESSAGE_ID={MessageId.OVERRIDE}", f"_PID={started}")
    try:
        unit.checked("sysctl", "-q", "-w", f"{BACKLOG}={int(before) + 1}")
        wait_journal(*ours)
    finally:
        unit.checked("sysctl", "-q", "-w", f"{BACKLOG}={before}")
    found = unit.checked("journalctl", "-x", "--no-pager", *ours)

    assert f"cmd 'sysctl' modified sysctl '{BACKLOG}'" in found
    assert "Subject: bpftune leaves net_buffer to the administrator" in found


def of_change(invocation: str) -> tuple[str, str]:
    return f"MESSAGE_ID={MessageId.CHANGE}", f"_SYSTEMD_INVOCATION_ID={invocation}"


def wait_journal(*matches: str) -> list[dict[str, Any]]:
    return wait_for(lambda: unit.journal(*matches), 5, f"in the journal: {matches}", interval_s=0.2)
