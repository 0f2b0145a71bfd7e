# SPDX-License-Identifier: GPL-2.0-or-later
"""systemd-sysctl and `sysctl --system` beside a running service: the same values are no override."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.namespaces import read_sysctl
from tests.vm.service import unit
from tests.waiting import wait_for

BACKLOG, RMEM = "net.core.netdev_max_backlog", "net.ipv4.tcp_rmem"
FILE = Path("/etc/sysctl.d/90-test.conf")


@pytest.fixture
def unchanged_settings() -> Iterator[None]:
    """A file that sets what is so already."""
    FILE.write_text(f"{BACKLOG} = {read_sysctl(BACKLOG)}\n{RMEM} = {read_sysctl(RMEM)}\n")
    yield
    FILE.unlink()


def overrides() -> list[str]:
    return [name for name, tuner in unit.tuners().items() if tuner["overrides"]]


@pytest.mark.parametrize(
    "again", [("sysctl", "--system"), ("systemctl", "restart", "systemd-sysctl.service")], ids=" ".join
)
def test_the_same_values_again_turn_nothing_off(
    unchanged_settings: None, started: int, again: tuple[str, ...]
) -> None:
    unit.wait_active_tuners()

    unit.checked(*again)
    unit.checked(*again)

    assert overrides() == []
    assert unit.tuners()["net_buffer"]["left_alone"] == [BACKLOG]


def test_another_value_does(unchanged_settings: None, started: int) -> None:
    unit.wait_active_tuners()
    before = read_sysctl(BACKLOG)
    FILE.write_text(f"{BACKLOG} = {int(before) + 1}\n")
    try:
        unit.checked("sysctl", "--system")
        wait_for(lambda: overrides() == ["net_buffer"], 5, "net_buffer is off", interval_s=0.2)
    finally:
        unit.checked("sysctl", "-q", "-w", f"{BACKLOG}={before}")


def test_the_service_is_ordered_behind_systemd_sysctl(installed: None) -> None:
    assert {"systemd-sysctl.service", "systemd-modules-load.service"} <= set(unit.show("After").split())
