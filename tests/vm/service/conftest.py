# SPDX-License-Identifier: GPL-2.0-or-later
"""bpftune installed once, and per test a service that was just started."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import leftovers
from tests.kernel import namespaces
from tests.kernel.namespaces import Pair
from tests.vm.service import unit


@pytest.fixture(scope="session", autouse=True)
def installed() -> None:
    unit.install()


@pytest.fixture
def stopped(installed: None) -> Iterator[None]:
    """The service is configured as installed, does not run, remembers nothing, and leaves nothing behind."""
    unit.run("systemctl", "stop", unit.NAME)
    unit.run("systemctl", "reset-failed", unit.NAME)
    unit.forget_ledger()
    mounts, programs = leftovers.mounts(), leftovers.programs()
    yield
    unit.systemctl("stop")
    unit.unconfigure()
    assert not unit.pids()
    assert not leftovers.settle(lambda: leftovers.mounts() - mounts), "mounts left behind"
    assert not leftovers.settle(lambda: leftovers.programs() - programs), "BPF programs left behind"


@pytest.fixture
def started(stopped: None) -> int:
    """It runs; the supervisor's pid."""
    unit.systemctl("start")
    return unit.main_pid()


@pytest.fixture
def distant() -> Iterator[Pair]:
    with namespaces.distant_pair() as made:
        yield made
