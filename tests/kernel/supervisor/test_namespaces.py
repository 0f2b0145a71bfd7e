# SPDX-License-Identifier: GPL-2.0-or-later
"""Namespaces that come and go under a running daemon."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest

from tests.kernel.conftest import StartDaemon
from tests.kernel.daemon import Daemon
from tests.kernel.namespaces import Namespace, namespace
from tests.waiting import wait_for

ROUNDS, PER_ROUND = 10, 100
SLACK_BYTES = 2 << 20
"""What an allocator may keep; a thousand leaked namespaces would be more."""


def names(daemon: Daemon) -> set[str]:
    return {netns["name"] for netns in daemon.ctl("status")["namespaces"]}


def resident_bytes(daemon: Daemon) -> int:
    with open(f"/proc/{daemon.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(daemon: Daemon) -> int:
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


def test_a_namespace_there_before_is_known_by_its_name(netns: Namespace, start_daemon: StartDaemon) -> None:
    assert {"global", netns.name} <= names(start_daemon())


def test_a_new_namespace_is_known_at_once_and_forgotten_when_it_ends(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    with namespace() as created:
        wait_for(lambda: created.name in names(daemon), 5, "the new namespace in status")
    wait_for(lambda: created.name not in names(daemon), 5, "the ended namespace gone from status")


def test_a_nameless_namespace_is_named_by_its_process(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    with subprocess.Popen(["unshare", "-n", "cat"], stdin=subprocess.PIPE) as process:
        name = f"pid {process.pid} (cat)"
        wait_for(lambda: name in names(daemon), 5, f"{name} in status")
        assert process.stdin is not None
        process.stdin.close()
    wait_for(lambda: name not in names(daemon), 5, f"{name} gone from status")


def test_the_daemon_keeps_no_namespace_alive(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    with namespace() as created:
        wait_for(lambda: created.name in names(daemon), 5, "the new namespace in status")
        inum = created.inum
    inside = f"net:[{inum}]"
    assert inside not in links(lambda pid: f"/proc/{pid}/fd", daemon)
    wait_for(lambda: created.name not in names(daemon), 5, "the ended namespace gone from status")


def links(folder: Callable[[int], str], daemon: Daemon) -> list[str]:
    found = []
    for name in os.listdir(folder(daemon.pid)):
        try:
            found.append(os.readlink(f"{folder(daemon.pid)}/{name}"))
        except FileNotFoundError:
            continue  # the descriptor that listed the folder, or one of a moment
    return found


@pytest.mark.timeout(240)
def test_a_thousand_namespaces_leave_nothing_behind(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    churn(PER_ROUND)
    wait_for(lambda: churned(daemon) == 0, 10, "the first round forgotten")
    before = descriptors(daemon), resident_bytes(daemon)
    for _ in range(ROUNDS - 1):
        churn(PER_ROUND)
    wait_for(lambda: churned(daemon) == 0, 10, "all forgotten")
    assert descriptors(daemon) <= before[0]
    assert resident_bytes(daemon) <= before[1] + SLACK_BYTES


def churned(daemon: Daemon) -> int:
    """Namespaces that are known but gone: their names went first."""
    return sum(name.startswith(("churn", "inode ")) for name in names(daemon))


def churn(count: int) -> None:
    """`ip -batch` makes and deletes them in one process."""
    batch = "".join(f"netns add churn{number}\nnetns del churn{number}\n" for number in range(count))
    subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)
