# SPDX-License-Identifier: GPL-2.0-or-later
"""SYN queues that overflow: of peers that want a connection, of a flood, and with useless cookies."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import StartDaemon
from tests.kernel.namespaces import Namespace, Pair, sysctl_path
from tests.kernel.traffic import PYTHON
from tests.requirements import require

BACKLOG = "net.ipv4.tcp_max_syn_backlog"
COOKIES = "net.ipv4.tcp_syncookies"
PROGRAM = str(Path(__file__).with_name("handshakes.py"))
PORT = 7100
ROOMY = 4096
"""A listen(2) limit that nothing here reaches."""


@pytest.fixture(autouse=True)
def cookies_are_built_in() -> None:
    require(sysctl_path(COOKIES).exists(), "needs a kernel with SYN cookies")


@contextlib.contextmanager
def running(where: Namespace, mode: str, address: str, number: int) -> Iterator[subprocess.Popen[str]]:
    command = where.command(PYTHON, PROGRAM, mode, address, str(PORT), str(number))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def listening(where: Pair, backlog: int) -> Iterator[None]:
    """In b; what has a forged source is answered to a, which has no use for it."""
    where.b.run("ip", "route", "add", "10.99.0.0/16", "via", where.a_ipv4)
    with running(where.b, "listen", where.b_ipv4, backlog) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        yield


def counted(where: Namespace, name: str) -> int:
    lines = where.run("cat", "/proc/net/netstat").splitlines()
    heads, values = (line.split() for line in lines if line.startswith("TcpExt:"))
    return int(values[heads.index(name)])


def test_a_load_that_is_served_gets_room(distant: Pair, start_daemon: StartDaemon) -> None:
    # Whoever has been here before and left metrics may use all of the queue.
    distant.b.write_sysctl("net.ipv4.tcp_no_metrics_save", "1")
    distant.b.write_sysctl(COOKIES, "0")
    distant.b.write_sysctl(BACKLOG, "128")
    daemon = start_daemon("--allow", "tcp_buffer", "--debug")
    with listening(distant, ROOMY), running(distant.a, "connect", distant.b_ipv4, 400):
        daemon.wait_line(rf"change {BACKLOG} from \(128\) -> \(160\) in netns '{distant.b.name}'", 40)
    assert counted(distant.b, "ListenDrops") > 128


def test_a_flood_that_nobody_serves_gets_less(veth: Pair, start_daemon: StartDaemon) -> None:
    veth.b.write_sysctl(COOKIES, "0")
    veth.b.write_sysctl(BACKLOG, "512")
    daemon = start_daemon("--allow", "tcp_buffer", "--debug")
    with listening(veth, ROOMY), running(veth.a, "syns", veth.b_ipv4, 2000):
        daemon.wait_line(rf"change {BACKLOG} from \(512\) -> \(384\) in netns '{veth.b.name}'", 40)
        assert veth.b.read_sysctl(COOKIES) == "0"


def test_cookies_that_nobody_brings_back_are_turned_off(veth: Pair, start_daemon: StartDaemon) -> None:
    veth.b.write_sysctl(COOKIES, "1")
    daemon = start_daemon("--allow", "tcp_buffer", "--debug")
    with (
        listening(veth, 64),
        running(veth.a, "syns", veth.b_ipv4, 1000),
        running(veth.a, "acks", veth.b_ipv4, 1000),
    ):
        daemon.wait_line(rf"change {COOKIES} from \(1\) -> \(0\) in netns '{veth.b.name}'", 30)
    assert counted(veth.b, "SyncookiesFailed") >= 1024
    assert counted(veth.b, "SyncookiesRecv") == 0
