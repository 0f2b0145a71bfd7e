# SPDX-License-Identifier: GPL-2.0-or-later
"""Time in which nothing of the service runs: a frozen unit, a machine that sleeps. It goes on as before."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.namespaces import Pair
from tests.vm.foreign.growth import RMEM, SMALL_RMEM, grow_rmem
from tests.vm.service import unit

ANSWER_WITHIN_S = 5
"""A worker that owes an answer for longer is replaced, if it was not standing still like everyone else."""
SLEEP_S = ANSWER_WITHIN_S + 2


PM_TEST, SUSPENDED = Path("/sys/power/pm_test"), Path("/sys/power/suspend_stats/success")
SLEEPS = 3


@contextmanager
def undisturbed(distant: Pair) -> Iterator[None]:
    """The same processes before and after, and then it tunes."""
    distant.b.write_sysctl(RMEM, SMALL_RMEM)
    unit.systemctl("start")
    workers = {name: one["pid"] for name, one in unit.wait_active_tuners().items()}
    supervisor = unit.main_pid()
    yield
    grow_rmem(distant)
    assert {name: one["pid"] for name, one in unit.wait_active_tuners().items()} == workers
    assert unit.main_pid() == supervisor
    assert unit.show("NRestarts") == "0"
    assert not any("aborting it" in line["MESSAGE"] for line in unit.journal(f"_PID={supervisor}"))


def test_a_frozen_unit(stopped: None, distant: Pair) -> None:
    with undisturbed(distant):
        unit.systemctl("freeze")
        thawed_at = time.monotonic() + SLEEP_S
        while time.monotonic() < thawed_at:
            assert unit.show("FreezerState") == "frozen"
            time.sleep(0.5)
        unit.systemctl("thaw")


def test_a_machine_that_sleeps(stopped: None, distant: Pair) -> None:
    """All processes are frozen as for suspend, and go on soon: what the kernel has for tests of it
    (Documentation/power/basic-pm-debugging.rst)."""
    if not PM_TEST.exists():
        pytest.skip("this kernel cannot test suspend (CONFIG_PM_DEBUG)")
    slept = int(SUSPENDED.read_text())
    with undisturbed(distant):
        PM_TEST.write_text("freezer")
        try:
            for _ in range(SLEEPS):
                Path("/sys/power/state").write_text("freeze")
        finally:
            PM_TEST.write_text("none")
    assert int(SUSPENDED.read_text()) == slept + SLEEPS
