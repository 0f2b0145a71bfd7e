# SPDX-License-Identifier: GPL-2.0-or-later
"""The probes of tcp_buffer without a daemon: what takes the place of sockops where that is refused."""

from __future__ import annotations

import fcntl
import shutil
import socket
import struct
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpftune.ipc.record import Event, RecordDecoder
from tests.kernel import namespaces, traffic
from tests.kernel.bpf.rig import ROOT, Rig, opened, read_source
from tests.kernel.namespaces import Namespace, Pair
from tests.kernel.tuners.stuck import stuck
from tests.waiting import wait_for

TUNER = "tcp_buffer"
LADDER = {False: "tp_btf:tcp_probe", True: "raw_tp:tcp_probe"}
RECEIVE_LADDER = {False: "tp_btf:tcp_rcv_space_adjust", True: "raw_tp:tcp_rcv_space_adjust"}
WMEM_MAX, RMEM_MAX = 65_536, 131_072
FEW_PAGES = (100, 200, 400)
"""What a stuck connection is more than."""


@pytest.fixture(params=[False, True], ids=["typed", "legacy"])
def legacy(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def rig(tmp_path: Path, legacy: bool) -> Iterator[Rig]:
    """Loaded, nothing attached; as where the kernel refuses sockops."""
    folder = tmp_path / TUNER
    shutil.copytree(ROOT / "tuners" / TUNER, folder)
    declared = (folder / "tuner.toml").read_text()
    assert declared.count('"sockops", ') == 1
    (folder / "tuner.toml").write_text(declared.replace('"sockops", ', ""))
    source = read_source(folder)
    with opened(tmp_path / "cache", legacy=legacy) as rig:
        assert rig.bpf.load([source]) == {}
        rig.decoders[source.declaration.id] = RecordDecoder(source.declaration)
        yield rig


def attach(rig: Rig, probe: str, hook: str) -> None:
    """That probe alone, by that hook."""
    rig.bpf.attach(TUNER, {probe})
    (status,) = [status for status in rig.bpf.hooks(TUNER) if status.probe == probe]
    if status.hook != hook:
        pytest.skip(f"this kernel has {status.hook} above {hook}")


def seen(rig: Rig, scenario: str, where: Namespace) -> list[Event]:
    cookie = namespaces.cookie(where)
    return [event for event in rig.events() if event.scenario == scenario and event.netns_cookie == cookie]


@pytest.mark.parametrize("address", ["b_ipv4", "b_ipv6"])
def test_senders_at_their_limit_are_seen(distant: Pair, rig: Rig, legacy: bool, address: str) -> None:
    distant.a.write_sysctl("net.ipv4.tcp_wmem", f"4096 16384 {WMEM_MAX}")
    attach(rig, "send", LADDER[legacy])
    with (
        traffic.receiver(distant.b, getattr(distant, address)) as to,
        traffic.sending(distant.a, to, seconds=20),
    ):
        found: list[Event] = []

        def are_enough() -> bool:
            found.extend(seen(rig, "sndbuf_near_limit", distant.a))
            return len(found) > 2

        wait_for(are_enough, 10, "three events")

    newest = found[-1]
    assert newest.vectors["wmem"] == (4096, 16384, WMEM_MAX)
    assert newest["sk_sndbuf"] <= WMEM_MAX < 4 * newest["sk_sndbuf"] // 3
    assert newest["limited_jiffies"] > 0
    assert 38_000 < newest["min_rtt_us"] <= newest["srtt_us"]
    assert newest["interval_ns"] >= 2000 * newest["srtt_us"]
    # Per round trip as much gets through as the sender may hold. It comes in bursts, so one more than there
    # were round trips may fall into the interval.
    rounds = newest["interval_ns"] / (1000 * newest["srtt_us"])
    assert WMEM_MAX / 8 * rounds < newest["moved_bytes"] < WMEM_MAX * (rounds + 1)


def test_what_a_sender_waited_for_before_it_was_looked_at_does_not_count(
    distant: Pair, rig: Rig, legacy: bool
) -> None:
    distant.a.write_sysctl("net.ipv4.tcp_wmem", f"4096 16384 {WMEM_MAX}")
    with traffic.receiver(distant.b, distant.b_ipv4) as to:
        with distant.a.entered():
            sender = socket.create_connection((to.address, to.port))
        with sender:
            send_for(sender, seconds=1.5, piece=bytes(1 << 18))
            wait_for(lambda: queued_bytes(sender) == 0, 5, "all to be acknowledged")
            attach(rig, "send", LADDER[legacy])

            send_for(sender, seconds=2, piece=bytes(1000), pause_s=0.01)
            assert seen(rig, "sndbuf_near_limit", distant.a) == []

            send_for(sender, seconds=2, piece=bytes(1 << 18))
            assert seen(rig, "sndbuf_near_limit", distant.a)


def send_for(sender: socket.socket, *, seconds: float, piece: bytes, pause_s: float = 0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sender.sendall(piece)
        time.sleep(pause_s)


def queued_bytes(sender: socket.socket) -> int:
    (queued,) = struct.unpack("=i", fcntl.ioctl(sender, termios.TIOCOUTQ, bytes(4)))
    return int(queued)


def test_receivers_at_their_limit_are_seen(distant: Pair, rig: Rig, legacy: bool) -> None:
    distant.b.write_sysctl("net.ipv4.tcp_rmem", f"4096 65536 {RMEM_MAX}")
    attach(rig, "receive", RECEIVE_LADDER[legacy])
    with traffic.receiver(distant.b, distant.b_ipv4) as to, traffic.sending(distant.a, to, seconds=20):
        found = wait_for(lambda: seen(rig, "rcvbuf_near_limit", distant.b), 10, "a receiver at its limit")

    assert found[0].vectors["rmem"] == (4096, 65536, RMEM_MAX)
    assert 0 < found[0]["space_bytes"] <= RMEM_MAX


def test_memory_that_is_nearly_used_up_is_seen(netns: Namespace, rig: Rig, legacy: bool) -> None:
    rig.bpf.write_mirror(TUNER, "net.ipv4.tcp_mem", FEW_PAGES)
    attach(rig, "send", LADDER[legacy])
    with stuck(netns, 4):
        found = wait_for(lambda: seen(rig, "memory_near_exhaustion", netns), 5, "that memory is short")

    assert found[0]["allocated_pages"] >= 300
    assert found[0].vectors["tcp_mem"] == FEW_PAGES
