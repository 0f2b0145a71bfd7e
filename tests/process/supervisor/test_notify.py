# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpftune.supervisor import notify
from bpftune.supervisor.loop import Loop
from bpftune.supervisor.notify import ServiceNotifier
from tests.waiting import wait_for


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What systemd listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "20000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        yield listening


def hear(loop: Loop, manager: socket.socket, wanted: bytes) -> None:
    def heard() -> bool:
        loop.run_once(20)
        try:
            return wanted in manager.recv(4096)
        except BlockingIOError:
            return False

    wait_for(heard, 10, f"{wanted!r} from the daemon")


def test_systemd_hears_of_every_step(manager: socket.socket) -> None:
    loop = Loop()
    notifier = ServiceNotifier(loop)
    notifier.ready("2 tuners")
    hear(loop, manager, b"READY=1\nSTATUS=2 tuners")
    for _ in range(3):
        hear(loop, manager, b"WATCHDOG=1")
    notifier.status(lambda: "3 tuners")
    hear(loop, manager, b"STATUS=3 tuners")
    notifier.stopping()
    hear(loop, manager, b"STOPPING=1")


def test_a_loop_that_does_not_turn_feeds_no_watchdog(manager: socket.socket) -> None:
    ServiceNotifier(Loop()).ready("2 tuners")
    assert b"READY=1" in manager.recv(4096)
    assert b"WATCHDOG=1" in manager.recv(4096)
    with pytest.raises(BlockingIOError):
        manager.recv(4096)


def test_a_systemd_that_does_not_read_holds_nobody_up(manager: socket.socket) -> None:
    notifier = ServiceNotifier(Loop())
    for _ in range(1000):
        notifier.stopping()
    assert manager.recv(4096) == b"STOPPING=1"


def test_changes_in_a_row_are_told_once_and_with_the_newest_number(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "STATUS_EVERY_NS", 200_000_000)
    loop = Loop()
    notifier = ServiceNotifier(loop)
    changes: list[int] = []

    def describe() -> str:
        return f"{len(changes)} changes"

    for _ in range(2):
        for number in range(100):
            changes.append(number)
            notifier.status(describe)
        told_ns = time.monotonic_ns()
        hear(loop, manager, f"STATUS={describe()}".encode())
    assert time.monotonic_ns() - told_ns > 100_000_000, "not at once after the first"
    assert loop._timeout_ms() is None, "and nothing wakes up for it"


def test_a_systemd_that_is_gone_is_no_error(manager: socket.socket) -> None:
    manager.close()
    ServiceNotifier(Loop()).stopping()


def test_an_abstract_address(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"bpftune-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        ServiceNotifier(Loop()).stopping()
        assert listening.recv(4096) == b"STOPPING=1"


def test_nobody_is_told_without_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    loop = Loop()
    notifier = ServiceNotifier(loop)
    notifier.ready("x")
    notifier.status(lambda: "y")
    assert loop._timeout_ms() is None
