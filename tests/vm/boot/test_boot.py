# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine that was booted with the service enabled and a setting of its administrator's in sysctl.d.

jobs.py installs both and reboots.
"""

from __future__ import annotations

from tests.kernel.namespaces import read_sysctl
from tests.vm.service import unit
from tests.waiting import wait_for

BACKLOG = "net.core.netdev_max_backlog"
CONFIGURED = "1234"


def property_of(other: str, name: str) -> str:
    return unit.checked("systemctl", "show", "--value", "--property", name, other).strip()


def test_it_is_up_without_anybodys_help() -> None:
    wait_for(unit.is_active, 30, "the service is active", interval_s=0.5)

    assert unit.show("NRestarts") == "0"
    assert unit.wait_active_tuners().keys() >= {"tcp_buffer", "neigh_table", "net_buffer"}
    assert unit.checked("systemctl", "is-system-running").strip() == "running"


def test_it_started_after_the_administrators_settings() -> None:
    settings_done = int(property_of("systemd-sysctl.service", "ActiveEnterTimestampMonotonic"))

    assert settings_done > 0
    assert int(unit.show("ExecMainStartTimestampMonotonic")) > settings_done


def test_those_settings_are_neither_changed_nor_taken_for_an_override() -> None:
    tuners = unit.wait_active_tuners()

    assert read_sysctl(BACKLOG) == CONFIGURED
    assert tuners["net_buffer"]["left_alone"] == [BACKLOG]
    assert not [name for name, tuner in tuners.items() if tuner["overrides"]]
