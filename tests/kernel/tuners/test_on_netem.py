# SPDX-License-Identifier: GPL-2.0-or-later
"""The gain there is to win, on paths that the kernel itself makes: 50 ms and 100 Mbit/s by netem.

Kernels without netem have the same with a path in user space, in the modules of the tuners; what is
measured here is throughput.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.kernel import namespaces, sysctl_guard, traffic
from tests.kernel.conftest import StartDaemon
from tests.kernel.connections import connect, serving
from tests.kernel.daemon import Daemon
from tests.kernel.namespaces import Namespace, Pair
from tests.kernel.paths import has_netem
from tests.kernel.tuners.test_tcp_buffer import HOLD_500_IDLE, RMEM, SMALL_RMEM, SMALL_WMEM, WMEM, largest
from tests.requirements import require_rung

RTT_MS, MBIT_PER_S = 50, 100
NEEDED_BYTES = 2 * MBIT_PER_S * 125 * RTT_MS
"""Half of a buffer is overhead."""
CONNECTIONS, CONNECTION_S = 4, 5.0
ENOUGH_MBIT_PER_S = 0.85 * MBIT_PER_S
MOST_CHANGES = 10


@pytest.fixture
def far() -> Iterator[Pair]:
    require_rung(has_netem(), "no netem in this kernel")
    with namespaces.distant_pair(rtt_ms=RTT_MS, mbit_per_s=MBIT_PER_S) as made:
        yield made


def send_one_after_another(pair: Pair) -> list[float]:
    """Mbit/s of each connection."""
    rates = []
    with traffic.receiver(pair.b, pair.b_ipv4) as to:
        for _ in range(CONNECTIONS):
            sent = traffic.send(pair.a, to, seconds=CONNECTION_S)
            rates.append(sent * 8 / 1e6 / CONNECTION_S)
    return rates


def check(daemon: Daemon, where: Namespace, key: str, rates: list[float]) -> None:
    changes = [one for one in daemon.ctl("history")["changes"] if one["tunable"] == key]
    limit = largest(where.read_sysctl(key))
    print(f"{[round(rate, 1) for rate in rates]} Mbit/s, {len(changes)} changes, limit {limit} bytes")
    assert all(rate >= ENOUGH_MBIT_PER_S for rate in rates[1:]), rates
    assert 1 <= len(changes) <= MOST_CHANGES
    assert limit <= 4 * NEEDED_BYTES


def test_a_small_receive_limit_fills_the_path_from_the_second_connection_on(
    far: Pair, start_daemon: StartDaemon
) -> None:
    far.b.write_sysctl(RMEM, SMALL_RMEM)
    daemon = start_daemon("--allow", "tcp_buffer")
    since = time.monotonic()

    rates = send_one_after_another(far)

    print(f"after {time.monotonic() - since:.1f} s:")
    check(daemon, far.b, RMEM, rates)


def test_a_small_send_limit_fills_the_path_from_the_second_connection_on(
    far: Pair, start_daemon: StartDaemon
) -> None:
    far.a.write_sysctl(WMEM, SMALL_WMEM)
    daemon = start_daemon("--allow", "tcp_buffer")

    check(daemon, far.a, WMEM, send_one_after_another(far))


def test_one_percent_of_loss_moves_connections_to_bbr(start_daemon: StartDaemon) -> None:
    require_rung(has_netem(), "no netem in this kernel")
    with namespaces.distant_pair(rtt_ms=RTT_MS, mbit_per_s=MBIT_PER_S, loss=0.01) as lossy:
        daemon = start_daemon("--allow", "tcp_conn")
        with serving(lossy.b, lossy.b_ipv4):
            told = connect(lossy.a, lossy.b_ipv4, count=6, payload_bytes=1_000_000)
        daemon.wait_line(
            r"retransmits.* change net\.persock\.tcp\.congestion_control from \(\w+\) -> \(bbr\)"
        )

    last = [one.last for one in told]
    print(last)
    assert last.count("bbr") >= len(last) // 2


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
