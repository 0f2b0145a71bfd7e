# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import errno
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpftune.supervisor.prefixes import (
    MAX_HOSTS,
    Address,
    parse_addresses,
    prefix_hosts,
    read_prefix_hosts,
)


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 2, 1, 0) + body


def new_address(address: str, prefix: int, *, device: int, scope: int = 0) -> bytes:
    packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    label = struct.pack("=HH", 4 + 6, 3) + b"veth0\0\0\0"
    body = struct.pack("=BBBBI", family, prefix, 0, scope, device)
    return message(20, body + label + struct.pack("=HH", 4 + len(packed), 1) + packed)


DONE = message(3, struct.pack("=i", 0))


def parse(data: bytes) -> dict[int, int]:
    found, done = parse_addresses(data)
    assert done
    return prefix_hosts(found)


def test_hosts_by_device() -> None:
    data = new_address("10.0.0.1", 24, device=2) + new_address("10.1.0.1", 16, device=3) + DONE
    assert parse(data) == {2: 256, 3: 65536}


def test_distinct_prefixes_of_a_device_add_up() -> None:
    data = (
        new_address("10.0.0.1", 24, device=2)
        + new_address("10.0.0.2", 24, device=2)
        + new_address("10.0.1.1", 24, device=2)
    )
    assert parse(data + DONE) == {2: 512}


def test_ipv6_saturates() -> None:
    assert parse(new_address("fd00::1", 64, device=2) + DONE) == {2: MAX_HOSTS}
    assert parse(new_address("fd00::1", 120, device=2) + DONE) == {2: 256}


def test_loopback_has_no_neighbours() -> None:
    assert parse(new_address("127.0.0.1", 8, device=1, scope=254) + DONE) == {}


def test_a_dump_in_several_datagrams() -> None:
    found, done = parse_addresses(new_address("10.0.0.1", 24, device=2))
    assert found == [Address(socket.AF_INET, 2, 24, b"\x0a\0\0\1")]
    assert not done


def test_an_error_reply() -> None:
    with pytest.raises(OSError, match="refused") as caught:
        parse_addresses(message(2, struct.pack("=i", -errno.EPERM) + bytes(16)))
    assert caught.value.errno == errno.EPERM


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 32), st.binary(min_size=4, max_size=4))))
def test_hosts_stay_in_range(drawn: list[tuple[int, int, bytes]]) -> None:
    addresses = [Address(socket.AF_INET, device, prefix, raw) for device, prefix, raw in drawn]
    assert all(1 <= hosts <= MAX_HOSTS for hosts in prefix_hosts(addresses).values())


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_this_kernel_answers(family: socket.AddressFamily) -> None:
    assert all(0 < hosts <= MAX_HOSTS for hosts in read_prefix_hosts(family).values())
