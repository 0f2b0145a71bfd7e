# SPDX-License-Identifier: GPL-2.0-or-later
"""SYN queues that overflow: of peers that want a connection, of a flood, and with useless cookies."""

from __future__ import annotations

import pytest

from tests.kernel.conftest import StartDaemon
from tests.kernel.namespaces import Namespace, Pair, sysctl_path
from tests.kernel.tuners.handshakes import ROOMY, listening, running
from tests.requirements import require

BACKLOG = "net.ipv4.tcp_max_syn_backlog"
COOKIES = "net.ipv4.tcp_syncookies"


@pytest.fixture(autouse=True)
def cookies_are_built_in() -> None:
    require(sysctl_path(COOKIES).exists(), "needs a kernel with SYN cookies")


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
