# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpftune.ipc.declaration import Scope, Tunable
from bpftune.ipc.messages import GLOBAL
from bpftune.supervisor.memory import PAGE_BYTES, Memory
from bpftune.supervisor.netns import NetnsRegistry
from bpftune.supervisor.prefixes import MAX_HOSTS
from bpftune.supervisor.quantities import Bounds, Device, Quantities

ANY_DEVICE = Device(netns_cookie=GLOBAL, ifindex=0)


@pytest.fixture
def quantities(tmp_path: Path) -> Iterator[Quantities]:
    (tmp_path / "zoneinfo").write_text("Node 0, zone Normal\n high 24\n managed 1024\n")
    registry = NetnsRegistry(run_netns=tmp_path / "netns", proc_root=tmp_path)
    yield Quantities(registry=registry, memory=Memory(proc_root=tmp_path))
    registry.close()


def test_each_field_has_its_own_formula_and_original(quantities: Quantities) -> None:
    tunable = Tunable(
        name="net.ipv4.tcp_rmem",
        scope=Scope.NETNS,
        width=3,
        floor=["0", "field0", "max(original, field1)"],
        cap=["memory_pages", "memory_bytes/32", "max(original, min(2147483647, memory_bytes/4))"],
    )
    bounds = quantities.bounds(tunable, original=(1, 2, 9), current=(5, 6, 7), device=ANY_DEVICE)
    memory = 1000 * PAGE_BYTES
    assert bounds == Bounds(floor=(0, 5, 9), cap=(1000, memory // 32, memory // 4))


def test_one_formula_for_all_fields(quantities: Quantities) -> None:
    tunable = Tunable(name="net.x.y", scope=Scope.NETNS, width=2, floor=1, cap="original*2")
    assert quantities.bounds(tunable, original=(3, 4), current=(3, 4), device=ANY_DEVICE) == Bounds(
        floor=(1, 1), cap=(6, 8)
    )


def test_a_device_that_is_gone_has_no_hosts(quantities: Quantities) -> None:
    tunable = Tunable(name="net.ipv4.n", scope=Scope.GLOBAL, cap="max(256, prefix_hosts*4)")
    for device in (Device(netns_cookie=GLOBAL, ifindex=999_999), Device(netns_cookie=5, ifindex=1)):
        assert quantities.bounds(tunable, original=(1,), current=(1,), device=device).cap == (256,)


def test_hosts_of_the_best_device(quantities: Quantities) -> None:
    tunable = Tunable(name="net.ipv6.n", scope=Scope.GLOBAL, cap="prefix_hosts")
    bounds = quantities.bounds(tunable, original=(1,), current=(1,), device=ANY_DEVICE)
    assert 0 <= bounds.cap[0] <= MAX_HOSTS


def test_one_look_at_all_namespaces_serves_all_tunables(
    quantities: Quantities, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[socket.AddressFamily] = []

    def count(family: socket.AddressFamily) -> dict[int, int]:
        looks.append(family)
        return {1: 50}

    monkeypatch.setattr("bpftune.supervisor.quantities.read_prefix_hosts", count)
    for number in range(3):
        tunable = Tunable(name=f"net.ipv4.n{number}", scope=Scope.GLOBAL, cap="prefix_hosts")
        assert quantities.bounds(tunable, original=(0,), current=(0,), device=ANY_DEVICE).cap == (50,)
    assert looks == [socket.AF_INET]
