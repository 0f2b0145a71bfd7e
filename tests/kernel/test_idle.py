# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine on which nothing happens, and a daemon that is only asked: what bpftune costs there."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import psutil
import pytest

from tests.kernel import closing, namespaces, third_party
from tests.kernel.closing import limit_time_wait
from tests.kernel.conftest import StartDaemon
from tests.kernel.daemon import Daemon
from tests.waiting import wait_for

IDLE_S = 10
RESTING_S = 2
COMPILER_LIBRARIES = re.compile(r"/lib(?:LLVM|bcc|clang)[^/\n]*$", re.MULTILINE)
VOLUNTARY = re.compile(r"^voluntary_ctxt_switches:\t(\d+)", re.MULTILINE)

QUESTIONS = (("status",), ("tunables",), ("summary",), ("history",), ("verify",), ("export",), ("support",))


@pytest.fixture
def daemon(start_daemon: StartDaemon) -> Daemon:
    started = start_daemon()
    started.wait_active()
    return started


def switches(processes: set[psutil.Process]) -> int:
    """Voluntary ones, of all threads: a library's helper thread that wakes up counts too."""
    statuses = (
        status.read_text()
        for process in processes
        for status in Path(f"/proc/{process.pid}/task").glob("*/status")
    )
    return sum(int(number) for status in statuses for number in VOLUNTARY.findall(status))


def wait_quiet(processes: set[psutil.Process], quiet_s: float) -> None:
    """Until that long has passed without a switch: what follows a start or a request is over.

    Others may make namespaces or write sysctls meanwhile, which wakes it up for good reason.
    """
    last, since = switches(processes), time.monotonic()

    def is_quiet() -> bool:
        nonlocal last, since
        if (now := switches(processes)) != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since >= quiet_s

    wait_for(is_quiet, 5 * quiet_s + 10, f"{quiet_s:g} s in which nothing wakes up", 0.1)


def descriptors(daemon: Daemon) -> list[str]:
    """What the supervisor has open, without the numbers that make each one different."""
    directory = f"/proc/{daemon.pid}/fd"
    return sorted(os.readlink(f"{directory}/{number}").split(":[")[0] for number in os.listdir(directory))


def test_nothing_wakes_up_and_no_compiler_stays(daemon: Daemon) -> None:
    family = daemon.family()
    assert len(family) == len(daemon.wait_active()) + 2

    wait_quiet(family, IDLE_S)

    for process in family:
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        assert "python" in maps
        assert not COMPILER_LIBRARIES.findall(maps), process


def test_what_happened_does_not_keep_it_awake(
    daemon_directory: Path, netns: namespaces.Namespace, start_daemon: StartDaemon
) -> None:
    """After traffic, changes, a crash and questions it comes to rest again; deadlines far ahead may stay."""
    third_party.put_example(daemon_directory / "tuners")
    limit_time_wait(netns)
    daemon = start_daemon("-l", str(daemon_directory / "tuners"))
    with closing.closing(netns):
        wait_for(lambda: daemon.tuner(third_party.NAME)["changes"] >= 2, 10, "two changes")
    psutil.Process(daemon.tuner("tcp_buffer")["pid"]).kill()
    wait_for(lambda: daemon.tuner("tcp_buffer")["restarts"] == 1, 5, "it was restarted")
    daemon.wait_active()
    daemon.ctl("summary")

    wait_quiet({process for process in daemon.family() if process.is_running()}, RESTING_S)


def test_requests_restarts_and_namespaces_leave_no_descriptor(daemon: Daemon) -> None:
    before = descriptors(daemon)

    for _ in range(3):
        for question in QUESTIONS:
            daemon.ctl(*question)
        assert daemon.run_ctl("explain", "99").returncode == 2
        daemon.ctl("restart", "tcp_buffer")
        daemon.wait_active()
        with namespaces.namespace() as created:
            wait_for(lambda: created.name in known(daemon), 5, "it is known")
        wait_for(lambda: created.name not in known(daemon), 5, "it is forgotten")

    wait_for(lambda: descriptors(daemon) == before, 5, "the same descriptors are open")


def known(daemon: Daemon) -> set[str]:
    return {netns["name"] for netns in daemon.ctl("status")["namespaces"]}
