# SPDX-License-Identifier: GPL-2.0-or-later
"""The journal: fields to search by, and the texts of `journalctl -x`."""

from __future__ import annotations

import pytest

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
    of_start = f"_SYSTEMD_INVOCATION_ID={invocation}"
    change = wait_for(
        lambda: unit.journal(
            "BPFTUNE_TUNER=tcp_buffer", f"BPFTUNE_TUNABLE={RMEM}", "BPFTUNE_CHANGE=1", of_start
        ),
        5,
        "the change in the journal",
    )[0]

    assert change["SYSLOG_IDENTIFIER"] == "bpftune"
    assert change["BPFTUNE_NETNS"] == distant.b.name
    assert change["BPFTUNE_OLD"] == SMALL_RMEM
    assert change["BPFTUNE_SCENARIO"]
    assert (
        f"change {RMEM}(min default max) from ({SMALL_RMEM}) -> ({change['BPFTUNE_NEW']})"
        in change["MESSAGE"]
    )
    assert int(change["PRIORITY"]) == 5


def test_the_catalog_explains_a_change(invocation: str) -> None:
    found = wait_for(
        lambda: (
            unit.run("journalctl", "-x", "--no-pager", "BPFTUNE_CHANGE=1", f"BPFTUNE_TUNABLE={RMEM}").stdout
        ),
        5,
        "the change in the journal",
    )

    assert f"-- Subject: bpftune changed {RMEM}" in found
    assert "`bpftune-ctl explain 1` shows what was measured" in found


def test_the_catalog_explains_an_override(started: int) -> None:
    unit.wait_active_tuners()
    before = read_sysctl(BACKLOG)
    try:
        unit.checked("sysctl", "-q", "-w", f"{BACKLOG}={int(before) + 1}")
        found = wait_for(
            lambda: (
                unit.run(
                    "journalctl", "-x", "--no-pager", "BPFTUNE_TUNER=net_buffer", f"_PID={started}"
                ).stdout
            ),
            5,
            "the override in the journal",
        )
    finally:
        unit.checked("sysctl", "-q", "-w", f"{BACKLOG}={before}")

    assert f"cmd 'sysctl' modified sysctl '{BACKLOG}'" in found
    assert "-- Subject: bpftune leaves net_buffer to the administrator" in found
