# SPDX-License-Identifier: GPL-2.0-or-later
"""What the unit allows: memory, tasks, capabilities, system calls; and that this is enough."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel import namespaces, third_party
from tests.kernel.closing import closing, limit_time_wait
from tests.kernel.namespaces import Namespace
from tests.kernel.third_party import GREEDY, NAME
from tests.vm.service import unit
from tests.waiting import wait_for

MIB = 1 << 20
WORST_SCORE = 4.5
"""`systemd-analyze security`: 10 is a service without any restriction. The unit says what it leaves out."""


LOCAL_TUNERS = Path("/usr/local/lib/bpftune/tuners")


@pytest.fixture
def netns() -> Iterator[Namespace]:
    with namespaces.namespace() as created:
        yield created


@pytest.fixture
def greedy() -> Iterator[None]:
    """A tuner whose worker takes more memory than there is as soon as connections close."""
    folder = third_party.put_variant(LOCAL_TUNERS, GREEDY)
    yield
    shutil.rmtree(folder)


def read(name: str) -> int:
    return int((unit.CGROUP / name).read_text())


def test_memory_and_tasks_stay_below_their_limits(stopped: None) -> None:
    """Also while the compiler runs, which takes most."""
    shutil.rmtree("/var/lib/bpftune/programs", ignore_errors=True)
    unit.systemctl("start")
    unit.wait_active_tuners()

    assert read("memory.max") == 400 * MIB
    assert read("pids.max") == 64
    assert "oom_kill 0" in (unit.CGROUP / "memory.events").read_text()
    assert "max 0" in (unit.CGROUP / "pids.events").read_text()
    assert "max 0" in (unit.CGROUP / "memory.events").read_text()
    print(f"memory: peak {read('memory.peak') // MIB} MiB, then {read('memory.current') // MIB} MiB")
    assert read("pids.current") <= 32


def test_a_worker_that_takes_the_service_s_memory_is_what_is_killed(
    greedy: None, stopped: None, netns: Namespace
) -> None:
    limit_time_wait(netns)
    unit.configure("MemoryMax=200M\nMemorySwapMax=0")
    unit.systemctl("start")
    supervisor = unit.main_pid()
    others = {name: one["pid"] for name, one in unit.wait_active_tuners().items() if name != NAME}

    with closing(netns):
        wait_for(lambda: unit.tuners()[NAME]["restarts"], 10, "its worker is replaced", interval_s=0.2)

    assert "oom_kill 0" not in (unit.CGROUP / "memory.events").read_text()
    assert any("ended: killed by SIGKILL" in line["MESSAGE"] for line in unit.journal(f"_PID={supervisor}"))
    assert {name: one["pid"] for name, one in unit.tuners().items() if name in others} == others
    assert unit.main_pid() == supervisor


def test_too_few_tasks_cost_tuners_and_not_the_service(stopped: None) -> None:
    """Threads count. What is left is enough for some of the workers, and for all once it is enough."""
    unit.configure("TasksMax=16")
    unit.systemctl("start")
    supervisor = unit.main_pid()
    states = unit.wait_settled_tuners()

    assert {"active", "failed"} <= set(states.values())
    assert read("pids.current") <= 16
    unit.checked("systemctl", "set-property", "--runtime", unit.NAME, "TasksMax=64")
    for name, state in states.items():
        if state == "failed":
            unit.checked(unit.BPFTUNE_CTL, "restart", name)
    assert unit.wait_active_tuners().keys() == {name for name in states if states[name] != "inactive"}
    assert unit.main_pid() == supervisor


def test_the_unit_is_valid(installed: None) -> None:
    done = unit.run("systemd-analyze", "verify", "--man=no", "/usr/local/lib/systemd/system/bpftune.service")

    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if "bpftune" in line]


def test_the_security_score(installed: None) -> None:
    done = unit.run("systemd-analyze", "security", "--no-pager", unit.NAME)
    found = re.search(r"Overall exposure level for .*: (\d+\.\d+)", done.stdout)

    assert found is not None, done.stdout + done.stderr
    print(found[0])
    assert float(found[1]) <= WORST_SCORE, done.stdout


def test_it_writes_below_its_own_folders_only(started: int) -> None:
    """Everything else is read-only for it, /proc/sys excepted."""
    lines = Path(f"/proc/{started}/mountinfo").read_text().splitlines()
    options = {line.split()[4]: line.split()[5].split(",") for line in lines}

    for point in ("/", "/boot", "/sys/fs/cgroup"):
        assert "ro" in options.get(point, ["ro"]), point
    for point in ("/var/lib/bpftune", "/run/bpftune"):
        assert "rw" in options[point], point
