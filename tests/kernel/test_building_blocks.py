# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel tests' own building blocks do what the tests rely on."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests import leftovers
from tests.kernel import namespaces, sysctl_guard, traffic
from tests.kernel.namespaces import Namespace, Pair, read_sysctl

CONNECT_MS = """
import socket, time
before = time.monotonic()
socket.socket().connect_ex(("{address}", 9))
print((time.monotonic() - before) * 1000)
"""
"""A refused connection takes one round trip."""
TCP_RMEM = "net.ipv4.tcp_rmem"


def test_sysctl_of_a_namespace_is_its_own(netns: Namespace) -> None:
    initial = read_sysctl(TCP_RMEM)

    netns.write_sysctl(TCP_RMEM, "4096 65536 77777")

    assert netns.read_sysctl(TCP_RMEM) == "4096 65536 77777"
    assert netns.run("sysctl", "-n", TCP_RMEM).split() == ["4096", "65536", "77777"]
    assert read_sysctl(TCP_RMEM) == initial


def test_namespace_is_gone_after_its_block() -> None:
    with namespaces.namespace() as created:
        assert created.name in leftovers.namespaces()
        inum = created.inum

    assert created.name not in leftovers.namespaces()
    assert inum


@pytest.mark.parametrize("address", ["b_ipv4", "b_ipv6"])
def test_bulk_bytes_arrive(veth: Pair, address: str) -> None:
    with traffic.receiver(veth.b, getattr(veth, address)) as to:
        sent = traffic.send(veth.a, to, seconds=0.2)
        assert to.process.stdout is not None
        received = int(to.process.stdout.readline())

    assert sent == received > 0


def test_slow_reader_holds_the_sender_back(veth: Pair) -> None:
    with traffic.receiver(veth.b, veth.b_ipv4) as to:
        fast = traffic.send(veth.a, to, seconds=0.3)
    with traffic.receiver(veth.b, veth.b_ipv4, pause_ms=50, rcvbuf_bytes=65536) as to:
        slow = traffic.send(veth.a, to, seconds=0.3)

    assert slow < fast


def test_distant_pair_has_its_rate_and_round_trip_time() -> None:
    with namespaces.distant_pair(rtt_ms=40, mbit_per_s=50) as far:
        with traffic.receiver(far.b, far.b_ipv4) as to:
            sent = traffic.send(far.a, to, seconds=2)
        pinged = far.a.run("/usr/bin/python3", "-c", CONNECT_MS.format(address=far.b_ipv4))

    assert 40 <= float(pinged) < 80
    assert 2_000_000 < sent < 20_000_000


def test_sending_stops_with_its_block(veth: Pair) -> None:
    with traffic.receiver(veth.b, veth.b_ipv4) as to, traffic.sending(veth.a, to, seconds=60) as sender:
        assert sender.poll() is None

    assert sender.returncode == -signal.SIGKILL


def test_guard_restores_what_a_test_wrote(netns: Namespace, tmp_path: Path) -> None:
    with netns.entered():
        before = read_sysctl(TCP_RMEM)
        with sysctl_guard.guarded([TCP_RMEM], tmp_path):
            netns.write_sysctl(TCP_RMEM, "4096 65536 77777")
        assert read_sysctl(TCP_RMEM) == before


def test_guard_restores_after_a_run_that_died(netns: Namespace, tmp_path: Path) -> None:
    with netns.entered():
        before = read_sysctl(TCP_RMEM)
        saved = sysctl_guard.read([TCP_RMEM])
        netns.write_sysctl(TCP_RMEM, "4096 65536 77777")
        (tmp_path / "sysctls.json").write_text(sysctl_guard.encode(saved))

        with sysctl_guard.guarded([TCP_RMEM], tmp_path):
            assert read_sysctl(TCP_RMEM) == before


def test_programs_can_be_listed() -> None:
    assert leftovers.programs() == leftovers.programs()
