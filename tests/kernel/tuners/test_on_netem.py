# SPDX-License-Identifier: GPL-2.0-or-later
"""The gain there is to win, on paths that the kernel itself makes: 50 ms and 100 Mbit/s by netem.

Kernels without netem have the same with a path in user space, in the modules of the tuners; what is
measured here is throughput.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Iterator

import pytest

from tests.kernel import namespaces, sysctl_guard, traffic
from tests.kernel.conftest import StartDaemon
from tests.kernel.connections import connect, serving
from tests.kernel.daemon import Daemon
from tests.kernel.namespaces import Namespace, Pair
from tests.kernel.paths import has_netem
from tests.kernel.tuners.test_tcp_buffer import HOLD_500_IDLE, RMEM, SMALL_RMEM, SMALL_WMEM, WMEM, largest
from tests.requirements import require_command, require_rung
from tests.waiting import wait_for

RTT_MS, MBIT_PER_S = 50, 100
NEEDED_BYTES = 2 * MBIT_PER_S * 125 * RTT_MS
"""Half of a buffer is overhead."""
CONNECTIONS, CONNECTION_S = 4, 5
MOST_CHANGES = 10


@pytest.fixture
def far() -> Iterator[Pair]:
    require_rung(has_netem(), "no netem in this kernel")
    with namespaces.distant_pair(rtt_ms=RTT_MS, mbit_per_s=MBIT_PER_S) as made:
        for end in (made.a, made.b):
            # Segments in large pieces, as real devices take them.
            end.run("ip", "link", "set", made.device, "gso_max_segs", "65535")
        yield made


def send_one_after_another(pair: Pair, count: int = CONNECTIONS) -> list[float]:
    """Mbit/s of each connection, by iperf3."""
    iperf3 = require_command("iperf3")
    rates = []
    server = subprocess.Popen(
        pair.b.command(iperf3, "-s"), stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    with server:
        try:
            wait_for(lambda: pair.b.run("ss", "-Htln", "sport", "=", ":5201"), 5, "iperf3 listens")
            for _ in range(count):
                said = json.loads(pair.a.run(iperf3, "-c", pair.b_ipv4, "-t", str(CONNECTION_S), "--json"))
                rates.append(said["end"]["sum_sent"]["bits_per_second"] / 1e6)
        finally:
            server.kill()
    return rates


def enough_mbit_per_s(pair: Pair) -> float:
    """85 % of the link, or of what this machine gets through it with the kernel's own limits: a busy or
    emulated processor may be slower than the link."""
    return 0.85 * min(MBIT_PER_S, *send_one_after_another(pair, 2))


def check(daemon: Daemon, where: Namespace, key: str, rates: list[float], enough: float) -> None:
    """The median stands for the connections from the second on, since a busy machine may spoil one."""
    changes = [one for one in daemon.ctl("history")["changes"] if one["tunable"] == key]
    limit = largest(where.read_sysctl(key))
    shown = [round(rate, 1) for rate in rates]
    print(f"{shown} Mbit/s, {enough:.1f} wanted; {len(changes)} changes, limit {limit} bytes")
    assert statistics.median(rates[1:]) >= enough
    assert 1 <= len(changes) <= MOST_CHANGES
    assert limit <= 4 * NEEDED_BYTES


def test_a_small_receive_limit_fills_the_path_from_the_second_connection_on(
    far: Pair, start_daemon: StartDaemon
) -> None:
    enough = enough_mbit_per_s(far)
    far.b.write_sysctl(RMEM, SMALL_RMEM)
    daemon = start_daemon("--allow", "tcp_buffer")

    check(daemon, far.b, RMEM, send_one_after_another(far), enough)


def test_a_small_send_limit_fills_the_path_from_the_second_connection_on(
    far: Pair, start_daemon: StartDaemon
) -> None:
    enough = enough_mbit_per_s(far)
    far.a.write_sysctl(WMEM, SMALL_WMEM)
    daemon = start_daemon("--allow", "tcp_buffer")

    check(daemon, far.a, WMEM, send_one_after_another(far), enough)


def test_one_percent_of_loss_moves_connections_to_bbr(start_daemon: StartDaemon) -> None:
    """One in 64 is too much, so only those are moved that lose something early: about a third."""
    require_rung(has_netem(), "no netem in this kernel")
    with namespaces.distant_pair(rtt_ms=RTT_MS, mbit_per_s=MBIT_PER_S, loss=0.01) as lossy:
        daemon = start_daemon("--allow", "tcp_conn")
        with serving(lossy.b, lossy.b_ipv4):
            told = connect(lossy.a, lossy.b_ipv4, count=30, concurrent=5, payload_bytes=300_000)
        daemon.wait_line(
            r"retransmits.* change net\.persock\.tcp\.congestion_control from \(\w+\) -> \(bbr\)"
        )

    print([one.last for one in told])
    assert any(one.last == "bbr" for one in told), told


def test_where_nothing_is_needed_nothing_changes(veth: Pair, start_daemon: StartDaemon) -> None:
    """A bulk transfer in the LAN and 500 idle connections, with the kernel's own limits."""
    keys = sysctl_guard.declared_sysctls()
    before = []
    for end in (veth.a, veth.b):
        with end.entered():
            before.append(sysctl_guard.read(keys))
    daemon = start_daemon()
    daemon.wait_active()

    veth.a.run(traffic.PYTHON, "-c", HOLD_500_IDLE)
    with traffic.receiver(veth.b, veth.b_ipv4) as to:
        traffic.send(veth.a, to, seconds=3)

    after = []
    for end in (veth.a, veth.b):
        with end.entered():
            after.append(sysctl_guard.read(keys))
    assert after == before
    assert [one for one in daemon.ctl("history")["changes"] if one["netns"]["name"] != "global"] == []
