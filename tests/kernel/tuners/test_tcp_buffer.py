# SPDX-License-Identifier: GPL-2.0-or-later
"""tcp_buffer under real traffic: what it raises, where, how far, and what leaves it cold.

The small limits are set before the daemon starts: later they would be an administrator's word.
Connections are short, one after another, because one that sits at its limit hardly notices that
there is more room.
"""

from __future__ import annotations

import contextlib
import re
from itertools import pairwise

import pytest

from tests.kernel import namespaces, sysctl_guard, traffic
from tests.kernel.bulk import CHUNK_BYTES
from tests.kernel.conftest import StartDaemon
from tests.kernel.daemon import Daemon
from tests.kernel.namespaces import Namespace, Pair, read_sysctl
from tests.requirements import require_late_callbacks
from tests.waiting import SCALE, wait_for

TUNER = "tcp_buffer"
RMEM, WMEM, MODERATE = "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem", "net.ipv4.tcp_moderate_rcvbuf"
KEYS = [key for key in sysctl_guard.declared_sysctls() if not key.startswith("net.core.netdev_budget")]
"""Without the budget that is raised where a processor is too slow for its packets, as an emulated one is."""

SMALL_RMEM = "4096 65536 131072"
SMALL_WMEM = "4096 16384 65536"

PATH_BYTES = 100_000_000 // 8 * 40 // 1000
"""Rate times round trip time of the distant pair."""
BUFFER_BYTES = 2 * PATH_BYTES
"""What carries the path: half of a buffer is overhead."""

CONNECTIONS = 12
CONNECTION_S = 0.8


def largest(value: str) -> int:
    return int(value.split()[2])


def snapshot(*others: Namespace) -> list[dict[str, str]]:
    """Every sysctl that a tuner may touch, byte for byte, in the initial namespace and the others."""
    seen = [sysctl_guard.read(KEYS)]
    for other in others:
        with other.entered():
            seen.append(sysctl_guard.read(KEYS))
    return seen


def send_until_carried(pair: Pair, address: str, where: Namespace, key: str) -> list[int]:
    """Connect until the limit holds what the path needs, then three times more; its values on the way."""
    values: list[int] = []
    with traffic.receiver(pair.b, address) as to:
        while len(values) < CONNECTIONS and sum(value >= BUFFER_BYTES for value in values) < 4:
            traffic.send(pair.a, to, seconds=CONNECTION_S)
            values.append(largest(where.read_sysctl(key)))
    return values


def assert_changed_as_logged(daemon: Daemon, key: str, where: Namespace, first: str) -> None:
    """The scenario's line, then the change's; the values form a chain from the first to the present."""
    value = first
    change = re.compile(
        rf"^bpftune: Due to .+ change {re.escape(key)}\(min default max\)"
        rf" from \((\d+ \d+ \d+)\) -> \((\d+ \d+ \d+)\) in netns '{where.name}'$"
    )
    scenario = f" occurred for tunable '{key}' in netns '{where.name}'. "
    lines = daemon.lines
    for before, line in pairwise(lines):
        if found := change.match(line):
            assert before.startswith("bpftune: Scenario '")
            assert scenario in before
            assert found[1] == value
            value = found[2]
    assert value == where.read_sysctl(key)


def assert_grown(values: list[int]) -> None:
    """Up to what the path needs; a step that did not pay may be taken back, after which nothing grows."""
    peak = values.index(max(values))
    assert values[peak] >= BUFFER_BYTES, f"too little for the path: {values}"
    assert values[-1] <= 4 * BUFFER_BYTES, f"far more than the path needs: {values}"
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert values[peak:] == sorted(values[peak:], reverse=True)


@pytest.mark.parametrize("address", ["b_ipv4", "b_ipv6"])
def test_rmem_grows_for_a_bulk_receiver_and_only_there(
    distant: Pair, netns: Namespace, start_daemon: StartDaemon, address: str
) -> None:
    distant.b.write_sysctl(RMEM, SMALL_RMEM)
    elsewhere = snapshot(distant.a, netns)
    daemon = start_daemon()

    values = send_until_carried(distant, getattr(distant, address), distant.b, RMEM)

    assert_grown(values)
    assert distant.b.read_sysctl(RMEM).split()[:2] == SMALL_RMEM.split()[:2]
    assert snapshot(distant.a, netns) == elsewhere
    assert_changed_as_logged(daemon, RMEM, distant.b, SMALL_RMEM)
    tuner = daemon.tuner(TUNER)
    assert 1 <= tuner["changes"] <= 10
    print(f"{tuner['changes']} changes to {values[-1]}, event to write in us: {tuner['write_latency_us']}")
    assert f"-> ({distant.b.read_sysctl(RMEM)}) in netns '{distant.b.name}'" in tuner["last_change"]
    hooks = {hook["probe"]: hook["hook"] for hook in tuner["hooks"]}
    expected = {"receive": "tp_btf:tcp_rcv_space_adjust", "send": "sockops", "adopt": "iter:tcp"}
    assert hooks.items() >= expected.items()
    assert all(0 < latency < 5_000_000 * SCALE for latency in tuner["write_latency_us"])
    summary = daemon.stop().summary
    assert (
        f"bpftune: sysctl '{RMEM}' changed from ({SMALL_RMEM}) -> ({distant.b.read_sysctl(RMEM)})"
        f" in netns '{distant.b.name}'" in summary
    )


@pytest.mark.parametrize("address", ["b_ipv4", "b_ipv6"])
def test_wmem_grows_for_a_bulk_sender_and_only_there(
    distant: Pair, netns: Namespace, start_daemon: StartDaemon, address: str
) -> None:
    distant.a.write_sysctl(WMEM, SMALL_WMEM)
    elsewhere = snapshot(distant.b, netns)
    daemon = start_daemon()

    values = send_until_carried(distant, getattr(distant, address), distant.a, WMEM)

    assert_grown(values)
    assert distant.a.read_sysctl(WMEM).split()[:2] == SMALL_WMEM.split()[:2]
    assert snapshot(distant.b, netns) == elsewhere
    assert_changed_as_logged(daemon, WMEM, distant.a, SMALL_WMEM)
    assert 1 <= daemon.tuner(TUNER)["changes"] <= 10


def test_moderation_is_switched_on_with_the_first_growth(distant: Pair, start_daemon: StartDaemon) -> None:
    # Without moderation a socket keeps the default size: only where that is the limit, the limit matters.
    distant.b.write_sysctl(RMEM, "4096 131072 131072")
    distant.b.write_sysctl(MODERATE, "0")
    daemon = start_daemon()

    with traffic.receiver(distant.b, distant.b_ipv4) as to, traffic.sending(distant.a, to, seconds=20):
        daemon.wait_line(rf"change {RMEM}.* in netns '{distant.b.name}'$")
        daemon.wait_line(rf"change {MODERATE} from \(0\) -> \(1\) in netns '{distant.b.name}'$", 2)

    assert distant.b.read_sysctl(MODERATE) == "1"
    assert read_sysctl(MODERATE) == "1"
    assert not any("reached its cap" in line for line in daemon.lines)


def test_rmem_grows_in_the_initial_namespace(
    initial_restored: None, netns: Namespace, start_daemon: StartDaemon
) -> None:
    with namespaces.distant_from_initial() as pair:
        pair.b.write_sysctl(RMEM, SMALL_RMEM)
        elsewhere = snapshot(pair.a, netns)[1:]
        daemon = start_daemon()
        with traffic.receiver(pair.b, pair.b_ipv4) as to:
            for _ in range(3):
                traffic.send(pair.a, to, seconds=CONNECTION_S)
        daemon.wait_line(rf"Scenario '.+' occurred for tunable '{RMEM}' in global ns\. \S")
        daemon.wait_line(rf"Due to .+ change {RMEM}\(min default max\) from \({SMALL_RMEM}\) -> \(.+\)$")
        grown = pair.b.read_sysctl(RMEM)

        assert largest(grown) >= 3 * largest(SMALL_RMEM)
        assert snapshot(pair.a, netns)[1:] == elsewhere
        assert f"bpftune: sysctl '{RMEM}' changed from ({SMALL_RMEM}) -> ({grown})" in daemon.stop().summary


def test_sockets_with_sizes_of_their_own_cause_nothing(distant: Pair, start_daemon: StartDaemon) -> None:
    distant.b.write_sysctl(RMEM, SMALL_RMEM)
    distant.a.write_sysctl(WMEM, SMALL_WMEM)
    before = snapshot(distant.a, distant.b)
    daemon = start_daemon()

    with traffic.receiver(distant.b, distant.b_ipv4, rcvbuf_bytes=65536) as to:
        for _ in range(2):
            assert traffic.send(distant.a, to, seconds=CONNECTION_S, sndbuf_bytes=32768) >= CHUNK_BYTES

    tuner = daemon.tuner(TUNER)
    assert not any(counted["sent"] for counted in tuner["counters"])
    assert snapshot(distant.a, distant.b) == before


HOLD_500_IDLE = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0), backlog=512)
held = [(socket.create_connection(listener.getsockname()), listener.accept()[0]) for _ in range(500)]
for client, server in held:
    client.send(b"x")
    server.recv(1)
print("held", flush=True)
sys.stdin.read()
"""


def test_idle_connections_cause_nothing(netns: Namespace, start_daemon: StartDaemon) -> None:
    netns.write_sysctl(RMEM, SMALL_RMEM)
    netns.write_sysctl(WMEM, SMALL_WMEM)
    before = snapshot(netns)
    daemon = start_daemon()

    netns.run(traffic.PYTHON, "-c", HOLD_500_IDLE)

    assert daemon.tuner(TUNER)["events_in"] == 0
    assert snapshot(netns) == before


def test_a_sender_older_than_the_daemon_is_seen(distant: Pair, start_daemon: StartDaemon) -> None:
    require_late_callbacks()
    distant.a.write_sysctl(WMEM, SMALL_WMEM)
    with (
        traffic.receiver(distant.b, distant.b_ipv4) as to,
        traffic.sending(distant.a, to, seconds=60) as sender,
    ):
        wait_for(lambda: established(distant.a), 5, "the connection")
        daemon = start_daemon()
        daemon.wait_line(rf"change {WMEM}\(min default max\) .* in netns '{distant.a.name}'$", timeout_s=15)
        assert sender.poll() is None


def established(where: Namespace) -> bool:
    return bool(where.run("ss", "-Htn", "state", "established", f"dport = :{traffic.PORT}").strip())


MOST_ROUNDS = 12
"""Ten steps are the most that is allowed, and two rounds without one end it."""


@pytest.mark.timeout(240)
def test_growth_settles_where_connections_share_the_path(distant: Pair, start_daemon: StartDaemon) -> None:
    """Each could take more, together they fill the path."""
    distant.b.write_sysctl(RMEM, SMALL_RMEM)
    daemon = start_daemon()
    changes: list[int] = []
    with contextlib.ExitStack() as stack:
        to = [
            stack.enter_context(traffic.receiver(distant.b, distant.b_ipv4, port=traffic.PORT + i))
            for i in range(3)
        ]
        while len(changes) < MOST_ROUNDS and not has_settled(changes):
            with contextlib.ExitStack() as senders:
                started = [
                    senders.enter_context(traffic.sending(distant.a, one, seconds=CONNECTION_S)) for one in to
                ]
                for process in started:
                    process.wait(20 * SCALE)
            changes.append(daemon.tuner(TUNER)["changes"])

    value = largest(distant.b.read_sysctl(RMEM))
    print(f"changes after each round: {changes}, limit {value}")
    assert has_settled(changes)
    assert 1 <= changes[-1] <= 10
    assert value <= 4 * BUFFER_BYTES


def has_settled(changes: list[int]) -> bool:
    """Two rounds in a row brought no change."""
    return len(changes) > 2 and changes[-1] == changes[-3]
